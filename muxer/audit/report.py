"""The result of an audit, as JSON and for the HTML report. Pure but for reading the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from muxer.audit.findings import TEXTS, Finding, FindingKind
from muxer.audit.ledger import COUNTS, AuditLedger
from muxer.audit.repair import CLOSED


@dataclass(frozen=True)
class AuditSummary:
    """The numbers of an audit of calls until `until` (epoch milliseconds), which ended at `finished` (epoch seconds).

    `open_findings` are those that no repair has corrected.
    """

    request: dict[str, Any]
    until: int
    finished: float | None
    counts: dict[str, int]
    findings: dict[FindingKind, int]
    open_findings: int

    @classmethod
    def from_ledger(cls, ledger: AuditLedger) -> AuditSummary:
        """Read the numbers."""
        counts = {name: int(ledger.read_fact(name, 0)) for name in COUNTS}
        request, until = ledger.read_fact("request", {}), ledger.read_fact("until", 0)
        return cls(
            request, until, ledger.read_fact("finished", None), counts, ledger.count_findings(), ledger.count_open(CLOSED)
        )

    @property
    def is_complete(self) -> bool:
        """Whether every call has what it should have."""
        return not self.open_findings

    def describe(self) -> str:
        """Return the result in a sentence."""
        counts = self.counts
        what = f"{counts['calls']:,} calls, {counts['with_screens']:,} of them with screen files"
        what += f", {counts['files']:,} muxed files"
        pending = f"; {counts['pending']:,} muxed files are not due yet" if counts["pending"] else ""
        deep = f"; {counts['deep']:,} muxed files compared with their sources" if counts["deep"] else ""
        total = sum(self.findings.values())
        if not total:
            return f"complete: {what}{deep}{pending}; nothing is wrong"
        state = f"{total:,} findings" if total > 1 else "1 finding"
        if self.is_complete:
            return f"complete after repair: {what}{deep}{pending}; {state}, all corrected"
        return f"not complete: {what}{deep}{pending}; {state}"


def finding_facts(finding: Finding, repair: str) -> dict[str, Any]:
    """Return a finding for JSON."""
    text = TEXTS[finding.kind]
    return {
        "kind": finding.kind.value,
        "recording": finding.recording,
        "file": finding.file,
        "call_started": format_epoch(finding.started),
        "what": text.title,
        "detail": finding.detail,
        "what_to_do": text.remedy,
        "repair": repair,
    }


def report_facts(ledger: AuditLedger, shown_again: str) -> Iterator[tuple[str, Any]]:
    """Yield the keys of the JSON report with their values; the last one, ``list``, is an iterator.

    `shown_again` is the state file of an audit that was finished before, else empty.
    """
    summary = AuditSummary.from_ledger(ledger)
    yield "complete", summary.is_complete
    yield "summary", summary.describe()
    yield "finished", format_epoch(summary.finished)
    yield "shown_again", shown_again
    yield "request", summary.request | {"until": summary.until}
    yield "counts", summary.counts
    yield "findings", {kind.value: count for kind, count in summary.findings.items()}
    yield "open_findings", summary.open_findings
    yield "list", (finding_facts(finding, repair) for finding, repair in ledger.read_findings())


def format_epoch(seconds: float | None) -> str:
    """Return a time in UTC, empty when unknown."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
