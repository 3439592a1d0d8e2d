"""Time windows instead of pages: no call that is as short as promised is ever between two of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from muxer.gir.sweep import MIN_WINDOW_MS, Sweep, Window

Call = tuple[int, int]
DAY_MS = 24 * 3600 * 1000


def within(calls: list[Call], window: Window) -> list[Call]:
    return [one for one in calls if window.start <= one[0] and one[1] <= window.end]


def windows(sweep: Sweep, calls: list[Call], most: int) -> tuple[list[Window], int]:
    """Go through a sweep over a server that shows at most so many calls; return the windows that were read completely and
    the number of all."""
    whole, number = [], 0
    while (window := sweep.window) is not None:
        number += 1
        count = len(within(calls, window))
        if count > most and sweep.halve():
            continue
        if count <= most:
            whole.append(window)
        sweep.advance(is_whole=count <= most, is_sparse=2 * count < most)
    return whole, number


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Window, list[Call], int]:
    start = draw(st.integers(0, 10**12))
    whole = Window(start, start + draw(st.integers(0, DAY_MS)))
    longest = draw(st.sampled_from([1000, 60_000, 3_600_000]))
    begins = draw(st.lists(st.integers(whole.start, whole.end), max_size=40))
    calls = [(begin, begin + draw(st.integers(0, longest))) for begin in begins]
    return whole, within(calls, whole), draw(st.integers(1, 12))


@given(scenes())
def test_every_call_within_the_promised_length_is_in_a_window_that_is_read_completely(
    scene: tuple[Window, list[Call], int]
) -> None:
    whole, calls, most = scene
    sweep = Sweep(whole)
    read, _ = windows(sweep, calls, most)
    if sweep.is_complete:
        promised = [one for one in calls if one[1] - one[0] <= sweep.covered_ms]
        assert all(any(within([one], window) for window in read) for one in promised)
    assert all(whole.start <= one.start <= one.end <= whole.end for one in read)


@given(scenes())
def test_a_sweep_ends_and_its_windows_are_never_too_short(scene: tuple[Window, list[Call], int]) -> None:
    whole, calls, most = scene
    _, number = windows(Sweep(whole), calls, most)
    assert number <= 400 + 100 * len(calls)


def test_a_window_of_a_second_is_not_halved_and_makes_the_sweep_incomplete() -> None:
    sweep = Sweep(Window(0, MIN_WINDOW_MS))
    assert not sweep.halve() and sweep.window == Window(0, MIN_WINDOW_MS)
    sweep.advance(is_whole=False, is_sparse=False)
    assert sweep.window is None and not sweep.is_complete


def test_a_span_that_fits_is_one_window_and_covers_calls_of_its_length() -> None:
    sweep = Sweep(Window(5, 5 + DAY_MS))
    sweep.advance(is_whole=True, is_sparse=True)
    assert sweep.window is None and sweep.is_complete and sweep.covered_ms == DAY_MS
