"""What the HTML report of an audit shows of names and addresses, and that metadata cannot change the page."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from muxer.audit.call_rules import METADATA_PROBLEMS, CallVerdict
from muxer.audit.findings import TEXTS, Finding, FindingKind
from muxer.audit.html_report import write_report
from muxer.audit.ledger import AuditLedger
from muxer.audit.repair import REPAIRED
from muxer.audit.report import AuditSummary
from muxer.commands._shared.audit_output import print_result
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


DONE = CallVerdict(files=1)


def summarise(path: Path, *verdicts: CallVerdict, repairs: Sequence[str] = (), **request: object) -> AuditSummary:
    """Return the summary of an audit of calls with these verdicts, whose first findings were repaired."""
    ledger = AuditLedger(path / "state", {"query": None, "deep": None} | request)
    ledger.record_calls([(f"call-{number}", 1e9, True, verdict) for number, verdict in enumerate(verdicts)])
    for (finding, _), repair in zip(list(ledger.read_findings()), repairs, strict=False):
        ledger.record_repair(finding, repair)
    return AuditSummary.from_ledger(ledger)


def test_an_audit_without_calls_proves_nothing_and_says_what_to_check(tmp_path: Path) -> None:
    for name, request, options in (("span", None, "--from and --to"), ("query", "userName=jdoe", "--query")):
        (folder := tmp_path / name).mkdir()
        summary = summarise(folder, query=request)
        assert not summary.is_complete
        assert f"nothing was proved: no call recording was found; check {options}, [htcc]" in summary.describe()


def test_a_sample_without_files_says_so(tmp_path: Path) -> None:
    summary = summarise(tmp_path, DONE, deep="1/100")
    assert summary.is_complete and "; 0 muxed files compared with their sources; nothing" in summary.describe()


def test_one_of_a_kind_is_singular(tmp_path: Path) -> None:
    summary = summarise(tmp_path, replace(DONE, compared=1, pending=1))
    assert summary.describe() == (
        "complete: 1 call, 1 of them with screen files, 1 muxed file; 1 muxed file compared with its sources; "
        "1 muxed file not due yet; nothing is wrong"
    )


def test_after_a_repair_what_is_open_is_counted_apart(tmp_path: Path) -> None:
    findings = tuple(Finding(FindingKind.MISSING, "call", f"file-{number}", "", "", 1e9) for number in range(3))
    summary = summarise(tmp_path, CallVerdict(findings), repairs=[REPAIRED, REPAIRED, "not repaired: HTTP 500"])
    assert summary.describe().endswith("; 3 findings, 2 corrected, 1 open") and not summary.is_complete
    assert (summary.findings, summary.open) == ({FindingKind.MISSING: 3}, {FindingKind.MISSING: 1})


def test_a_remedy_is_advised_only_for_what_is_open(tmp_path: Path) -> None:
    findings = [Finding(kind, "call", "file", "", "", 1e9) for kind in (FindingKind.MISSING, FindingKind.LABEL_MISSING)]
    summarise(tmp_path, CallVerdict(tuple(findings)), repairs=[REPAIRED, "not repaired: HTTP 500"], **{"from": 0})
    ledger, page, out = AuditLedger(tmp_path / "state", {}), io.StringIO(), io.StringIO()
    write_report(page, ledger, datetime(2026, 3, 1, tzinfo=UTC), names=False)
    with contextlib.redirect_stdout(out):
        print_result(ledger, "")
    for text in (page.getvalue(), out.getvalue()):
        assert TEXTS[FindingKind.MISSING].remedy not in text and "corrected" in text
        assert TEXTS[FindingKind.LABEL_MISSING].remedy in text
