"""The plan of a muxed file on the axis of its audio: what is shown when. Pure, in integer microseconds.

The audio is the clock; screens outside it are cut off. Two screens that overlap by at most the tolerance follow each other
uncut. Otherwise the later one covers the earlier one. All positions are absolute, so that errors do not add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

# Begin and end in microseconds.
Span = tuple[int, int]
# A frame of the result lasts at least one tick of 1/90000 s; a shorter pause is extended to this.
MIN_PAUSE_US = 100


@dataclass(frozen=True)
class Clip:
    """A screen file on the time axis. `start` and `length` are microseconds, `min_length` is the duration of a frame."""

    index: int
    start: int
    length: int
    min_length: int

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(frozen=True)
class Segment:
    """From `begin` to `end`, in microseconds from the audio's start: a clip from `offset` on, or padding (None).

    Within a frame of the file's ends, its first frame is shown `held` microseconds early, or its last one until `end`.
    """

    begin: int
    end: int
    clip: int | None
    offset: int = 0
    held: int = field(default=0, compare=False)

    @property
    def length(self) -> int:
        """The duration in microseconds."""
        return self.end - self.begin

    @property
    def clip_origin(self) -> int:
        """Where the clip's first frame is, or would be, shown."""
        return self.begin + self.held - self.offset

    def cut_part(self, begin: int, end: int) -> Segment:
        """Return the part of the segment from `begin` to `end`."""
        return Segment(begin, end, self.clip, self.offset + begin - self.begin)

    def is_continuation_of(self, earlier: Segment) -> bool:
        """Return whether it starts where `earlier` ends, and shows what follows there."""
        same = self.clip is None or self.clip_origin == earlier.clip_origin
        return earlier.end == self.begin and earlier.clip == self.clip and same


@dataclass(frozen=True)
class Overlap:
    """Two clips, by index, that share `length` microseconds. `tolerated`: the later one follows the earlier one uncut."""

    earlier: int
    later: int
    length: int
    tolerated: bool


def find_overlaps(audio_length: int, clips: Sequence[Clip], tolerance: int) -> tuple[Overlap, ...]:
    """Return the overlaps of usable clips, in the order in which plan_segments resolves them."""
    overlaps: list[Overlap] = []
    _place_clips(_usable_clips(clips, audio_length), tolerance, overlaps)
    return tuple(overlaps)


def plan_segments(
    audio_start: int, audio_length: int, clips: Sequence[Clip], tolerance: int, paused: Sequence[Span] = ()
) -> tuple[Segment, ...]:
    """Return segments that cover exactly the audio, in order; all in microseconds. `paused` is from clamp_spans."""
    usable = _usable_clips(clips, audio_length)
    placed = _place_clips(usable, tolerance, [])
    min_lengths = {clip.index: min(clip.min_length, audio_length) for clip in usable}
    within = (_cut_to_audio(segment, audio_start, audio_length) for segment in _visible_segments(placed))
    shown = _outside_pauses(paused, (segment for segment in within if segment.length > 0))
    return _join_segments(_fill_gaps(_drop_short(shown, min_lengths), paused, audio_length, min_lengths))


def clamp_spans(spans: Iterable[tuple[int, int | None]], length: int) -> tuple[Span, ...]:
    """Return the parts of `spans` within the audio, in order, joined; an end of None is that of the audio."""
    joined: list[Span] = []
    clamped = ((max(begin, 0), length if end is None else min(end, length)) for begin, end in spans)
    widened = (
        (max(min(begin, length - MIN_PAUSE_US), 0), max(end, begin + MIN_PAUSE_US)) for begin, end in clamped if begin < end
    )
    for begin, end in sorted((begin, min(end, length)) for begin, end in widened):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return tuple(joined)


@dataclass(frozen=True)
class _PlacedClip:
    """A clip and where it is placed: after a tolerated overlap, `begin` is later than its start."""

    clip: Clip
    begin: int

    @property
    def end(self) -> int:
        return self.begin + self.clip.length

    def cut_segment(self, begin: int, end: int) -> Segment:
        return Segment(begin, end, self.clip.index, begin - self.begin)


def _usable_clips(clips: Sequence[Clip], audio_length: int) -> list[Clip]:
    long_enough = [clip for clip in clips if clip.length >= min(clip.min_length, audio_length)]
    return sorted(long_enough, key=lambda clip: (clip.start, clip.length, clip.index))


