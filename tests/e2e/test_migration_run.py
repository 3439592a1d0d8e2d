"""A migration: one query, all recordings that it finds, a summary and an exit code."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Callable
from urllib.parse import parse_qsl, urlsplit

import pytest

from lab.lab import Lab
from muxer.gir.session import READ_ATTEMPTS
from muxer.polling.sharding import shard_of
from tests.support.calls import (
    TWO_AGENTS,
    add_short,
    log_messages,
    log_of,
    muxed_by,
    muxed_entries,
    screen_file,
    stored_muxed,
    write_config,
)
from tests.support.daemon import FAST_RETRY, PACKAGE, PYTHON, MuxerProcess, run_muxer, wait_until
from tests.support.tiers import spread_variants

Make = Callable[..., Lab]
TIMEOUT_SECONDS = 60
EVERYTHING = {"advanced__call_recording_query_string": "startTime=0"}


def parse_counts(out: str) -> tuple[int, ...]:
    """Return found, muxed, already done, without screen, failed of a summary."""
    summary = re.search(
        r"(\d+) recordings found[^,]*, (\d+) files muxed, (\d+) already done, (\d+) recordings without screen, (\d+) failed",
        out,
    )
    assert summary is not None, out
    return tuple(map(int, summary.groups()))


def test_migration_runs_once_and_reports_all_results(make_lab: Make) -> None:
    lab = make_lab()
    calls = {call.plan.name: call for call in lab.add_cases()}
    config = write_config(lab, advanced__call_recording_query_string="userName=agent* AND Alice&startTime=0")
    done = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 0, done.err
    assert parse_counts(done.out) == (8, 6, 1, 2, 0)
    assert not muxed_entries(lab, calls["late"].id)
    again = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert again.process.returncode == 0 and parse_counts(again.out) == (8, 0, 7, 2, 0)
    assert len(muxed_by(log_of(config))) == 6


def test_migration_without_results_succeeds(make_lab: Make) -> None:
    done = run_muxer(write_config(make_lab(), **EVERYTHING), seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 0
    assert done.out == (
        "migration done: 0 recordings found, 0 files muxed, 0 already done, 0 recordings without screen, 0 failed\n"
    )


def test_failed_recordings_are_named_and_retried_alone_by_next_run(make_lab: Make) -> None:
    """One recording fails completely; of another, the file of one of two agents fails; for a third, RWS fails twice."""
    lab = make_lab()
    (transfer,) = add_short(lab, [0], plan=TWO_AGENTS)
    good, bad, hidden = add_short(lab, range(3))
    saved = {path: path.read_bytes() for path in (screen_file(lab, call) for call in (bad, transfer))}
    for path in saved:
        path.write_bytes(b"rubbish")
    lab.store.fail_next("rws", "GET", f"/screen-recordings/{hidden.id}", 500, times=2 * READ_ATTEMPTS)
    config = write_config(lab, **EVERYTHING, processing__batch_read_screen_recording_metadata="0")
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 4, done.err
    assert parse_counts(done.out) == (4, 2, 0, 0, 3)
    assert set(done.out.strip().rpartition("failed: ")[2].split(", ")) == {bad.id, transfer.id, hidden.id}
    failures = [message for message in log_messages(log_of(config)) if message.startswith("failed: ")]
    assert {failure.split(": ")[1] for failure in failures} == {bad.id, transfer.id, hidden.id}
    assert any(bad.screens[0].media_id in failure for failure in failures)
    assert [len(muxed_entries(lab, call.id)) for call in (good, bad, hidden, transfer)] == [1, 0, 0, 1]
    for path, content in saved.items():
        path.write_bytes(content)
    again = run_muxer(config, seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert again.process.returncode == 0, again.out
    assert parse_counts(again.out) == (4, 3, 2, 0, 0)
    assert [len(muxed_entries(lab, call.id)) for call in (good, bad, hidden, transfer)] == [1, 1, 1, 2]


def test_refused_query_is_reported_with_option_and_rws_message(make_lab: Make) -> None:
    config = write_config(make_lab(), advanced__call_recording_query_string="startTime=yesterday")
    done = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 4
    assert "[advanced] call_recording_query_string failed" in done.out
    assert "400" in done.out and "The parameter startTime is invalid" in done.out
    assert any("The parameter startTime is invalid" in message for message in log_messages(log_of(config)))


def test_recordings_found_before_query_failure_are_muxed(make_lab: Make) -> None:
    lab = make_lab()
    calls = add_short(lab, range(3))
    refusal = b'{"statusCode": 2, "statusMessage": "no more of that"}'
    lab.store.fail_next("rws", "GET", "offset=2", 400, body=refusal)
    # Time windows, which are read instead, have an end.
    lab.store.fail_next("rws", "GET", "endTime=", 400, times=100, body=refusal)
    done = run_muxer(write_config(lab, **EVERYTHING, advanced__pagination="2"), seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 4
    assert "migration not complete" in done.out and "no more of that" in done.out
    assert parse_counts(done.out) == (2, 2, 0, 0, 0)
    assert [len(muxed_entries(lab, call.id)) for call in calls] == [1, 1, 0]


def test_a_refused_page_loses_nothing(make_lab: Make) -> None:
    lab = make_lab()
    calls = add_short(lab, range(3))
    lab.store.fail_next("rws", "GET", "offset=2", 400, body=b'{"statusCode": 2, "statusMessage": "no more of that"}')
    done = run_muxer(write_config(lab, **EVERYTHING, advanced__pagination="2"), seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 0 and parse_counts(done.out) == (3, 3, 0, 0, 0), done.out
    assert [len(muxed_entries(lab, call.id)) for call in calls] == [1, 1, 1]


@pytest.mark.long
def test_restarted_query_counts_nothing_twice(make_lab: Make) -> None:
    """RWS fails on the last page; the recordings of the first page are muxed before the query is restarted."""
    lab = make_lab()
    add_short(lab, range(3))
    lab.store.fail_next("rws", "GET", "offset=2", 503, times=3)
    config = write_config(lab, **EVERYTHING, advanced__pagination="2")
    done = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 0, done.out
    assert any("reading it again" in message for message in log_messages(log_of(config)))
    assert parse_counts(done.out) == (3, 3, 0, 0, 0)


def test_query_limit_overrides_page_size(make_lab: Make) -> None:
    lab = make_lab()
    add_short(lab, range(3))
    options = {"advanced__call_recording_query_string": "startTime=0&limit=1", "advanced__pagination": "50"}
    done = run_muxer(write_config(lab, **options), "--muxer-id=0", "--total-muxers=1000", seconds=TIMEOUT_SECONDS)
    assert parse_counts(done.out)[0] == 3 and "(0 of this shard)" in done.out
    queries = [
        parse_qsl(urlsplit(request.path).query) for request in lab.store.served_requests if "/recordings?" in request.path
    ]
    assert [[value for name, value in one if name == "limit"] for one in queries] == [["1"]] * 3


@pytest.mark.long
def test_two_sharded_migrations_share_the_work(make_lab: Make) -> None:
    lab = make_lab()
    calls = add_short(lab, range(6))
    configs = [write_config(lab, f"shard-{n}", **EVERYTHING, advanced__worker_threads="1") for n in range(2)]
    arguments = [("--muxer-type=primary", f"--muxer-id={n}", "--total-muxers=2") for n in range(2)]
    with MuxerProcess(configs[0], *arguments[0]) as one, MuxerProcess(configs[1], *arguments[1]) as other:
        assert (one.wait(TIMEOUT_SECONDS), other.wait(TIMEOUT_SECONDS)) == (0, 0)
    shares = [sorted(muxed_by(log_of(config, f"primary-{n}"))) for n, config in enumerate(configs)]
    assert shares == [sorted(call.id for call in calls if shard_of(call.id, 2) == n) for n in range(2)]
    assert all(shares)
    for done, share in zip((one, other), shares, strict=True):
        assert parse_counts(done.out) == (6, len(share), 0, 0, 0)
        assert f"6 recordings found ({len(share)} of this shard)" in done.out
    assert all(len(muxed_entries(lab, call.id)) == 1 for call in calls)


@pytest.mark.parametrize("hard", spread_variants([True, False], 2), ids=["kill -9", "SIGTERM"])
def test_interrupted_migration_is_finished_by_second_run(make_lab: Make, hard: bool) -> None:
    lab = make_lab()
    calls = add_short(lab, range(3))
    config = write_config(lab, **EVERYTHING, advanced__worker_threads="1")
    with MuxerProcess(config) as muxer:
        wait_until(lambda: muxed_by(log_of(config)), TIMEOUT_SECONDS, "the first muxed file", log_of(config))
        if hard:
            muxer.process.kill()
            muxer.process.wait()
        else:
            assert muxer.stop() == 0
            assert "migration stopped before its end" in muxer.out
            assert re.search(r": ([12]) of 3 recordings(?: found so far)?, \1 files muxed, 0 failed", muxer.out), muxer.out
    before = sum(len(muxed_entries(lab, call.id)) for call in calls)
    assert 1 <= before < len(calls)
    again = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert again.process.returncode == 0, again.err
    assert parse_counts(again.out) == (3, 3 - before, before, 0, 0)
    assert [len(muxed_entries(lab, call.id)) for call in calls] == [1, 1, 1]
    assert stored_muxed(lab) == sorted(muxed_entries(lab, call.id)[0]["mediaId"] for call in calls)


@pytest.mark.long
@pytest.mark.machine_ffmpeg  # slow enough for more than one bar
def test_terminal_shows_progress_bar_and_complete_log_lines(make_lab: Make) -> None:
    lab = make_lab()
    add_short(lab, range(9))
    config = write_config(lab, **EVERYTHING, advanced__worker_threads="1", logfile__format="text")
    screen, terminal = pty.openpty()
    command = [PYTHON, "muxer_process.py", f"--config-file={config}"]
    process = subprocess.Popen(command, cwd=PACKAGE, stdin=terminal, stdout=subprocess.PIPE, stderr=terminal)
    os.close(terminal)
    shown = _read_terminal(screen)
    out, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0 and parse_counts(out.decode()) == (9, 9, 0, 0, 0)
    bars = re.findall(r"\r\[([#.]{20})\] (\d) of 9 recordings(?: found so far)?,", shown)
    assert len(bars) >= 2 and bars == sorted(bars, key=lambda one: one[1])
    assert all(cells == f"{'#' * (20 * int(done) // 9):.<20}" for cells, done in bars)
    assert bars[0][1] < bars[-1][1] == "9"
    lines = [one.rstrip("\r").rpartition("\r")[2] for one in shown.split("\n")]
    shown_lines, kept = [line for line in lines if line.startswith("20")], log_of(config).read_text().splitlines()
    # Two threads may write to terminal and file in a different order; lines of one recording come from one thread.
    assert sorted(shown_lines) == sorted(kept)
    for id in set(re.findall(r"\[([0-9a-f-]{36})\]", "".join(kept))):
        assert [one for one in shown_lines if id in one] == [one for one in kept if id in one]


def _read_terminal(screen: int) -> str:
    """Return the output on a terminal until it is closed, which Linux reports as an error."""
    shown = bytearray()
    try:
        while part := os.read(screen, 4096):
            shown += part
    except OSError:
        pass
    os.close(screen)
    return shown.decode()
