"""The HTML report of an audit: one file, without scripts, and nothing is loaded from elsewhere.

Unless asked for, it has the ids of recordings and the names of muxed files only: those of sources and addresses may contain
the names of people.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from itertools import groupby, islice
from typing import IO

from muxer import __version__
from muxer.audit.call_rules import METADATA_PROBLEMS
from muxer.audit.findings import TEXTS, Finding, FindingKind
from muxer.audit.ledger import AuditLedger
from muxer.audit.orphans import recording_of_name
from muxer.audit.report import AuditSummary, count_things, format_epoch

# A browser shows more rows slowly; the JSON output has all.
MAX_ROWS = 5_000
# A longer audit is shown by days.
_MAX_HOUR_BARS = 72
_HOURS_PER_DAY = 24
_ADDRESS = re.compile(r"\bhttps?://[^\s,;]+|\S+\.(?:mp3|mp4|wav|bin)\b")
_WIDTH, _HEIGHT, _MARGIN = 960, 220, 28
_STYLE = """
:root { color-scheme: light dark; --good: #2e7d4f; --bad: #c0392b; --calm: #7a8699; --line: #c9d1db; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { border-left: 6px solid var(--good); padding: .6rem 1rem; }
.verdict { background: color-mix(in srgb, var(--good) 10%, transparent); }
.verdict.bad { border-color: var(--bad); background: color-mix(in srgb, var(--bad) 10%, transparent); }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .35rem .6rem; vertical-align: top; }
th, td { border-bottom: 1px solid var(--line); } td.number { text-align: right; font-variant-numeric: tabular-nums; }
code { font-size: .9em; overflow-wrap: anywhere; } svg text { fill: currentColor; font-size: 11px; }
small, .calm { color: var(--calm); }
"""


def write_report(out: IO[str], ledger: AuditLedger, now: datetime, *, names: bool, shown_again: bool = False) -> None:
    """Write the report as HTML; with `names`, also those of source files, and addresses.

    `shown_again` says that the audit was finished before, and nothing was looked at now.
    """
    summary = AuditSummary.from_ledger(ledger)
    out.write(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Audit of muxed recordings</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>\n'
        f"<h1>Audit of muxed recordings</h1>\n"
        f'<p class="verdict{"" if summary.is_complete else " bad"}">{escape(summary.describe())}.</p>\n'
        f"<p>{escape(_describe_scope(summary, names))} {_describe_age(summary, shown_again)}"
        f"Written on {now.astimezone(UTC):%Y-%m-%d at %H:%M} UTC by Recording Muxer {escape(__version__)}.</p>\n"
    )
    for part in (*_draw_chart(list(ledger.read_hours())), *_kind_table(summary), *_finding_table(ledger, summary, names)):
        out.write(part)
    out.write("</body></html>\n")


def _describe_scope(summary: AuditSummary, names: bool) -> str:
    request = summary.request
    if request.get("query"):
        # A query may have phone numbers and names.
        return f"Calls that the query {request['query']} finds." if names else "Calls that a query finds."
    begin, end = format_epoch(request["from"] / 1000), format_epoch(summary.until / 1000)
    return f"Calls that began from {begin} to before {end}."


def _describe_age(summary: AuditSummary, shown_again: bool) -> str:
    if summary.finished is None:
        return ""
    done = f"{datetime.fromtimestamp(summary.finished, UTC):%Y-%m-%d at %H:%M} UTC"
    return f"The audit was finished on {done}{', and its result is shown again' if shown_again else ''}. "


def _draw_chart(hours: list[tuple[int, int, int, int]]) -> Iterator[str]:
    """Yield a chart of calls and findings by hour, or by day."""
    hours = [row for row in hours if row[0]]
    if not hours:
        return
    size = 1 if hours[-1][0] - hours[0][0] < _MAX_HOUR_BARS else _HOURS_PER_DAY
    bars = [
        (number, sum(row[1] for row in rows), sum(row[3] for row in rows))
        for number, group in groupby(hours, key=lambda row: row[0] // size)
        for rows in [list(group)]
    ]
    first, last, most = bars[0][0], bars[-1][0], max(calls for _, calls, _ in bars)
    step = (_WIDTH - 2 * _MARGIN) / (last - first + 1)
    unit = "hour" if size == 1 else "day"
    yield f"<h2>Calls by {unit}</h2>\n<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role='img' width='100%'>"
    yield f"<title>Calls by {unit} (UTC); red: with findings</title>"
    base = _HEIGHT - _MARGIN
    for number, calls, findings in bars:
        height, left = (base - 12) * calls / most, _MARGIN + (number - first) * step
        label = f"{_format_bar(number, size)}: {count_things(calls, 'call')}, {count_things(findings, 'finding')}"
        yield _draw_bar(left, base - height, step, height, "--calm", label)
        if findings:
            red = max(3.0, height * min(1.0, findings / calls))
            yield _draw_bar(left, base - red, step, red, "--bad", label)
    yield f"<text x='{_MARGIN}' y='{_HEIGHT - 8}'>{_format_bar(first, size)}</text>"
    end = f"{_format_bar(last, size)} (UTC)"
    yield f"<text x='{_WIDTH - _MARGIN}' y='{_HEIGHT - 8}' text-anchor='end'>{end}</text>"
    yield f"<text x='{_MARGIN}' y='10'>up to {count_things(most, 'call')} in each {unit}; red: findings</text></svg>\n"


def _draw_bar(left: float, top: float, step: float, height: float, colour: str, label: str) -> str:
    place = f"x='{left:.1f}' y='{top:.1f}' width='{max(1.0, step - 1):.1f}' height='{height:.1f}'"
    return f"<rect {place} fill='var({colour})'><title>{escape(label)}</title></rect>"


def _format_bar(number: int, size: int) -> str:
    time = datetime.fromtimestamp(number * size * 3600, UTC)
    return f"{time:%Y-%m-%d %H:00}" if size == 1 else f"{time:%Y-%m-%d}"


def _kind_table(summary: AuditSummary) -> Iterator[str]:
    if not summary.findings:
        return
    head = "<th>finding</th><th>number</th><th>open</th><th>what to do</th>"
    yield f"<h2>What was found</h2>\n<table><tr>{head}</tr>\n"
    for kind, count in summary.findings.items():
        text, left = TEXTS[kind], summary.open.get(kind, 0)
        numbers = f"<td class='number'>{count:,}</td><td class='number'>{left:,}</td>"
        remedy = f"{text.remedy}." if left else "All were corrected."
        yield f"<tr><td>{escape(text.title)}</td>{numbers}<td>{escape(remedy)}</td></tr>\n"
    yield "</table>\n"


def _finding_table(ledger: AuditLedger, summary: AuditSummary, names: bool) -> Iterator[str]:
    total = sum(summary.findings.values())
    if not total:
        return
    yield "<h2>Findings</h2>\n"
    if total > MAX_ROWS:
        yield f"<p class='calm'>The first {MAX_ROWS:,} of {total:,}; the output of --json has all.</p>\n"
    yield "<table><tr><th>call began (UTC)</th><th>recording</th><th>what is wrong</th></tr>\n"
    rows = islice(ledger.read_findings(), MAX_ROWS)
    yield from _finding_rows(row if names else (_without_names(row[0]), _hide_names(row[1])) for row in rows)
    yield "</table>\n"


def _without_names(finding: Finding) -> Finding:
    """Remove what may contain the name of a person."""
    name = finding.file.rpartition("/")[2]
    if recording_of_name(name) is not None:
        return replace(finding, file=name, detail=_hide_names(finding.detail))
    if finding.detail.startswith(METADATA_PROBLEMS):
        return replace(finding, detail=f"{METADATA_PROBLEMS}; --names and --json show why")
    detail = finding.detail.replace(finding.file, "its file") if finding.file else finding.detail
    return replace(finding, file="", detail=_hide_names(detail))


def _hide_names(text: str) -> str:
    """Replace addresses and names of files, but those of muxed files."""
    return _ADDRESS.sub(lambda found: found[0] if recording_of_name(found[0].rstrip(",;")) is not None else "…", text)


def _finding_rows(findings: Iterable[tuple[Finding, str]]) -> Iterator[str]:
    for finding, repair in findings:
        file = f"<br><code>{escape(finding.file)}</code>" if finding.file else ""
        title = TEXTS[FindingKind(finding.kind)].title
        done = f"<br><small>repair: {escape(repair)}</small>" if repair else ""
        began = format_epoch(finding.started).replace("T", " ").removesuffix("Z")
        yield (
            f"<tr><td>{began}</td><td><code>{escape(finding.recording)}</code></td>"
            f"<td>{escape(title)}: {escape(finding.detail)}{file}{done}</td></tr>\n"
        )
