"""Real runs against servers with unusual paging: nothing is lost without a message."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from lab.lab import Lab
from tests.support.calls import add_short, log_messages, log_of, muxed_by, muxed_entries, write_config
from tests.support.checklist import run_check as check
from tests.support.checklist import write_check_config
from tests.support.daemon import FAST_RETRY, MuxerProcess, run_muxer, wait_until
from tests.support.tiers import spread_variants

Make = Callable[..., Lab]
TIMEOUT_SECONDS = 90
SCAN = {"advanced__call_recording_query_string": "startTime=0&scanAndScroll=true", "advanced__pagination": "2"}
PLAIN = {"advanced__call_recording_query_string": "startTime=0", "advanced__pagination": "2"}
LINK_FORMS = ("nextUri", "nextPage", "nextPageUri", "links", "_links", "pagination", "object", "header", "scrollId")
CALL_COUNT = 5


def parse_summary(out: str) -> tuple[int, int, int]:
    """Return found, muxed and failed of a migration's summary."""
    found = re.search(r"(\d+) recordings found[^,]*, (\d+) files muxed,.* (\d+) failed", out)
    assert found is not None, out
    return int(found[1]), int(found[2]), int(found[3])


def matching_messages(config: Path, text: str) -> list[str]:
    return [message for message in log_messages(log_of(config)) if text in message]


@pytest.mark.parametrize("form", spread_variants(LINK_FORMS, 12))
def test_every_link_form_is_followed_to_the_last_page(make_lab: Make, form: str) -> None:
    lab = make_lab(link_form=form)
    calls = add_short(lab, range(CALL_COUNT))
    config = write_config(lab, **SCAN)
    done = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert (done.process.returncode, *parse_summary(done.out)) == (0, CALL_COUNT, CALL_COUNT, 0), done.out
    assert all(len(muxed_entries(lab, call.id)) == 1 for call in calls)
    assert not matching_messages(config, "keys of the response")


@pytest.mark.parametrize(
    ("query", "form"), spread_variants([(SCAN, "unknown"), (PLAIN, "unknown"), (PLAIN, "none"), (PLAIN, "scrollId")], 4)
)
def test_unknown_link_form_is_reported_and_loses_nothing(make_lab: Make, query: dict[str, str], form: str) -> None:
    lab = make_lab(link_form=form, scroll_empty_first_page=False)
    calls = add_short(lab, range(CALL_COUNT))
    config = write_config(lab, **query)
    done = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert (done.process.returncode, *parse_summary(done.out)) == (0, CALL_COUNT, CALL_COUNT, 0), done.out
    assert all(len(muxed_entries(lab, call.id)) == 1 for call in calls)
    (warned,) = matching_messages(config, "no link to the next page that the muxer understands")
    assert "keys of the response: statusCode, recordings" in warned and ("cursor" in warned) == (form == "unknown")


@pytest.mark.parametrize("form", spread_variants(["paging", "unknown"], 2))
def test_an_empty_scan_page_without_link_loses_nothing(make_lab: Make, form: str) -> None:
    lab = make_lab(empty_scans=True, link_form=form)
    calls = add_short(lab, range(CALL_COUNT))
    config = write_config(lab, **SCAN)
    done = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert (done.process.returncode, *parse_summary(done.out)) == (0, CALL_COUNT, CALL_COUNT, 0), done.out
    assert all(len(muxed_entries(lab, call.id)) == 1 for call in calls)
    (warned,) = matching_messages(config, "empty page without a link")
    assert "keys of the response: statusCode, recordings" in warned


@pytest.mark.long
def test_refused_pages_are_replaced_by_time_windows(make_lab: Make) -> None:
    lab = make_lab(pages_refused_from=2)
    calls = add_short(lab, range(0, 100 * CALL_COUNT, 100), timedelta(minutes=30))
    config = write_config(lab, **PLAIN)
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert (done.process.returncode, *parse_summary(done.out)) == (0, CALL_COUNT, CALL_COUNT, 0), done.out
    assert all(len(muxed_entries(lab, call.id)) == 1 for call in calls)
    assert "page 2 of the query: " in matching_messages(config, "the query failed; reading it again")[0]
    assert len(matching_messages(config, "RWS refuses page 2 of a query at every attempt")) == 1


