"""Prints a plan as text with the timeline drawn: in colours on a terminal, elsewhere in plain ASCII."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from muxer.commands._shared.timeline_text import StyledLine, draw_timeline
from muxer.log.setup import escape_control
from muxer.log.terminal import writes_utf8
from muxer.status.progress import format_duration
from muxer.status.timeline_view import ENCODE, TimelineView, read_timeline

DEFAULT_PLAN_COLUMNS = 100
MAX_PLAN_COLUMNS = 160


def print_plan(report: Mapping[str, Any]) -> None:
    """Print the report of the command `plan`, whose parts `plan_report` creates."""
    if not sys.stdout.isatty():
        for line in _plan_lines(report, DEFAULT_PLAN_COLUMNS, unicode=False):
            sys.stdout.write("".join(text for text, _ in line).rstrip() + "\n")
        return
    from rich.console import Console
    from rich.text import Text

    width = min(shutil.get_terminal_size((DEFAULT_PLAN_COLUMNS, 24)).columns, MAX_PLAN_COLUMNS)
    console = Console(highlight=False)
    for line in _plan_lines(report, width, writes_utf8(sys.stdout)):
        console.print(Text.assemble(*line), soft_wrap=True)


def _plan_lines(report: Mapping[str, Any], width: int, unicode: bool) -> Iterator[StyledLine]:
    yield [("call recording ", ""), (escape_control(report["recording"]), "bold")]
    if "shard" in report:
        yield [(_shard_text(report["shard"]), "")]
    for problem in report["problems"]:
        yield [(f"note: {escape_control(problem)}", "yellow")]
    for number, target in enumerate(report["targets"], start=1):
        yield []
        agent = f", agent {escape_control(target['agent'])}" if target["agent"] else ""
        yield [(f"muxed file {number} of {len(report['targets'])}{agent}: {_state_text(target)}", "bold")]
        yield from _target_lines(target, width, unicode)


def _shard_text(shard: Mapping[str, int]) -> str:
    owner = "this instance" if shard["number"] == shard["ours"] else f"another instance; this one has shard {shard['ours']}"
    return f"shard {shard['number']} of {shard['of']} (counted from 0): {owner}"


def _state_text(target: Mapping[str, Any]) -> str:
    if not target["published"]:
        state = "to be muxed"
        if target["supersedes"]:
            state += f", replaces {', '.join(map(escape_control, target['supersedes']))}"
    elif target["done"]:
        state = f"already muxed, {', '.join(map(escape_control, target['done']))}"
    else:
        state = "already covered by a muxed file with more sources"
    return f"{state}; the label screenRecording is missing" if target["label_missing"] else state


def _target_lines(target: Mapping[str, Any], width: int, unicode: bool) -> Iterator[StyledLine]:
    measured = target.get("measured") or [{} for _ in target["sources"]]
    for number, (source, measurements) in enumerate(zip(target["sources"], measured, strict=True)):
        yield from _source_lines(f"screen {number}" if number else "audio", source, measurements)
    if (timeline := read_timeline(target.get("timeline"))) is not None:
        yield []
        yield from draw_timeline(timeline, width, unicode=unicode, assumed=bool(target.get("assumed")))
        yield []
        yield from _timeline_lines(target, timeline)
    if "stored" in target:
        readers = [
            f"{escape_control(reader['alias']) or '(no alias)'} (SHA-256 {reader['sha256'][:16]})"
            for reader in target["recipients"]
        ]
        encrypted = f"for {', '.join(readers)}" if readers else "no: RWS has no encryption certificate"
        yield _labelled_line("encrypted", encrypted)
        condition = " (if it is muxed again with mux --force)" if target["published"] else ""
        yield _labelled_line("stored as", f"{escape_control(target['stored'])}{condition}")
    if "commands" in target:
        yield _labelled_line("commands", "in this order; those that only read the sources have run for this plan")
    for command in (*target.get("commands", ()), *([target["encryption"]] if "encryption" in target else [])):
        yield [(f"  {escape_control(shlex.join(command))}", "bright_black")]
    if "error" in target:
        yield _labelled_line("error", target["error"], "red")
        yield _labelled_line("what to do", target["remedy"])


def _source_lines(label: str, source: Mapping[str, Any], measurements: Mapping[str, Any]) -> Iterator[StyledLine]:
    yield _labelled_line(label, escape_control(source["name"]))
    size = measurements.get("bytes", source["bytes"])
    parts = [
        f"from {source['start'] or 'unknown'}",
        "unknown length" if source["seconds"] is None else f"{source['seconds']:.1f} s by its metadata",
        *([f"{measurements['length']:.3f} s measured"] if "length" in measurements else []),
        *([f"{size:,} bytes"] if size else []),
        *(measurements[name] for name in ("codec", "picture") if name in measurements),
        "encrypted, decrypted by RCS" if source["encrypted"] else "not encrypted",
    ]
    yield [(f"{'':12}{', '.join(parts)}", "")]
    yield [(f"{'':12}{escape_control(source['where'])}", "bright_black")]


def _timeline_lines(target: Mapping[str, Any], timeline: TimelineView) -> Iterator[StyledLine]:
    paused = target["timeline"]["paused"]
    yield _labelled_line("length", f"{timeline.length:.3f} s" + (", by the metadata" if target.get("assumed") else ""))
    yield _labelled_line("gaps", _black_text(target["gaps"]) or "none")
    if paused:
        yield _labelled_line("paused", _black_text(paused))
    yield _labelled_line("overlaps", "; ".join(map(_overlap_text, target["overlaps"])) or "none")
    if "picture" in target:
        yield _labelled_line("video", target["picture"])
        is_copy = target["method"] == "copy"
        method = "copy, nothing is re-encoded" if is_copy else f"re-encode: {escape_control(target['method'])}"
        yield _labelled_line("method", method)
        if "missing" in target:
            yield _labelled_line("incomplete", escape_control(target["missing"]))
        for part in timeline.parts:
            if part.kind == ENCODE:
                span = _span_text(part.begin, part.end)
                yield [(f"{'':12}{span} of screen {part.screen}: {escape_control(part.reason)}", "")]


def _overlap_text(overlap: Mapping[str, Any]) -> str:
    shown = "tolerated, the later one is shown uncut after it" if overlap["tolerated"] else "the later one is shown there"
    files = f"{escape_control(overlap['earlier'])} and {escape_control(overlap['later'])}"
    return f"{files} by {overlap['seconds']:.3f} s: {shown}"


def _black_text(spans: list[Mapping[str, float]]) -> str:
    return "; ".join(f"{_span_text(span['begin'], span['end'])} black" for span in spans)


def _span_text(begin: float, end: float) -> str:
    return f"{format_duration(begin)} to {format_duration(end)} ({end - begin:.3f} s)"


def _labelled_line(label: str, text: str, style: str = "") -> StyledLine:
    return [(f"{label:<12}", "bold"), (text, style)]
