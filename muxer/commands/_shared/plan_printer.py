"""Tells a plan to people: paragraphs, and the timeline drawn, in colours on a terminal, else in plain ASCII."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from muxer.commands._shared.timeline_text import StyledLine, draw_timeline
from muxer.log.setup import escape_control
from muxer.status.progress import format_duration

DEFAULT_PLAN_COLUMNS = 100
MAX_PLAN_COLUMNS = 160


def print_plan(told: Mapping[str, Any]) -> None:
    """Given what the command found out, print it."""
    terminal = sys.stdout.isatty()
    unicode = terminal and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    width = (
        min(shutil.get_terminal_size((DEFAULT_PLAN_COLUMNS, 24)).columns, MAX_PLAN_COLUMNS)
        if terminal
        else DEFAULT_PLAN_COLUMNS
    )
    lines = list(_plan_lines(told, width, unicode))
    if not terminal:
        sys.stdout.writelines("".join(text for text, _ in line).rstrip() + "\n" for line in lines)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for line in lines:
        console.print(Text.assemble(*line), soft_wrap=True)


def _plan_lines(told: Mapping[str, Any], width: int, unicode: bool) -> Iterator[StyledLine]:
    yield [("call recording ", ""), (escape_control(told["recording"]), "bold")]
    if "shard" in told:
        yield [(_shard_text(told["shard"]), "")]
    for problem in told["problems"]:
        yield [(f"note: {escape_control(problem)}", "yellow")]
    for number, target in enumerate(told["targets"], start=1):
        yield []
        agent = f", agent {escape_control(target['agent'])}" if target["agent"] else ""
        yield [(f"muxed file {number} of {len(told['targets'])}{agent}: {_state_text(target)}", "bold")]
        yield from _target_lines(target, width, unicode)


def _shard_text(one: Mapping[str, int]) -> str:
    whose = "this instance's" if one["number"] == one["ours"] else f"not this instance's, which is {one['ours']}"
    return f"shard {one['number']} of {one['of']} (counted from 0): {whose}"


def _state_text(target: Mapping[str, Any]) -> str:
    """Return in words whether a target is done."""
    if not target["published"]:
        state = "to be made"
        if target["supersedes"]:
            state += f", in place of {', '.join(map(escape_control, target['supersedes']))}"
    elif target["done"]:
        state = f"done already, {', '.join(map(escape_control, target['done']))}"
    else:
        state = "done already, by a muxed file of more sources"
    return f"{state}; the label screenRecording is missing" if target["label_missing"] else state


def _target_lines(target: Mapping[str, Any], width: int, unicode: bool) -> Iterator[StyledLine]:
    measured = target.get("measured") or [{} for _ in target["sources"]]
    for number, (source, found) in enumerate(zip(target["sources"], measured, strict=True)):
        yield from _source_lines(f"screen {number}" if number else "audio", source, found)
    if "timeline" in target:
        yield []
        yield from draw_timeline(target["timeline"], width, unicode=unicode, assumed=bool(target.get("assumed")))
        yield []
        yield from _finding_lines(target)
    if "stored" in target:
        readers = [
            f"{escape_control(one['alias']) or '(no alias)'} (SHA-256 {one['sha256'][:16]})" for one in target["recipients"]
        ]
        yield _labelled_line(
            "encrypted", f"for {', '.join(readers)}" if readers else "no: RWS has no encryption certificate"
        )
        when = " (if it is made once more, by mux --force)" if target["published"] else ""
        yield _labelled_line("stored as", f"{escape_control(target['stored'])}{when}")
    commands = [*target.get("commands", ()), *([target["encryption"]] if "encryption" in target else [])]
    if "commands" in target:
        yield _labelled_line("commands", "in this order; those that only read the sources have run for this plan")
        yield from ([(f"  {escape_control(shlex.join(command))}", "bright_black")] for command in commands)
    if "error" in target:
        yield _labelled_line("error", target["error"], "red")
        yield _labelled_line("what to do", target["remedy"])


def _source_lines(label: str, source: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[StyledLine]:
    yield _labelled_line(label, escape_control(source["name"]))
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
    yield [(f"{'':12}{escape_control(source['where'])}", "bright_black")]


def _finding_lines(target: Mapping[str, Any]) -> Iterator[StyledLine]:
    facts = target["timeline"]
    yield _labelled_line("length", f"{facts['length']:.3f} s" + (", by the metadata" if target.get("assumed") else ""))
    yield _labelled_line("gaps", "; ".join(f"{_span_text(gap)} black" for gap in target["gaps"]) or "none")
    if facts["paused"]:
        yield _labelled_line("paused", "; ".join(f"{_span_text(span)} black" for span in facts["paused"]))
    yield _labelled_line("overlaps", "; ".join(map(_overlap_text, target["overlaps"])) or "none")
    if "picture" in target:
        yield _labelled_line("picture", target["picture"])
        method = (
            "copy, nothing is re-encoded" if target["method"] == "copy" else f"re-encode: {escape_control(target['method'])}"
        )
        yield _labelled_line("method", method)
        if "missing" in target:
            yield _labelled_line("incomplete", escape_control(target["missing"]))
        yield from _encoded_lines(facts["pieces"])


def _encoded_lines(pieces: Sequence[Mapping[str, Any]]) -> Iterator[StyledLine]:
    """Yield a line for each piece that is re-encoded."""
    for piece in pieces:
        if piece["reason"] is not None:
            yield [(f"{'':12}{_span_text(piece)} of screen {piece['screen'] + 1}: {escape_control(piece['reason'])}", "")]


def _overlap_text(one: Mapping[str, Any]) -> str:
    what = "tolerated, the later one is shown uncut after it" if one["tolerated"] else "the later one is shown there"
    return f"{escape_control(one['earlier'])} and {escape_control(one['later'])} by {one['seconds']:.3f} s: {what}"


def _span_text(piece: Mapping[str, Any]) -> str:
    begin, end = piece["begin"], piece["end"]
    return f"{format_duration(begin)} to {format_duration(end)} ({end - begin:.3f} s)"


def _labelled_line(label: str, text: str, style: str = "") -> StyledLine:
    return [(f"{label:<12}", "bold"), (text, style)]
