"""The plan of a muxed file on the axis of its audio: what is shown when. Pure, in integer microseconds.

The rules are those of section 3 of the behaviour: the audio is the clock; screens outside it are cut off; two screens that
overlap by no more than the tolerance follow each other uncut, else the later one is shown over the earlier one, which is
shown again where the later one ends; padding stands only where no screen shows anything, and where the recording was
paused. Every position is absolute, so that no error adds up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

# From when until when, in microseconds.
Span = tuple[int, int]
# A frame of the result lasts one tick of 1/90000 s at least; a shorter pause lasts this many microseconds.
MIN_PAUSE_US = 100


@dataclass(frozen=True)
class Clip:
    """A screen file on the axis of time: ``start`` and ``length`` in microseconds, ``least`` the length of its frame."""

    index: int
    start: int
    length: int
    min_length: int

    @property
    def end(self) -> int:
        """Where the file ends on the axis."""
        return self.start + self.length


@dataclass(frozen=True)
class Segment:
    """From ``begin`` to ``end``, in microseconds from the audio's start: a clip from ``offset`` on, or padding.

    ``clip`` is the index of the clip, None for padding; a clip may have several segments. Its first frame is held from
    ``begin`` on for ``held`` microseconds, its last one until ``end``, when the file begins or ends less than a frame apart.
    """

    begin: int
    end: int
    clip: int | None
    offset: int = 0
    held: int = field(default=0, compare=False)

    @property
    def length(self) -> int:
        """The segment's length in microseconds."""
        return self.end - self.begin

    @property
    def clip_origin(self) -> int:
        """Where the clip's first frame is shown, or would be."""
        return self.begin + self.held - self.offset

    def cut_part(self, begin: int, end: int) -> Segment:
        """Return what the segment shows from ``begin`` to ``end``."""
        return Segment(begin, end, self.clip, self.offset + begin - self.begin)

    def is_continuation_of(self, earlier: Segment) -> bool:
        """Whether it begins where ``earlier`` ends, and shows what follows there."""
        same = self.clip is None or self.clip_origin == earlier.clip_origin
        return earlier.end == self.begin and earlier.clip == self.clip and same


@dataclass(frozen=True)
class Overlap:
    """Two clips that share ``length`` microseconds, by index. ``tolerated``: the later one is shown uncut after the earlier
    one; else it is shown over it."""

    earlier: int
    later: int
    length: int
    tolerated: bool


def find_overlaps(audio_length: int, clips: Sequence[Clip], tolerance: int) -> tuple[Overlap, ...]:
    """Given the audio's length, clips on one clock and the overlap that is tolerated, return the overlaps of those that
    count, in the order in which :func:`plan` resolves them."""
    found: list[Overlap] = []
    _place_clips(_usable_clips(clips, audio_length), tolerance, found)
    return tuple(found)


def plan_segments(
    audio_start: int, audio_length: int, clips: Sequence[Clip], tolerance: int, paused: Sequence[Span] = ()
) -> tuple[Segment, ...]:
    """Return segments that cover exactly the audio's span, in order and without overlap.

    ``audio_start``, ``audio_length`` and the ``clips`` are microseconds on one clock, in any order; ``tolerance`` is the
    overlap that is tolerated. ``paused`` are the spans in which nothing is shown, in microseconds from the audio's start,
    as :func:`clamp_spans` returns them. Clips shorter than a frame count for nothing. Only padding is returned when no clip
    shows anything within the audio.
    """
    counting = _usable_clips(clips, audio_length)
    placed = _place_clips(counting, tolerance, [])
    least = {clip.index: min(clip.min_length, audio_length) for clip in counting}
    within = (_cut_to_audio(segment, audio_start, audio_length) for segment in _visible_segments(placed))
    shown = _outside_pauses(paused, (segment for segment in within if segment.length > 0))
    return _join_segments(_fill_gaps(_drop_short(shown, least), paused, audio_length, least))


def clamp_spans(spans: Iterable[tuple[int, int | None]], length: int) -> tuple[Span, ...]:
    """Given ``spans`` in microseconds (an end of None is that of the audio) and the ``length`` of the audio, return what of
    them lies within the audio, in order; those that meet are joined."""
    joined: list[Span] = []
    inside = ((max(begin, 0), length if end is None else min(end, length)) for begin, end in spans)
    wide = (
        (max(min(begin, length - MIN_PAUSE_US), 0), max(end, begin + MIN_PAUSE_US)) for begin, end in inside if begin < end
    )
    for begin, end in sorted((begin, min(end, length)) for begin, end in wide):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return tuple(joined)


@dataclass(frozen=True)
class _PlacedClip:
    """A clip where it is placed: ``begin`` is later than its start after a tolerated overlap."""

    clip: Clip
    begin: int

    @property
    def end(self) -> int:
        return self.begin + self.clip.length

    def cut_segment(self, begin: int, end: int) -> Segment:
        return Segment(begin, end, self.clip.index, begin - self.begin)


def _usable_clips(clips: Sequence[Clip], audio_length: int) -> list[Clip]:
    """Return the clips that are long enough, in the order of their starts."""
    long_enough = [clip for clip in clips if clip.length >= min(clip.min_length, audio_length)]
    return sorted(long_enough, key=lambda clip: (clip.start, clip.length, clip.index))


