"""What the status page reads from a real journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from muxer.errors import MediaError, ServiceUnavailable
from muxer.journal import history
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
