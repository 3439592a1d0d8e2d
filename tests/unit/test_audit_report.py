"""What the HTML report of an audit shows of names and addresses, and that metadata cannot change the page."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

from muxer.audit.call_rules import METADATA_PROBLEMS, CallVerdict
from muxer.audit.findings import Finding, FindingKind
from muxer.audit.html_report import write_report
from muxer.audit.ledger import AuditLedger
from muxer.gir.muxed_names import muxed_name

MUXED = muxed_name("call", ["audio", "screen"])
HOSTILE = "<script>alert(1)</script>'\""
FINDINGS = (
    Finding(FindingKind.UNCHECKED, "call", MUXED, f"HEAD https://store.example.com/jdoe/{MUXED}: HTTP 500", started=1e9),
    Finding(FindingKind.UNCHECKED, "call", "", f"{METADATA_PROBLEMS}: Jane Doe 1.mp4 has no usable startTime", "", 1e9),
    Finding(FindingKind.MISSING, "call", MUXED, "no muxed file", MUXED, 1e9),
    Finding(FindingKind.PUBLISHED_TWICE, "call", MUXED, f"the entries are {MUXED}, {MUXED}.bin", MUXED, 1e9),
    Finding(FindingKind.SOURCE_MISSING, HOSTILE, f"jdoe{HOSTILE}", HOSTILE, "", 1e9),
)


def write(path: Path, *, names: bool) -> str:
    ledger = AuditLedger(path / f"state-{names}", {"query": "userName=jdoe", "from": None})
    ledger.record_calls([("call", 1e9, True, CallVerdict(FINDINGS))])
    ledger.record_repair(FINDINGS[2], "not repaired: GET https://store.example.com/jdoe_1.mp4 and jdoe_2.mp4: HTTP 500")
    page = io.StringIO()
    write_report(page, ledger, datetime(2026, 3, 1, tzinfo=UTC), names=names)
    return page.getvalue()


def test_names_and_addresses_are_shown_on_request_only(tmp_path: Path) -> None:
    page = write(tmp_path, names=False)
    for hidden in ("jdoe", "Jane", "Doe", "store.example.com"):
        assert hidden not in page
    assert f"the entries are {MUXED}, {MUXED}.bin" in page and "HTTP 500" in page
    page = write(tmp_path, names=True)
    for shown in ("userName=jdoe", "Jane Doe 1.mp4", "https://store.example.com/jdoe_1.mp4"):
        assert shown in page


def test_names_cannot_change_the_page(tmp_path: Path) -> None:
    for names in (True, False):
        assert "<script" not in write(tmp_path, names=names)


def test_the_report_says_when_the_audit_was_finished(tmp_path: Path) -> None:
    ledger = AuditLedger(tmp_path / "state", {"query": "userName=jdoe", "from": None})
    ledger.write_facts({"finished": datetime(2026, 2, 1, 12, tzinfo=UTC).timestamp()})
    for again in (True, False):
        page = io.StringIO()
        write_report(page, ledger, datetime(2026, 3, 1, tzinfo=UTC), names=False, shown_again=again)
        assert "finished on 2026-02-01 at 12:00 UTC" in page.getvalue()
        assert ("shown again" in page.getvalue()) is again