def _place_clips(clips: Sequence[Clip], tolerance: int, found: list[Overlap]) -> list[_PlacedClip]:
    """Return where clips in the order of their starts are placed, and add their overlaps to ``found``.

    A clip is compared with the one that is visible where it would begin, and behind that again. So none is placed before an
    earlier one.
    """
    placed: list[_PlacedClip] = []
    for clip in clips:
        begin = clip.start
        while (earlier := _visible_clip(placed, begin)) is not None:
            tolerated = earlier.end - clip.start <= tolerance
            shared = min(earlier.end, clip.end) - clip.start
            found.append(Overlap(earlier.clip.index, clip.index, shared, tolerated))
            if not tolerated:
                break
            begin = earlier.end
        placed.append(_PlacedClip(clip, begin))
    return placed


def _visible_clip(placed: Sequence[_PlacedClip], moment: int) -> _PlacedClip | None:
    """Return the clip that is visible at a moment: of those that last, the one that was placed last."""
    return next((one for one in reversed(placed) if one.begin <= moment < one.end), None)


def _visible_segments(placed: Sequence[_PlacedClip]) -> Iterator[Segment]:
    """Yield what is seen of placed clips, in order: the one that was placed last, and where it ends the one before that
    still lasts."""
    covering: list[_PlacedClip] = []
    borders = [*(one.begin for one in placed[1:]), max((one.end for one in placed), default=0)]
    for one, border in zip(placed, borders, strict=False):
        covering.append(one)
        position = one.begin
        while covering and position < border:
            top = covering[-1]
            if position < (end := min(top.end, border)):
                yield top.cut_segment(position, end)
                position = end
            if top.end <= position:
                covering.pop()


def _cut_to_audio(segment: Segment, audio_start: int, audio_length: int) -> Segment:
    """Return the part of a segment within the audio, in microseconds from its start; it may have no length."""
    moved = replace(segment, begin=segment.begin - audio_start, end=segment.end - audio_start)
    begin = max(moved.begin, 0)
    return moved.cut_part(begin, max(begin, min(moved.end, audio_length)))


def _outside_pauses(paused: Sequence[Span], segments: Iterable[Segment]) -> Iterator[Segment]:
    """Yield the parts of segments outside the ``paused`` spans."""
    for segment in segments:
        position = segment.begin
        for begin, end in paused:
            if begin < segment.end and position < end:
                if position < begin:
                    yield segment.cut_part(position, begin)
                position = end
        if position < segment.end:
            yield segment.cut_part(position, segment.end)


def _drop_short(segments: Iterable[Segment], least: dict[int, int]) -> list[Segment]:
    """Return segments of at least a frame. A shorter one is left to the one right before, so that there is no gap where a
    clip shows something."""
    kept: list[Segment] = []
    for segment in segments:
        if segment.clip is not None and segment.length >= least[segment.clip]:
            kept.append(segment)
        elif kept and kept[-1].end == segment.begin:
            kept[-1] = replace(kept[-1], end=segment.end)
    return kept


def _fill_gaps(shown: Sequence[Segment], paused: Sequence[Span], audio_length: int, least: dict[int, int]) -> list[Segment]:
    """Fill the gaps: padding, or a longer last frame where the gap is shorter than a frame. Paused spans are padding however
    short."""
    segments: list[Segment] = []
    position = 0
    blank = (Segment(begin, end, None) for begin, end in paused)
    for segment in sorted((*shown, *blank, Segment(audio_length, audio_length, None)), key=lambda one: one.begin):
        gap = segment.begin - position
        neighbour = segments[-1].clip if segments else segment.clip
        if gap >= (least[neighbour] if neighbour is not None else 1):
            segments.append(Segment(position, segment.begin, None))
        elif gap and segments:
            segments[-1] = replace(segments[-1], end=segment.begin)
        elif gap:
            # Its first frame is held from there on; the others keep their time.
            segment = replace(segment, begin=position, held=gap)
        if segment.length:
            segments.append(segment)
        position = segment.end
    return segments


def _join_segments(segments: Iterable[Segment]) -> tuple[Segment, ...]:
    """Return segments in which each one that continues the one before is part of it."""
    joined: list[Segment] = []
    for segment in segments:
        if joined and segment.is_continuation_of(joined[-1]):
            joined[-1] = replace(joined[-1], end=segment.end)
        else:
            joined.append(segment)
    return tuple(joined)


def max_time_shift(segments: Sequence[Segment], clips: Sequence[Clip]) -> int:
    """Given a plan and the screen files on the axis of the audio, return how far, in microseconds, a picture is from its
    true moment at worst: a file begins later than its metadata say when the one before it overlaps it a little."""
    starts = {clip.index: clip.start for clip in clips}
    true = ((one, starts[one.clip]) for one in segments if one.clip is not None)
    return max((abs(one.clip_origin - start) for one, start in true), default=0)


def total_padding(segments: Sequence[Segment]) -> int:
    """Given a plan, return how many microseconds of it are padding."""
    return sum(segment.length for segment in segments if segment.clip is None)
