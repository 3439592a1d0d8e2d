"""The plan of a muxed file on the axis of its audio: what is shown when. Pure, in integer microseconds.

The rules are those of section 3 of the behaviour: the audio is the clock; screens outside it are cut off; two screens that
overlap by no more than the tolerance follow each other uncut, else the earlier one is truncated; gaps are padded. Every
position is absolute, so that no error adds up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Clip:
    """A screen file on the axis of time: ``start`` and ``length`` in microseconds, ``least`` the length of its frame."""

    index: int
    start: int
    length: int
    least: int

    @property
    def end(self) -> int:
        """Where the file ends on the axis."""
        return self.start + self.length


@dataclass(frozen=True)
class Segment:
    """From ``begin`` to ``end``, in microseconds from the audio's start: a clip from ``offset`` on, or padding.

    ``clip`` is the index of the clip, None for padding. A clip's last frame is held until ``end`` when the file ends less
    than a frame earlier.
    """

    begin: int
    end: int
    clip: int | None
    offset: int = 0

    @property
    def length(self) -> int:
        """The segment's length in microseconds."""
        return self.end - self.begin


@dataclass(frozen=True)
class Overlap:
    """Two clips that lie over each other, by index, for ``length`` microseconds: tolerated, or the earlier is truncated."""

    earlier: int
    later: int
    length: int
    tolerated: bool


def overlaps(audio_length: int, clips: Sequence[Clip], tolerance: int) -> tuple[Overlap, ...]:
    """Given the audio's length, clips on one clock and the overlap that is tolerated, return the overlaps of those that
    count, in the order in which :func:`plan` resolves them."""
    found: list[Overlap] = []
    _placed(_counting(clips, audio_length), tolerance, found)
    return tuple(found)


def plan(audio_start: int, audio_length: int, clips: Sequence[Clip], tolerance: int) -> tuple[Segment, ...]:
    """Given the audio's start (microseconds of any clock) and length, the screen files on the same clock, and the overlap
    that is tolerated, return segments that cover exactly the audio's span, in order and without overlap.

    The order of the clips does not matter, and those shorter than a frame count for nothing. Only padding is returned when
    no clip shows anything within the audio.
    """
    placed = _placed(_counting(clips, audio_length), tolerance, [])
    shown = [segment for one in placed if (segment := _within(one, audio_start, audio_length)) is not None]
    least = {clip.index: clip.least for clip in clips}
    return _padded(shown, audio_length, least)


@dataclass(frozen=True)
class _Placed:
    """A clip where it is shown: ``begin`` may be later than its start, ``end`` earlier than its end."""

    clip: Clip
    begin: int
    end: int


def _counting(clips: Sequence[Clip], audio_length: int) -> list[Clip]:
    """Return the clips that are long enough, in the order of their starts."""
    long_enough = [clip for clip in clips if clip.length >= min(clip.least, audio_length)]
    return sorted(long_enough, key=lambda clip: (clip.start, clip.length, clip.index))


def _placed(clips: Sequence[Clip], tolerance: int, found: list[Overlap]) -> list[_Placed]:
    """Resolve the overlaps of clips in the order of their starts, and add them to those that were ``found``."""
    placed: list[_Placed] = []
    for clip in clips:
        begin = clip.start
        while placed and placed[-1].end > clip.start:
            earlier = placed[-1]
            length = earlier.end - clip.start
            found.append(Overlap(earlier.clip.index, clip.index, length, length <= tolerance))
            if length <= tolerance:
                begin = earlier.end
                break
            placed.pop()
            if earlier.begin < clip.start:
                placed.append(replace(earlier, end=clip.start))
        placed.append(_Placed(clip, begin, begin + clip.length))
    return placed


def _within(one: _Placed, audio_start: int, audio_length: int) -> Segment | None:
    """Cut a clip to the audio's span; return None when less than a frame of it is left."""
    begin, end = max(one.begin - audio_start, 0), min(one.end - audio_start, audio_length)
    if end - begin < min(one.clip.least, audio_length):
        return None
    return Segment(begin, end, one.clip.index, begin - (one.begin - audio_start))


def _padded(shown: Sequence[Segment], audio_length: int, least: dict[int, int]) -> tuple[Segment, ...]:
    """Fill the gaps: padding, or a longer last frame where the gap is shorter than a frame."""
    segments: list[Segment] = []
    position = 0
    for segment in (*shown, Segment(audio_length, audio_length, None)):
        gap = segment.begin - position
        neighbour = segments[-1].clip if segments else segment.clip
        if gap >= (least[neighbour] if neighbour is not None else 1):
            segments.append(Segment(position, segment.begin, None))
        elif gap and segments:
            segments[-1] = replace(segments[-1], end=segment.begin)
        elif gap:
            segment = replace(segment, begin=position)
        if segment.length:
            segments.append(segment)
        position = segment.end
    return tuple(segments)


def shift(segments: Sequence[Segment], clips: Sequence[Clip]) -> int:
    """Given a plan and the screen files on the axis of the audio, return how far, in microseconds, a picture is from its
    true moment at worst: a file begins later than its metadata say when the one before it overlaps it a little."""
    starts = {clip.index: clip.start for clip in clips}
    true = ((one, starts[one.clip]) for one in segments if one.clip is not None)
    return max((abs(one.begin - one.offset - start) for one, start in true), default=0)


def padding(segments: Sequence[Segment]) -> int:
    """Given a plan, return how many microseconds of it are padding."""
    return sum(segment.length for segment in segments if segment.clip is None)
