"""Real runs against an RWS that has a bulk query of screen recordings and ignores its ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from lab.lab import Lab
from muxer.audit import auditor
from tests.support.calls import add_short, log_messages, log_of, muxed_entries, write_config
from tests.support.checklist import run_check as check
from tests.support.checklist import write_check_config
from tests.support.commands import run_in_process
from tests.support.daemon import run_muxer
from tests.support.tiers import spread_variants

Make = Callable[..., Lab]
MIGRATION = {"advanced__call_recording_query_string": "startTime=0"}
TIMEOUT_SECONDS = 60


def single_requests(lab: Lab) -> list[str]:
    return [
        request.path
        for request in lab.store.served_requests
        if request.method == "GET" and "/screen-recordings/" in request.path
    ]


@pytest.mark.parametrize("held", spread_variants(["nothing", "others", "bare"], 3))
def test_recordings_are_muxed_although_bulk_query_ignores_ids(make_lab: Make, held: str) -> None:
    lab = make_lab(bulk_ids=held)
    calls = add_short(lab, range(3))
    config = write_config(lab, **MIGRATION, processing__query_slice_size="1")
    done = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 0 and "3 files muxed" in done.out, done.out
    assert all(len(muxed_entries(lab, call.id)) == 1 for call in calls)
    warned = [
        message for message in log_messages(log_of(config)) if "RWS ignores its ids; reading them one by one" in message
    ]
    assert len(warned) == 1
    assert len([request for request in lab.store.served_requests if "ids=" in request.path]) == 1


@pytest.mark.parametrize("held", spread_variants(["nothing", "bare"], 2))
def test_migration_reads_again_what_it_took_for_calls_without_a_screen(make_lab: Make, held: str) -> None:
    """The second slice shows that RWS ignores the ids: in the first one, no call that was read alone has a screen."""
    lab = make_lab(bulk_ids=held)
    calls = add_short(lab, range(9))
    for number in (0, 2, 3, 4, 5):
        lab.store._screens.pop(calls[number].id)
    config = write_config(lab, **MIGRATION, processing__query_slice_size="6", advanced__concurrent_queries="1")
    done = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 0 and "4 files muxed" in done.out, done.out


@pytest.mark.parametrize("held", spread_variants(["nothing", "bare"], 2))
def test_an_audit_says_that_it_may_have_missed_screens(make_lab: Make, monkeypatch: pytest.MonkeyPatch, held: str) -> None:
    """As above: only the second part of the audit shows that RWS ignores the ids."""
    lab = make_lab(bulk_ids=held)
    calls = add_short(lab, range(9), timedelta(days=3))
    for number in (0, 2, 3, 4, 5):
        lab.store._screens.pop(calls[number].id)
    monkeypatch.setattr(auditor, "CALLS_AT_A_TIME", 6)
    config = write_config(lab, advanced__concurrent_queries="1")
    code, out, err = run_in_process(config, "audit", "--json", "--query", "startTime=0")
    report = json.loads(out)
    assert (code, report["findings"], report["complete"]) == (4, {"missing": 3, "unchecked": 1}, False), (out, err)
    [unchecked] = [one for one in report["list"] if one["kind"] == "unchecked"]
    assert "batch_read_screen_recording_metadata = 0" in unchecked["detail"]
    again = write_config(lab, processing__batch_read_screen_recording_metadata="0")
    code, out, err = run_in_process(again, "audit", "--json", "--query", "startTime=0")
    assert (code, json.loads(out)["findings"]) == (4, {"missing": 4}), (out, err)


def test_bulk_query_that_omits_unknown_ids_stays_in_use(make_lab: Make) -> None:
    lab = make_lab()
    calls = add_short(lab, range(8))
    for call in calls[:7]:
        lab.store._screens.pop(call.id)
    config = write_config(lab, **MIGRATION, processing__query_slice_size="4")
    done = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 0 and "1 files muxed" in done.out, done.out
    assert len([request for request in lab.store.served_requests if "ids=" in request.path]) == 2
    assert not [message for message in log_messages(log_of(config)) if "one by one" in message]


@pytest.mark.parametrize("held", spread_variants(["nothing", "others"], 2))
@pytest.mark.parametrize("count", [0, 2])
def test_check_reports_ignored_ids(make_lab: Make, tmp_path: Path, held: str, count: int) -> None:
    lab = make_lab(bulk_ids=held)
    add_short(lab, range(count))
    line = check(write_check_config(lab, tmp_path)).line_of("RWS screen recordings")
    if count or held == "others":
        assert line.status == "warning" and "ignores the ids of the bulk query" in line.found
        assert "batch_read_screen_recording_metadata" in line.advice
    else:  # an empty response is correct
        assert line.status == "ok"


@pytest.mark.parametrize("count", spread_variants([8, 2, 4], 3))
def test_check_reports_an_account_that_may_not_read_screen_recordings(make_lab: Make, tmp_path: Path, count: int) -> None:
    lab = make_lab()
    add_short(lab, range(count))
    lab.store.fail_next("rws", "GET", "/screen-recordings", status=403, times=100)
    line = check(write_check_config(lab, tmp_path)).line_of("RWS screen recordings")
    # A few recordings may be bad; as in a poll, more of them are not.
    assert line.status == ("failed" if count > 2 else "warning")
