"""The summary and the progress of a migration."""

from __future__ import annotations

from dataclasses import replace

import pytest

from muxer.app.migration_report import (
    BAR_WIDTH,
    MAX_EMPTY_ATTEMPTS,
    MAX_STUCK_ATTEMPTS,
    MigrationStatus,
    QueryAttempts,
    progress_bar,
    progress_text,
    summary_text,
)

STANDING = MigrationStatus(
    found=12, ours=8, finished=4, without_screen=1, muxed=5, already_done=2, failed=("C1", "C2"), sharded=False
)


def test_the_summary_counts_everything() -> None:
    text = "12 recordings found, 5 files muxed, 2 already done, 1 recordings without screen, 2 failed"
    assert summary_text(STANDING) == text


def test_with_sharding_the_summary_shows_the_share() -> None:
    assert summary_text(replace(STANDING, sharded=True)).startswith("12 recordings found (8 of this shard), 5 files")


def test_the_progress_is_measured_in_recordings_of_this_shard() -> None:
    assert progress_text(STANDING) == "4 of 8 recordings found so far, 5 files muxed, 2 failed, 50 %"


def test_the_progress_shows_rate_and_remaining_time() -> None:
    text = progress_text(replace(STANDING, seconds=60.0))
    assert text.endswith("50 %, 4.0 a minute, 1:00 left for these")
    text = progress_text(replace(STANDING, seconds=60.0, complete=True))
    assert text == "4 of 8 recordings, 5 files muxed, 2 failed, 50 %, 4.0 a minute, 1:00 left"


@pytest.mark.parametrize(("finished", "ours", "cells"), [(0, 0, 0), (0, 8, 0), (4, 8, BAR_WIDTH // 2), (8, 8, BAR_WIDTH)])
def test_the_progress_bar_shows_what_is_finished(finished: int, ours: int, cells: int) -> None:
    line = progress_bar(replace(STANDING, finished=finished, ours=ours))
    assert line.startswith(f"[{'#' * cells}{'.' * (BAR_WIDTH - cells)}] {finished} of {ours} recordings")


def test_a_migration_gives_up_a_query_that_repeatedly_fails_at_the_same_page() -> None:
    readings = QueryAttempts()
    assert not any(readings.record_failure(10) for _ in range(MAX_STUCK_ATTEMPTS))
    assert readings.record_failure(10) and readings.failures == MAX_STUCK_ATTEMPTS + 1


def test_a_migration_continues_as_long_as_each_attempt_reads_further() -> None:
    readings = QueryAttempts()
    assert not any(readings.record_failure(number) for number in range(1, 100))


def test_an_outage_has_a_longer_limit_and_does_not_use_up_the_attempts_of_a_page() -> None:
    readings = QueryAttempts()
    assert not any(readings.record_failure(0) for _ in range(MAX_EMPTY_ATTEMPTS - 1))
    assert not readings.record_failure(5) and not readings.record_failure(5)
    readings = QueryAttempts()
    assert [readings.record_failure(0) for _ in range(MAX_EMPTY_ATTEMPTS)][-1]
