"""Tells a plan to people: paragraphs, and the timeline drawn, in colours on a terminal, else in plain ASCII."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from muxer.commands.drawing import Line, draw
from muxer.observe.logs import plain
from muxer.progress import clock

USUAL_COLUMNS = 100
MOST_COLUMNS = 160


def tell(told: Mapping[str, Any]) -> None:
    """Given what the command found out, print it."""
    terminal = sys.stdout.isatty()
    unicode = terminal and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    width = min(shutil.get_terminal_size((USUAL_COLUMNS, 24)).columns, MOST_COLUMNS) if terminal else USUAL_COLUMNS
    lines = list(_lines(told, width, unicode))
    if not terminal:
        sys.stdout.writelines("".join(text for text, _ in line).rstrip() + "\n" for line in lines)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for line in lines:
        console.print(Text.assemble(*line), soft_wrap=True)


def _lines(told: Mapping[str, Any], width: int, unicode: bool) -> Iterator[Line]:
    yield [("call recording ", ""), (plain(told["recording"]), "bold")]
    if "shard" in told:
        yield [(_shard(told["shard"]), "")]
    for problem in told["problems"]:
        yield [(f"note: {plain(problem)}", "yellow")]
    for number, target in enumerate(told["targets"], start=1):
        yield []
        agent = f", agent {plain(target['agent'])}" if target["agent"] else ""
        yield [(f"muxed file {number} of {len(told['targets'])}{agent}: {_state(target)}", "bold")]
        yield from _target(target, width, unicode)


def _shard(one: Mapping[str, int]) -> str:
    whose = "this instance's" if one["number"] == one["ours"] else f"not this instance's, which is {one['ours']}"
    return f"shard {one['number']} of {one['of']} (counted from 0): {whose}"


def _state(target: Mapping[str, Any]) -> str:
    """Return in words whether a target is done."""
    if not target["published"]:
        state = "to be made"
        if target["supersedes"]:
            state += f", in place of {', '.join(map(plain, target['supersedes']))}"
    elif target["done"]:
        state = f"done already, {', '.join(map(plain, target['done']))}"
    else:
        state = "done already, by a muxed file of more sources"
    return f"{state}; the label screenRecording is missing" if target["label_missing"] else state


def _target(target: Mapping[str, Any], width: int, unicode: bool) -> Iterator[Line]:
    measured = target.get("measured") or [{} for _ in target["sources"]]
    for number, (source, found) in enumerate(zip(target["sources"], measured, strict=True)):
        yield from _source(f"screen {number}" if number else "audio", source, found)
    if "timeline" in target:
        yield []
        yield from draw(target["timeline"], width, unicode=unicode, assumed=bool(target.get("assumed")))
        yield []
        yield from _findings(target)
    if "stored" in target:
        readers = [f"{plain(one['alias']) or '(no alias)'} (SHA-256 {one['sha256'][:16]})" for one in target["recipients"]]
        yield _pair("encrypted", f"for {', '.join(readers)}" if readers else "no: RWS has no encryption certificate")
        when = " (if it is made once more, by mux --force)" if target["published"] else ""
        yield _pair("stored as", f"{plain(target['stored'])}{when}")
    commands = [*target.get("commands", ()), *([target["encryption"]] if "encryption" in target else [])]
    if "commands" in target:
        yield _pair("commands", "in this order; those that only read the sources have run for this plan")
        yield from ([(f"  {plain(shlex.join(command))}", "bright_black")] for command in commands)
    if "error" in target:
        yield _pair("error", target["error"], "red")
        yield _pair("what to do", target["remedy"])


def _source(label: str, source: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Line]:
    yield _pair(label, plain(source["name"]))
    size = found.get("bytes", source["bytes"])
    promised = "unknown length" if source["seconds"] is None else f"{source['seconds']:.1f} s by its metadata"
    parts = [
        f"from {source['start'] or 'unknown'}",
        promised,
        *([f"{found['length']:.3f} s measured"] if "length" in found else []),
        *([f"{size:,} bytes"] if size else []),
        *(found[name] for name in ("codec", "picture") if name in found),
        "encrypted, through RCS" if source["encrypted"] else "not encrypted",
    ]
    yield [(f"{'':12}{', '.join(parts)}", "")]
    yield [(f"{'':12}{plain(source['where'])}", "bright_black")]


def _findings(target: Mapping[str, Any]) -> Iterator[Line]:
    facts = target["timeline"]
    yield _pair("length", f"{facts['length']:.3f} s" + (", by the metadata" if target.get("assumed") else ""))
    yield _pair("gaps", "; ".join(f"{_span(gap)} black" for gap in target["gaps"]) or "none")
    if facts["paused"]:
        yield _pair("paused", "; ".join(f"{_span(span)} black" for span in facts["paused"]))
    yield _pair("overlaps", "; ".join(map(_overlap, target["overlaps"])) or "none")
    if "picture" in target:
        yield _pair("picture", target["picture"])
        method = "copy, nothing is re-encoded" if target["method"] == "copy" else f"re-encode: {plain(target['method'])}"
        yield _pair("method", method)
        if "missing" in target:
            yield _pair("incomplete", plain(target["missing"]))
        yield from _encoded(facts["pieces"])


def _encoded(pieces: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    """Yield a line for each piece that is re-encoded."""
    for piece in pieces:
        if piece["reason"] is not None:
            yield [(f"{'':12}{_span(piece)} of screen {piece['screen'] + 1}: {plain(piece['reason'])}", "")]


def _overlap(one: Mapping[str, Any]) -> str:
    what = "tolerated, the later one is shown uncut after it" if one["tolerated"] else "the later one is shown there"
    return f"{plain(one['earlier'])} and {plain(one['later'])} by {one['seconds']:.3f} s: {what}"


def _span(piece: Mapping[str, Any]) -> str:
    begin, end = piece["begin"], piece["end"]
    return f"{clock(begin)} to {clock(end)} ({end - begin:.3f} s)"


def _pair(label: str, text: str, style: str = "") -> Line:
    return [(f"{label:<12}", "bold"), (text, style)]
