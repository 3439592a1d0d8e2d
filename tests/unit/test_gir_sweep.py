"""Time windows instead of pages: no call of the promised maximum length is ever missed between two of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from muxer.gir.sweep import MIN_WINDOW_MS, SweepWindow, WindowSweep

Call = tuple[int, int]
DAY_MS = 24 * 3600 * 1000


def calls_within(calls: list[Call], window: SweepWindow) -> list[Call]:
    return [call for call in calls if window.start <= call[0] and call[1] <= window.end]


def run_sweep(sweep: WindowSweep, calls: list[Call], max_calls: int) -> tuple[list[SweepWindow], int]:
    """Run a sweep over a server that returns at most `most` calls. Returns the completely read windows and the total."""
    whole, number = [], 0
    while (window := sweep.window) is not None:
        number += 1
        count = len(calls_within(calls, window))
        if count > max_calls and sweep.halve_window():
            continue
        if count <= max_calls:
            whole.append(window)
        sweep.next_window(is_whole=count <= max_calls, is_sparse=2 * count < max_calls)
    return whole, number


@st.composite
def sweep_cases(draw: st.DrawFn) -> tuple[SweepWindow, list[Call], int]:
    start = draw(st.integers(0, 10**12))
    whole = SweepWindow(start, start + draw(st.integers(0, DAY_MS)))
    longest = draw(st.sampled_from([1000, 60_000, 3_600_000]))
    begins = draw(st.lists(st.integers(whole.start, whole.end), max_size=40))
    calls = [(begin, begin + draw(st.integers(0, longest))) for begin in begins]
    return whole, calls_within(calls, whole), draw(st.integers(1, 12))


@given(sweep_cases())
def test_every_call_within_the_promised_length_is_in_a_window_that_is_read_completely(
    scene: tuple[SweepWindow, list[Call], int],
) -> None:
    whole, calls, max_calls = scene
    sweep = WindowSweep(whole)
    read, _ = run_sweep(sweep, calls, max_calls)
    if sweep.is_complete:
        promised = [call for call in calls if call[1] - call[0] <= sweep.covered_ms]
        assert all(any(calls_within([one], window) for window in read) for one in promised)
    assert all(whole.start <= item.start <= item.end <= whole.end for item in read)


@given(sweep_cases())
def test_a_sweep_ends_and_its_windows_are_never_too_short(scene: tuple[SweepWindow, list[Call], int]) -> None:
    whole, calls, max_calls = scene
    _, number = run_sweep(WindowSweep(whole), calls, max_calls)
    assert number <= 400 + 100 * len(calls)


def test_a_window_of_a_second_is_not_halved_and_makes_the_sweep_incomplete() -> None:
    sweep = WindowSweep(SweepWindow(0, MIN_WINDOW_MS))
    assert not sweep.halve_window() and sweep.window == SweepWindow(0, MIN_WINDOW_MS)
    sweep.next_window(is_whole=False, is_sparse=False)
    assert sweep.window is None and not sweep.is_complete


def test_a_span_that_fits_is_one_window_and_covers_calls_of_its_length() -> None:
    sweep = WindowSweep(SweepWindow(5, 5 + DAY_MS))
    sweep.next_window(is_whole=True, is_sparse=True)
    assert sweep.window is None and sweep.is_complete and sweep.covered_ms == DAY_MS