def test_possibly_incomplete_migration_exits_with_4(make_lab: Make) -> None:
    """All calls started in the same second: no time window separates them."""
    lab = make_lab(pages_refused_from=2, page_cap=2)
    first, *others = add_short(lab, range(CALL_COUNT))
    times = {name: (lab.store.get_call(first.id) or {})[name] for name in ("startTime", "stopTime")}
    for call in others:
        lab.store.add_call({**(lab.store.get_call(call.id) or {}), **times})
    config = write_config(lab, **PLAIN)
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 4
    assert "migration not complete" in done.out and "[advanced] pagination" in done.out
    assert matching_messages(config, "RWS may not have returned all call recordings: RWS refuses page 2")


@pytest.mark.long
def test_polls_find_everything_and_count_deviations(make_lab: Make) -> None:
    """Calls of two hours, pages of two and no link: the daemon muxes all calls; the first finished poll is complete."""
    lab = make_lab(link_form="unknown", scroll_empty_first_page=False)
    calls = add_short(lab, range(0, 600 * CALL_COUNT, 600), timedelta(hours=2))
    config = write_config(lab, advanced__pagination="2")
    with MuxerProcess(config) as muxer:
        wait_until(lambda: len(muxed_by(log_of(config))) == CALL_COUNT, TIMEOUT_SECONDS, "all muxed", log_of(config))
        assert muxer.stop() == 0
    assert sorted(muxed_by(log_of(config))) == sorted(call.id for call in calls)
    assert not matching_messages(config, "the poll failed")
    assert len(matching_messages(config, "keys of the response: statusCode, recordings, cursor {following}")) <= 1


def test_check_names_the_keys_of_the_response(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab(link_form="unknown", scroll_empty_first_page=False)
    add_short(lab, range(CALL_COUNT))
    done = check(write_check_config(lab, tmp_path, advanced__pagination="2"))
    line = done.line_of("RWS pages")
    assert line.status == "failed" and "keys of the response: statusCode, recordings, cursor" in line.found
    assert done.line_of("RWS window").found.endswith(f"{CALL_COUNT} call recordings") and done.exit_code == 1


def test_response_without_recordings_list_is_an_error(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    lab.store.fail_next("rws", "GET", "/recordings?", 200, times=99, body=b'{"statusCode":0,"items":[{"id":"C1"}]}')
    done = run_muxer(write_config(lab, **PLAIN), seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 4 and "keys of the response: statusCode, items" in done.out
    checked = check(write_check_config(lab, tmp_path))
    assert checked.exit_code == 1 and checked.line_of("RWS login").status == "ok"
    assert [line.check for line in checked.lines if line.status == "failed"] == ["RWS pages"]
    assert "keys of the response: statusCode, items" in checked.line_of("RWS pages").found


def test_check_reports_an_empty_scan_page_and_a_refused_page(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab(empty_scans=True, pages_refused_from=2)
    add_short(lab, range(0, 100 * CALL_COUNT, 100), timedelta(minutes=30))
    done = check(write_check_config(lab, tmp_path, advanced__pagination="2"))
    pages = [line for line in done.lines if line.check == "RWS pages"]
    assert [page.status for page in pages] == ["failed", "failed"], done.text
    assert "refuses page 2" in pages[0].found and "empty page" in pages[1].found
    assert done.line_of("RWS window").found.endswith(f"{CALL_COUNT} call recordings")


@pytest.mark.parametrize("form", spread_variants(["paging", *LINK_FORMS], 12))
def test_check_does_not_report_known_links(make_lab: Make, tmp_path: Path, form: str) -> None:
    lab = make_lab(link_form=form)
    add_short(lab, range(CALL_COUNT))
    done = check(write_check_config(lab, tmp_path, advanced__pagination="2"))
    assert not [line for line in done.lines if line.check == "RWS pages"]
    assert done.line_of("RWS window").found.endswith(f"{CALL_COUNT} call recordings")
