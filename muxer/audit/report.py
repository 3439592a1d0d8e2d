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

    `open` are the findings that no repair has corrected.
    """

    request: dict[str, Any]
    until: int
    finished: float | None
    counts: dict[str, int]
    findings: dict[FindingKind, int]
    open: dict[FindingKind, int]

    @classmethod
    def from_ledger(cls, ledger: AuditLedger) -> AuditSummary:
        """Read the numbers."""
        return cls(
            request=ledger.read_fact("request", {}),
            until=ledger.read_fact("until", 0),
            finished=ledger.read_fact("finished", None),
            counts={name: int(ledger.read_fact(name, 0)) for name in COUNTS},
            findings=ledger.count_findings(),
            open=ledger.count_open(CLOSED),
        )

    @property
    def is_complete(self) -> bool:
        """Whether every call has what it should have. An audit without calls proves nothing."""
        return bool(self.counts["calls"]) and not self.open

    def describe(self) -> str:
        """Return the result in a sentence."""
        total, left = sum(self.findings.values()), sum(self.open.values())
        if not self.counts["calls"] and not total:
            return f"nothing was proved: no call recording was found; check {self._describe_request()}"
        counts = self._describe_counts()
        if not total:
            return f"complete: {counts}; nothing is wrong"
        if self.is_complete:
            return f"complete after repair: {counts}; {count_things(total, 'finding')}, all corrected"
        corrected = f", {total - left:,} corrected, {left:,} open" if left < total else ""
        return f"not complete: {counts}; {count_things(total, 'finding')}{corrected}"

    def _describe_request(self) -> str:
        which = "--query" if self.request.get("query") is not None else "--from and --to"
        shard = ", --own-shard" if self.request.get("own_shard") else ""
        return f"{which}{shard}, [htcc] contact_center_id, and that the user of [htcc] may read all recordings"

    def _describe_counts(self) -> str:
        counts = self.counts
        what = [f"{count_things(counts['calls'], 'call')}, {counts['with_screens']:,} of them with screen files"]
        what[0] += f", {count_things(counts['files'], 'muxed file')}"
        if counts["deep"] or self.request.get("deep"):
            what.append(f"{count_things(counts['deep'], 'muxed file')} compared with {_theirs(counts['deep'])} sources")
        if counts["pending"]:
            what.append(f"{count_things(counts['pending'], 'muxed file')} not due yet")
        return "; ".join(what)


def count_things(number: int, thing: str) -> str:
    """Return a number with the name of what it counts, such as "1 call" and "2 calls"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _theirs(number: int) -> str:
    return "its" if number == 1 else "their"


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
    yield "open_findings", sum(summary.open.values())
    yield "list", (finding_facts(finding, repair) for finding, repair in ledger.read_findings())


def format_epoch(seconds: float | None) -> str:
    """Return a time in UTC, empty when unknown."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
