"""Progress, rate and remaining time of a step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxer.status.progress import Progress, format_duration, format_progress, measure_progress


def test_half_done_in_ten_seconds_leaves_ten_seconds() -> None:
    assert measure_progress(50, 100, begun=1000, now=1010) == Progress(percent=50, rate=5, left=10)


def test_without_a_total_there_is_a_rate_but_no_percentage() -> None:
    assert measure_progress(50, 0, begun=0, now=10) == Progress(None, 5, None)


@pytest.mark.parametrize("now", [1000.0, 1000.4, 990.0])
def test_at_the_start_and_after_a_clock_set_back_the_rate_is_unknown(now: float) -> None:
    assert measure_progress(50, 100, begun=1000, now=now) == Progress(50, None, None)


def test_more_than_the_estimated_total_is_one_hundred_percent() -> None:
    assert measure_progress(120, 100, begun=0, now=10) == Progress(100, 12, 0.0)


def test_without_progress_there_is_no_remaining_time() -> None:
    assert measure_progress(0, 100, begun=0, now=10) == Progress(0, 0, None)


numbers = st.floats(0, 1e15)


@given(numbers, numbers, numbers, numbers)
def test_nothing_is_ever_negative_or_above_a_hundred(done: float, total: float, begun: float, now: float) -> None:
    progress = measure_progress(done, total, begun, now)
    assert progress.percent is None or 0 <= progress.percent <= 100
    assert progress.rate is None or progress.rate >= 0
    assert progress.left is None or progress.left >= 0


@pytest.mark.parametrize(
    ("progress", "step", "text"),
    [
        (Progress(63.9, 12_340_000, 42.2), "fetch", "63 %, 12.3 MB/s, 0:42 left"),
        (Progress(5, 8_000_000, 3725), "mux", "5 %, 8.0 x real time, 1:02:05 left"),
        (Progress(100, 8_000_000, 0.0), "mux", "100 %, 8.0 x real time"),
        (Progress(None, 2_000_000, None), "store", "2.0 MB/s"),
        (Progress(20, 3, 60), "", "20 %, 1:00 left"),
        (Progress(None, None, None), "check", ""),
    ],
)
def test_progress_is_shown_in_readable_form(progress: Progress, step: str, text: str) -> None:
    assert format_progress(progress, step) == text


def test_a_clock_rounds_up_into_the_next_minute() -> None:
    assert [format_duration(value) for value in (0, 59.6, 3599.7, -3)] == ["0:00", "1:00", "1:00:00", "0:00"]
