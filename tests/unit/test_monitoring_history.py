"""What the status page reads from a real journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from muxer.errors import MediaError, PathForbidden, ServiceUnavailable
from muxer.journal import history
from muxer.journal.correction_need import FailuresSinceMuxed, find_correction_need
from muxer.journal.journal import Journal, TargetKey

NOW = 1_795_570_000.0


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.sqlite3")


def test_a_failed_target_stays_listed_as_a_failure_while_it_is_retried(journal: Journal, tmp_path: Path) -> None:
    failed, new = TargetKey("a_muxed.mp4", "call-a"), TargetKey("b_muxed.mp4", "call-b")
    journal.record_failure(failed, ServiceUnavailable("503"), NOW - 60)
    for state in (journal.record_wanted, journal.record_running):
        state(failed, NOW - 30)
        state(new, NOW - 30)
        past = history.read_history(tmp_path / "journal.sqlite3", NOW)
        assert [(failure.recording, failure.attempts, failure.error) for failure in past.failures] == [
            ("call-a", 1, "ServiceUnavailable")
        ]
        assert past.hours[-1].failed == 1
    journal.record_done(failed, NOW, {})
    past = history.read_history(tmp_path / "journal.sqlite3", NOW)
    assert past.failures == ()
    assert past.hours[-1].failed == 0


def test_a_target_set_aside_is_listed_as_a_failure_too(journal: Journal, tmp_path: Path) -> None:
    for _ in range(3):
        journal.record_failure(TargetKey("a_muxed.mp4", "call-a"), MediaError("broken"), NOW)
    [row] = history.read_history(tmp_path / "journal.sqlite3", NOW).failures
    assert (row.state, row.attempts, row.retry_at) == ("aside", 3, None)


def fail_forbidden(journal: Journal, numbers: range, at: float) -> None:
    for number in numbers:
        for agent in ("a", "b"):
            key = TargetKey(f"{number}_{agent}_muxed.mp4", f"call-{number}", agent)
            journal.record_failure(key, PathForbidden("403"), at)


def test_nothing_muxed_since_several_recordings_failed_needs_a_correction(journal: Journal, tmp_path: Path) -> None:
    """Waiting media and broken recordings fail beside them. One that is being retried has still failed."""
    path = tmp_path / "journal.sqlite3"
    journal.record_done(TargetKey("done_muxed.mp4", "call-done"), NOW - 900, {"method": "copy"})
    journal.record_done(TargetKey("label_muxed.mp4", "call-label"), NOW - 10, {})  # its label was corrected, no upload
    fail_forbidden(journal, range(7), NOW - 800)
    journal.record_running(TargetKey("0_a_muxed.mp4", "call-0", "a"), NOW - 5)
    journal.record_failure(TargetKey("broken_muxed.mp4", "call-broken"), MediaError("broken"), NOW - 700)
    journal.record_wanted(TargetKey("new_muxed.mp4", "call-new"), NOW)
    failures = history.read_failures_since_muxed(path)
    assert failures == history.read_history(path, NOW).since_muxed
    assert failures == FailuresSinceMuxed(NOW - 900, {"MUX-214": 7, "MUX-321": 1})
    need = find_correction_need(failures, NOW)
    assert need is not None and need.text == (
        "7 recordings wait for a correction (MUX-214: A storage denies access to this folder or file), "
        "none has been muxed since 2026-11-25T01:11:40Z"
    )
    journal.record_done(TargetKey("good_muxed.mp4", "call-good"), NOW, {"method": "copy"})
    assert history.read_failures_since_muxed(path) == FailuresSinceMuxed(NOW)
    fail_forbidden(journal, range(7), NOW + 1)
    failures = history.read_failures_since_muxed(path)
    assert failures is not None and find_correction_need(failures, NOW + 10) is None, "many at once among good ones"


@pytest.mark.parametrize(
    ("last", "codes", "count"),
    [
        (None, {}, 0),
        (None, {"MUX-214": 2}, 0),
        (None, {"MUX-214": 3}, 3),
        (NOW - 900, {"MUX-214": 2}, 0),
        (NOW - 900, {"MUX-214": 3}, 3),
        (NOW - 900, {"MUX-214": 2, "MUX-217": 4, "MUX-201": 90}, 6),
        (NOW - 900, {"MUX-201": 90, "MUX-322": 90, "": 9}, 0),
        (NOW - 60, {"MUX-214": 3}, 0),
    ],
)
def test_few_or_other_failures_need_no_correction(last: float | None, codes: dict[str, int], count: int) -> None:
    need = find_correction_need(FailuresSinceMuxed(last, codes), NOW)
    assert (need.count if need else 0) == count


def test_an_unreadable_journal_says_nothing_about_failures(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite3").write_bytes(b"not a database")
    assert history.read_failures_since_muxed(tmp_path / "journal.sqlite3") is None
    assert history.read_failures_since_muxed(None) is None


@pytest.mark.posix
def test_a_journal_that_is_a_link_to_itself_cannot_be_read(tmp_path: Path) -> None:
    (loop := tmp_path / "journal.sqlite3").symlink_to(loop)
    assert history.read_counts(loop) is None and not history.count_by_code(loop)
