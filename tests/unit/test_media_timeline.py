"""The plan of a muxed file on the time axis of its audio."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxer.media.plan.timeline import Clip, Overlap, Segment, Span, clamp_spans, find_overlaps, plan_segments, total_padding

SECOND = 1_000_000
FRAME = 100_000
TOLERANCE = 2 * SECOND


def create_clip(index: int, start: float, length: float, min_length: int = FRAME) -> Clip:
    return Clip(index, round(start * SECOND), round(length * SECOND), min_length)


Shown = tuple[float, float, int | None, float]


def plan_shown(
    length: float,
    *clips: Clip,
    start: float = 0,
    tolerance: float = 2,
    paused: Sequence[tuple[float, float]] = (),
) -> list[Shown]:
    spans = [(round(begin * SECOND), round(end * SECOND)) for begin, end in paused]
    segments = plan_segments(round(start * SECOND), round(length * SECOND), clips, round(tolerance * SECOND), spans)
    return [(segment.begin / SECOND, segment.end / SECOND, segment.clip, segment.offset / SECOND) for segment in segments]


def test_overlaps_are_listed_as_they_are_resolved() -> None:
    clips = [create_clip(2, 28, 30), create_clip(0, 0, 21), create_clip(1, 20, 10), create_clip(3, 25, 0.05)]
    assert find_overlaps(60 * SECOND, clips, TOLERANCE) == (
        Overlap(0, 1, SECOND, tolerated=True),
        Overlap(1, 2, 3 * SECOND, tolerated=False),
    )


def test_a_screen_with_exactly_the_time_span_of_the_audio_is_shown_whole() -> None:
    assert plan_shown(60, create_clip(0, 0, 60)) == [(0, 60, 0, 0)]


def test_screen_before_the_start_and_after_the_end_of_the_audio_is_cut_off() -> None:
    assert plan_shown(60, create_clip(0, 90, 100), start=100) == [(0, 60, 0, 10)]


def test_gaps_before_between_and_after_screens_are_padded() -> None:
    assert plan_shown(60, create_clip(0, 5, 10), create_clip(1, 20, 30)) == [
        (0, 5, None, 0),
        (5, 15, 0, 0),
        (15, 20, None, 0),
        (20, 50, 1, 0),
        (50, 60, None, 0),
    ]


@pytest.mark.parametrize("overlap", [0.5, 1, 2])
def test_an_overlap_within_the_tolerance_shifts_the_later_clip_and_cuts_nothing(overlap: float) -> None:
    assert plan_shown(60, create_clip(0, 0, 20), create_clip(1, 20 - overlap, 10)) == [
        (0, 20, 0, 0),
        (20, 30, 1, 0),
        (30, 60, None, 0),
    ]


@pytest.mark.parametrize("overlap", [2.1, 5, 19])
def test_an_overlap_beyond_the_tolerance_truncates_the_earlier_clip(overlap: float) -> None:
    begin = 20 - overlap
    assert plan_shown(50, create_clip(0, 0, 20), create_clip(1, begin, 10 + overlap)) == [
        (0, begin, 0, 0),
        (begin, 30, 1, 0),
        (30, 50, None, 0),
    ]


def test_without_tolerance_any_overlap_truncates() -> None:
    assert plan_shown(20, create_clip(0, 0, 11), create_clip(1, 10, 10), tolerance=0) == [(0, 10, 0, 0), (10, 20, 1, 0)]


def test_the_next_gap_absorbs_the_shift() -> None:
    assert plan_shown(60, create_clip(0, 0, 21), create_clip(1, 20, 10), create_clip(2, 40, 20)) == [
        (0, 21, 0, 0),
        (21, 31, 1, 0),
        (31, 40, None, 0),
        (40, 60, 2, 0),
    ]


def test_a_shift_across_the_end_of_the_audio_cuts_only_the_end() -> None:
    assert plan_shown(30, create_clip(0, 0, 21), create_clip(1, 20, 10)) == [(0, 21, 0, 0), (21, 30, 1, 0)]


def test_a_shift_before_the_start_of_the_audio_counts() -> None:
    assert plan_shown(10, create_clip(0, 90, 11), create_clip(1, 100, 9), start=100) == [(0, 1, 0, 10), (1, 10, 1, 0)]


def test_shifts_of_consecutive_overlaps_do_not_accumulate() -> None:
    chain = [create_clip(number, number * 9, 10) for number in range(30)]
    for begin, _, index, offset in plan_shown(300, *chain):
        if index is not None:
            assert begin - offset - index * 9 <= 2


def test_without_screens_there_is_only_padding() -> None:
    assert plan_shown(10, create_clip(0, 20, 5)) == [(0, 10, None, 0)]
    assert plan_shown(10, create_clip(0, -5, 5)) == [(0, 10, None, 0)]
    assert plan_shown(10) == [(0, 10, None, 0)]


def test_less_than_a_frame_of_a_clip_is_dropped() -> None:
    assert plan_shown(10, create_clip(0, 9.95, 5)) == [(0, 10, None, 0)]
    assert plan_shown(10, create_clip(0, -5, 5.05)) == [(0, 10, None, 0)]
    assert plan_shown(10, create_clip(0, 3, 0.05)) == [(0, 10, None, 0)]


def test_a_clip_shorter_than_a_frame_does_not_affect_others() -> None:
    assert plan_shown(20, create_clip(0, 0, 20), create_clip(1, 5, 0.05)) == [(0, 20, 0, 0)]
    assert plan_shown(20, create_clip(0, 0, 20), create_clip(1, 5, 0)) == [(0, 20, 0, 0)]


def test_a_screen_is_shown_again_after_one_nested_in_it_ends() -> None:
    assert plan_shown(20, create_clip(0, 0, 20), create_clip(1, 5, 3)) == [(0, 5, 0, 0), (5, 8, 1, 0), (8, 20, 0, 8)]


def test_of_nested_screens_the_latest_started_that_still_runs_is_shown() -> None:
    assert plan_shown(30, create_clip(0, 0, 25), create_clip(1, 3, 15), create_clip(2, 5, 4), create_clip(3, 12, 10)) == [
        (0, 3, 0, 0),
        (3, 5, 1, 0),
        (5, 9, 2, 0),
        (9, 12, 1, 6),
        (12, 22, 3, 0),
        (22, 25, 0, 22),
        (25, 30, None, 0),
    ]


def test_a_screen_that_ended_while_hidden_is_not_shown_again() -> None:
    assert plan_shown(20, create_clip(0, 0, 10), create_clip(1, 4, 12)) == [(0, 4, 0, 0), (4, 16, 1, 0), (16, 20, None, 0)]


def test_the_tolerance_holds_for_the_screen_that_is_shown_again() -> None:
    assert plan_shown(30, create_clip(0, 0, 20), create_clip(1, 5, 3), create_clip(2, 19, 5)) == [
        (0, 5, 0, 0),
        (5, 8, 1, 0),
        (8, 20, 0, 8),
        (20, 25, 2, 0),
        (25, 30, None, 0),
    ]
    assert plan_shown(30, create_clip(0, 0, 20), create_clip(1, 5, 3), create_clip(2, 7, 3)) == [
        (0, 5, 0, 0),
        (5, 8, 1, 0),
        (8, 11, 2, 0),
        (11, 20, 0, 11),
        (20, 30, None, 0),
    ]


def test_a_hidden_screen_shifts_no_other() -> None:
    assert plan_shown(30, create_clip(0, 0, 10), create_clip(1, 3, 27), create_clip(2, 9, 3)) == [
        (0, 3, 0, 0),
        (3, 9, 1, 0),
        (9, 12, 2, 0),
        (12, 30, 1, 9),
    ]


def test_a_gap_of_less_than_a_frame_between_two_screens_holds_the_frame() -> None:
    slow = create_clip(0, 0, 20, min_length=SECOND)
    assert plan_shown(20, slow, create_clip(1, 5, 3), create_clip(2, 8.5, 11.5)) == [
        (0, 5, 0, 0),
        (5, 8.5, 1, 0),
        (8.5, 20, 2, 0),
    ]


def test_a_paused_span_is_padding_whatever_the_screens_show() -> None:
    assert plan_shown(20, create_clip(0, 0, 20), paused=[(5, 8.000001)]) == [
        (0, 5, 0, 0),
        (5, 8.000001, None, 0),
        (8.000001, 20, 0, 8.000001),
    ]
    assert plan_shown(20, create_clip(0, 0, 20), create_clip(1, 6, 3), paused=[(5, 7), (8, 11)]) == [
        (0, 5, 0, 0),
        (5, 7, None, 0),
        (7, 8, 1, 1),
        (8, 11, None, 0),
        (11, 20, 0, 11),
    ]


def test_a_paused_span_shorter_than_a_frame_is_padding() -> None:
    assert plan_shown(20, create_clip(0, 0, 20), paused=[(5, 5.001)]) == [
        (0, 5, 0, 0),
        (5, 5.001, None, 0),
        (5.001, 20, 0, 5.001),
    ]


def test_a_gap_next_to_a_paused_span_does_not_hold_a_frame_into_it() -> None:
    assert plan_shown(20, create_clip(0, 0, 9.95), create_clip(1, 11.05, 8.95), paused=[(10, 11)]) == [
        (0, 10, 0, 0),
        (10, 11.05, None, 0),
        (11.05, 20, 1, 0),
    ]


def test_less_than_a_frame_between_paused_spans_is_padding() -> None:
    assert plan_shown(20, create_clip(0, 0, 20), paused=[(5, 6), (6.05, 7)]) == [
        (0, 5, 0, 0),
        (5, 7, None, 0),
        (7, 20, 0, 7),
    ]


def test_all_is_padding_when_all_is_paused() -> None:
    assert plan_shown(20, create_clip(0, 0, 20), paused=[(0, 20)]) == [(0, 20, None, 0)]


def test_spans_are_cut_to_the_audio_and_joined() -> None:
    spans = [(8000, 12_000), (-5000, 2000), (9000, 20_000), (2000, 3000), (40_000, 50_000), (35_000, None), (60_000, None)]
    assert clamp_spans(spans, 45_000) == ((0, 3000), (8000, 20_000), (35_000, 45_000))
    assert clamp_spans([], 45) == ()


@pytest.mark.parametrize(
    ("span", "wide"),
    [((500, 501), (500, 600)), ((999_999, None), (999_900, 1_000_000)), ((-50, 3), (0, 100)), ((7, 7), None)],
)
def test_a_paused_span_is_as_long_as_a_frame_can_be(span: tuple[int, int | None], wide: Span | None) -> None:
    assert clamp_spans([span], SECOND) == (() if wide is None else (wide,))


def test_of_screens_that_start_together_the_longer_is_shown() -> None:
    assert plan_shown(20, create_clip(0, 0, 20), create_clip(1, 0, 12)) == [(0, 20, 0, 0)]
    assert plan_shown(20, create_clip(0, 0, 12), create_clip(1, 0, 20)) == [(0, 20, 1, 0)]


def test_of_equal_screens_one_is_shown() -> None:
    assert plan_shown(20, create_clip(0, 0, 20), create_clip(1, 0, 20)) == [(0, 20, 1, 0)]


def test_a_screen_that_starts_hours_before_the_audio_is_shown_from_where_the_audio_begins() -> None:
    assert plan_shown(60, create_clip(0, -8 * 3600, 9 * 3600)) == [(0, 60, 0, 8 * 3600)]


def test_screens_of_other_days_have_no_effect() -> None:
    others = [create_clip(number, day * 86_400, 3600) for number, day in enumerate((-400, -1, 1, 400), start=1)]
    assert plan_shown(60, create_clip(0, 5, 10), *others) == plan_shown(60, create_clip(0, 5, 10))


def test_a_gap_shorter_than_a_frame_holds_the_frame() -> None:
    assert plan_shown(20, create_clip(0, 0, 9.95), create_clip(1, 10, 9.96)) == [(0, 10, 0, 0), (10, 20, 1, 0)]


def test_a_first_frame_less_than_one_frame_late_is_shown_from_the_start() -> None:
    assert plan_shown(10, create_clip(0, 0.05, 10)) == [(0, 10, 0, 0)]


def test_the_total_padding() -> None:
    assert total_padding([Segment(0, 5, None), Segment(5, 7, 0), Segment(7, 10, None)]) == 8


def covers_the_audio(start: int, length: int, clips: list[Clip], tolerance: int) -> None:
    segments = plan_segments(start, length, clips, tolerance)
    assert segments[0].begin == 0
    assert segments[-1].end == length
    assert all(one.end == other.begin for one, other in pairwise(segments))
    assert all(segment.begin < segment.end for segment in segments)


def stays_within_the_clips(start: int, length: int, clips: list[Clip], tolerance: int) -> None:
    for segment in plan_segments(start, length, clips, tolerance):
        if segment.clip is not None:
            one = clips[segment.clip]
            # The previous frame is held over clips shown for less than a frame.
            held = sum(other.min_length for other in clips if other.index != one.index)
            assert segment.offset >= 0
            assert segment.offset + segment.length <= one.length + one.min_length + held


def shows_each_instant_once(start: int, length: int, clips: list[Clip], tolerance: int) -> None:
    reached = {clip.index: 0 for clip in clips}
    for segment in plan_segments(start, length, clips, tolerance):
        if segment.clip is not None:
            assert segment.offset >= reached[segment.clip]
            reached[segment.clip] = segment.offset + segment.length


def shifts_by_no_more_than_the_tolerance(start: int, length: int, clips: list[Clip], tolerance: int) -> None:
    for segment in plan_segments(start, length, clips, tolerance):
        if segment.clip is not None:
            one = clips[segment.clip]
            shift = start + segment.begin - segment.offset - one.start
            assert -max(other.min_length for other in clips) < shift <= tolerance


def shows_no_less_than_a_frame(start: int, length: int, clips: list[Clip], tolerance: int) -> None:
    for segment in plan_segments(start, length, clips, tolerance):
        if segment.clip is not None:
            assert segment.length >= min(clips[segment.clip].min_length, length)


def ignores_the_order_of_the_input(start: int, length: int, clips: list[Clip], tolerance: int) -> None:
    mixed = random.Random(length).sample(clips, len(clips))
    assert plan_segments(start, length, mixed, tolerance) == plan_segments(start, length, clips, tolerance)


def is_idempotent(start: int, length: int, clips: list[Clip], tolerance: int) -> None:
    first = plan_segments(start, length, clips, tolerance)
    again = [
        Clip(segment.clip, segment.begin, segment.length, clips[segment.clip].min_length)
        for segment in first
        if segment.clip is not None
    ]
    second = plan_segments(0, length, again, tolerance)
    assert [(item.begin, item.end, item.clip) for item in second] == [(one.begin, one.end, one.clip) for one in first]


def shows_clips_that_do_not_meet_in_full(start: int, length: int, clips: list[Clip], tolerance: int) -> None:
    position, apart = start, []
    for number, one in enumerate(clips):
        apart.append(Clip(number, position, one.length + one.min_length, one.min_length))
        position = apart[-1].end + abs(one.start) % SECOND
    audio = position - start + length
    shown = {
        segment.clip: (segment.begin, segment.offset)
        for segment in plan_segments(start, audio, apart, tolerance)
        if segment.clip is not None
    }
    assert set(shown) == {item.index for item in apart}
    for number, (begin, offset) in shown.items():
        assert (begin, offset) == (apart[number].start - start, 0)


PROPERTIES = [
    covers_the_audio,
    stays_within_the_clips,
    shows_each_instant_once,
    shifts_by_no_more_than_the_tolerance,
    shows_no_less_than_a_frame,
    ignores_the_order_of_the_input,
    is_idempotent,
    shows_clips_that_do_not_meet_in_full,
]
Property = Callable[[int, int, list[Clip], int], None]

TIMES = st.integers(-20, 120).map(lambda tenths: tenths * FRAME) | st.integers(-2_000_000, 12_000_000)
LENGTHS = st.integers(0, 60).map(lambda tenths: tenths * FRAME) | st.integers(0, 8_000_000)
CLIPS = st.lists(st.tuples(TIMES, LENGTHS, st.sampled_from([33_333, FRAME, SECOND])), max_size=6)
TOLERANCES = [0, 1, 500_000, TOLERANCE]


@pytest.mark.parametrize("holds", PROPERTIES)
@settings(max_examples=120, deadline=None)
@given(st.integers(-1_000_000, 3_000_000), st.integers(1, 10_000_000), CLIPS, st.sampled_from(TOLERANCES))
def test_a_plan_satisfies_each_property(
    holds: Property, start: int, length: int, layout: list[tuple[int, int, int]], tolerance: int
) -> None:
    holds(start, length, [Clip(index, *one) for index, one in enumerate(layout)], tolerance)


@pytest.mark.parametrize("holds", PROPERTIES)
def test_the_plans_of_thousands_of_layouts(holds: Property) -> None:
    dice = random.Random(20240102)
    for _ in range(3000):
        grid = dice.choice([1, FRAME, SECOND])
        clips = [
            Clip(
                index,
                dice.randrange(-3 * SECOND, 15 * SECOND) // grid * grid,
                dice.randrange(0, 8 * SECOND) // grid * grid,
                dice.choice([33_333, FRAME, SECOND]),
            )
            for index in range(dice.randrange(9))
        ]
        holds(dice.randrange(2 * SECOND) // grid * grid, dice.randrange(1, 12 * SECOND), clips, dice.choice(TOLERANCES))


# The same rules in a different implementation: computed for each time


ClipTime = tuple[int, int]


def compute_segments(
    start: int, length: int, clips: list[Clip], tolerance: int, paused: Sequence[Span] = ()
) -> list[Segment]:
    """Compute the result of `plan_segments` for each time: the visible clip, and the time in that clip."""
    line: dict[int, ClipTime] = {}
    ends: dict[int, int] = {}
    for item in sorted(clips, key=lambda clip: (clip.start, clip.length, clip.index)):
        if item.length < min(item.min_length, length):
            continue
        begin = item.start
        while begin in line and ends[line[begin][0]] - item.start <= tolerance:
            begin = ends[line[begin][0]]
        ends[item.index] = begin + item.length
        line |= {begin + own: (item.index, own) for own in range(item.length)}
    blank = {at for begin, end in paused for at in range(begin, end)}
    times = [None if at in blank else line.get(start + at) for at in range(length)]
    return build_segments(hold_short_gaps(times, blank, {one.index: one.min_length for one in clips}))


def hold_short_gaps(times: list[ClipTime | None], blank: set[int], min_length: dict[int, int]) -> list[ClipTime | None]:
    """Hold the previous frame over clips and gaps that are shorter than a frame.

    A gap at the beginning is filled by the first clip. No frame is held into a paused span or out of one."""
    for begin, end in find_spans(times, blank):
        shown = times[begin]
        if shown is not None and end - begin < min(min_length[shown[0]], len(times)):
            times[begin:end] = following_times(times[begin - 1] if begin else None, end - begin)
    for begin, end in find_spans(times, blank):
        if times[begin] is not None or begin in blank:
            continue
        if begin and (before := times[begin - 1]) and end - begin < min_length[before[0]]:
            times[begin:end] = following_times(before, end - begin)
        elif not begin and end < len(times) and (after := times[end]) and end < min_length[after[0]]:
            until = next(to for at, to in find_spans(times, blank) if at == end)
            times[:until] = following_times((after[0], after[1] - 1), until)
    return times


def following_times(shown: ClipTime | None, count: int) -> list[ClipTime | None]:
    """Return the next `count` times of the clip, or None for padding."""
    return [None if shown is None else (shown[0], shown[1] + 1 + more) for more in range(count)]


def find_spans(times: list[ClipTime | None], blank: set[int]) -> list[tuple[int, int]]:
    """Return the spans in which one clip continues, no clip is shown, or the recording is paused."""

    def continues_at(at: int) -> bool:
        one, other = times[at - 1], times[at]
        if one is None or other is None:
            return one is other and (at - 1 in blank) == (at in blank)
        return other == (one[0], one[1] + 1)

    bounds = [0, *(at for at in range(1, len(times)) if not continues_at(at)), len(times)]
    return list(pairwise(bounds))


def build_segments(times: list[ClipTime | None]) -> list[Segment]:
    segments = []
    for begin, end in find_spans(times, set()):
        shown = times[begin]
        segments.append(Segment(begin, end, None) if shown is None else Segment(begin, end, *shown))
    return segments


SMALL_CLIPS = st.lists(st.tuples(st.integers(-25, 45), st.integers(0, 30), st.integers(1, 5)), max_size=7)
# Spans are in whole milliseconds.
UNIT = 1000
SMALL_SPANS = st.lists(st.tuples(st.integers(-5, 45), st.none() | st.integers(-5, 45)), max_size=4)


@settings(max_examples=2000, deadline=None)
@given(st.integers(-5, 5), st.integers(1, 40), SMALL_CLIPS, st.integers(0, 10), SMALL_SPANS)
def test_a_plan_equals_a_timeline_computed_for_each_time(
    start: int,
    length: int,
    layout: list[tuple[int, int, int]],
    tolerance: int,
    spans: list[tuple[int, int | None]],
) -> None:
    clips = [Clip(index, *one) for index, one in enumerate(layout)]
    wide = [(begin * UNIT, end if end is None else end * UNIT) for begin, end in spans]
    paused = [(begin // UNIT, end // UNIT) for begin, end in clamp_spans(wide, length * UNIT)]
    blank = {at for at in range(length) if any(begin <= at < (length if end is None else end) for begin, end in spans)}
    assert {at for begin, end in paused for at in range(begin, end)} == blank
    segments = list(plan_segments(start, length, clips, tolerance, paused))
    assert segments == compute_segments(start, length, clips, tolerance, paused)
    assert all(segment.clip is None for segment in segments for at in blank if segment.begin <= at < segment.end)