def _place_clips(clips: Sequence[Clip], tolerance: int, overlaps: list[Overlap]) -> list[_PlacedClip]:
    """Place clips in order, and add their `overlaps`. None is placed before an earlier one."""
    placed: list[_PlacedClip] = []
    for clip in clips:
        begin = clip.start
        while (earlier := _visible_clip(placed, begin)) is not None:
            tolerated = earlier.end - clip.start <= tolerance
            shared = min(earlier.end, clip.end) - clip.start
            overlaps.append(Overlap(earlier.clip.index, clip.index, shared, tolerated))
            if not tolerated:
                break
            begin = earlier.end
        placed.append(_PlacedClip(clip, begin))
    return placed


def _visible_clip(placed: Sequence[_PlacedClip], time: int) -> _PlacedClip | None:
    """Return the clip that is visible at `time`: the last one placed of those that are running."""
    return next((clip for clip in reversed(placed) if clip.begin <= time < clip.end), None)


def _visible_segments(placed: Sequence[_PlacedClip]) -> Iterator[Segment]:
    """Yield what is visible of placed clips, in order: the last one placed of those that are running."""
    covering: list[_PlacedClip] = []
    borders = [*(clip.begin for clip in placed[1:]), max((clip.end for clip in placed), default=0)]
    for clip, border in zip(placed, borders, strict=False):
        covering.append(clip)
        position = clip.begin
        while covering and position < border:
            top = covering[-1]
            if position < (end := min(top.end, border)):
                yield top.cut_segment(position, end)
                position = end
            if top.end <= position:
                covering.pop()


def _cut_to_audio(segment: Segment, audio_start: int, audio_length: int) -> Segment:
    """Return the part of a segment within the audio, in microseconds from its start; its length may be 0."""
    moved = replace(segment, begin=segment.begin - audio_start, end=segment.end - audio_start)
    begin = max(moved.begin, 0)
    return moved.cut_part(begin, max(begin, min(moved.end, audio_length)))


def _outside_pauses(paused: Sequence[Span], segments: Iterable[Segment]) -> Iterator[Segment]:
    for segment in segments:
        position = segment.begin
        for begin, end in paused:
            if begin < segment.end and position < end:
                if position < begin:
                    yield segment.cut_part(position, begin)
                position = end
        if position < segment.end:
            yield segment.cut_part(position, segment.end)


def _drop_short(segments: Iterable[Segment], min_lengths: dict[int, int]) -> list[Segment]:
    """Drop segments shorter than a frame. One that follows another directly is given to that one, so that no gap appears."""
    kept: list[Segment] = []
    for segment in segments:
        if segment.clip is not None and segment.length >= min_lengths[segment.clip]:
            kept.append(segment)
        elif kept and kept[-1].end == segment.begin:
            kept[-1] = replace(kept[-1], end=segment.end)
    return kept


def _fill_gaps(
    shown: Sequence[Segment], paused: Sequence[Span], audio_length: int, min_lengths: dict[int, int]
) -> list[Segment]:
    """Fill gaps: with padding, or with a longer frame where the gap is short. Paused spans are always padding."""
    segments: list[Segment] = []
    position = 0
    blank = (Segment(begin, end, None) for begin, end in paused)
    for segment in sorted((*shown, *blank, Segment(audio_length, audio_length, None)), key=lambda one: one.begin):
        gap = segment.begin - position
        neighbour = segments[-1].clip if segments else segment.clip
        if gap >= (min_lengths[neighbour] if neighbour is not None else 1):
            segments.append(Segment(position, segment.begin, None))
        elif gap and segments:
            segments[-1] = replace(segments[-1], end=segment.begin)
        elif gap:
            # Its first frame is shown early; the others keep their time.
            segment = replace(segment, begin=position, held=gap)
        if segment.length:
            segments.append(segment)
        position = segment.end
    return segments


def _join_segments(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    joined: list[Segment] = []
    for segment in segments:
        if joined and segment.is_continuation_of(joined[-1]):
            joined[-1] = replace(joined[-1], end=segment.end)
        else:
            joined.append(segment)
    return tuple(joined)


def max_time_shift(segments: Sequence[Segment], clips: Sequence[Clip]) -> int:
    """Return the largest distance of a frame from its true time, in microseconds, after tolerated overlaps."""
    starts = {clip.index: clip.start for clip in clips}
    return max((abs(part.clip_origin - starts[part.clip]) for part in segments if part.clip is not None), default=0)


def total_padding(segments: Sequence[Segment]) -> int:
    """Return how many microseconds of a plan are padding."""
    return sum(segment.length for segment in segments if segment.clip is None)
