"""How a stretch of a screen file gets into the result: copied where that is exact, re-encoded where it is not. Pure.

A copy may begin at a key frame only, and may end anywhere unless frames are reordered (B-frames): then only before a key
frame. What lies between is re-encoded. All times are microseconds from the file's first frame.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from muxer.media.probe import Video

# Two instants this close are the same: time bases of a millisecond are rounded.
NEAR = 1_000


@dataclass(frozen=True)
class Cut:
    """A stretch ``begin`` to ``end`` of a file that is copied, or re-encoded for ``reason``.

    ``frames`` is how many frames it shows. A copy begins at the key frame ``key`` (None = at the file's start) and ends
    before the frame that is decoded at ``out`` (None = at the file's end). ``closing`` asks for one more frame at the
    end, a repetition of the last one, so that the stretch has its full length.
    """

    begin: int
    end: int
    frames: int
    reason: str | None
    key: int | None = None
    out: int | None = None
    closing: bool = False


class Index:
    """The frames of a screen file: when each is shown, and where a copy may begin."""

    def __init__(self, video: Video) -> None:
        first = video.first
        self._times = [video.microseconds(pts - first) for pts in video.packets.pts]
        self._decoded = [video.microseconds(dts - first) for dts in video.packets.dts]
        self._durations = [video.microseconds(one) for one in video.packets.durations]
        self.shown = sorted(self._times)
        self.reordered = self.shown != self._times
        self.keys = _clean_keys(self._times, video.packets.keys)
        self._frame = video.frame_us

    def in_effect(self, moment: int) -> int:
        """Return when the frame that is on the screen at ``moment`` was first shown."""
        return self.shown[max(bisect_left(self.shown, moment + NEAR) - 1, 0)]

    def count(self, begin: int, end: int) -> int:
        """Return how many frames are first shown from ``begin`` to before ``end``."""
        return max(0, bisect_left(self.shown, end - NEAR) - bisect_left(self.shown, begin - NEAR))

    def encode(self, begin: int, end: int, reason: str) -> Cut:
        """Return the cut that re-encodes a stretch, beginning with the frame in effect there."""
        return Cut(begin, end, self.count(self.in_effect(begin), end), reason)

    def copy(self, begin: int, end: int) -> list[Cut]:
        """Return the cuts that copy a stretch as far as possible."""
        whole = self.shown[-1] < end - NEAR
        head, tail = self._head(begin), end
        if self.reordered and not whole:
            tail = max((key for key in self.keys if key <= end + NEAR), default=0)
        if head is None or tail - head < self._frame:
            return [self.encode(begin, end, "no key frame in the stretch")]
        cuts = []
        if head > begin + NEAR:
            cuts.append(self.encode(begin, head, "begins between two key frames"))
        key, out = (head if head != self._times[0] else None), (None if whole else self._out(tail))
        cuts.append(Cut(max(begin, head), tail, self.count(head, tail), None, key, out))
        if end > tail + NEAR:
            cuts.append(self.encode(tail, end, "ends between reordered frames"))
        return cuts

    def closed(self, cut: Cut) -> list[Cut]:
        """Given the last cut of a result, return what stands for it so that its last frame ends where the result ends."""
        last = self.in_effect(cut.end - 2 * NEAR)
        duration = self._durations[self._times.index(last)] or self._frame
        if cut.reason is not None:
            return [replace(cut, closing=cut.end - max(last, cut.begin) > 2 * self._frame)]
        if abs(last + duration - cut.end) <= self._frame:
            return [cut]
        key = max((key for key in self.keys if key <= last), default=0)
        tail = self.encode(max(key, cut.begin), cut.end, "the last frame is not as long as it is shown")
        tail = replace(tail, closing=True)
        if key <= cut.begin + NEAR:
            return [tail]
        return [replace(cut, end=key, frames=self.count(cut.begin, key), out=self._out(key)), tail]

    def _out(self, end: int) -> int:
        """Return when the first frame is decoded that is shown at ``end`` or later."""
        return next(dts for dts, shown in zip(self._decoded, self._times, strict=True) if shown >= end - NEAR)

    def _head(self, begin: int) -> int | None:
        """Return the first time at or after ``begin`` where a copy may begin."""
        return next((key for key in self.keys if key >= begin - NEAR), None)


def _clean_keys(times: Sequence[int], flags: Sequence[int]) -> list[int]:
    """Return the times of key frames that divide the file cleanly: all that is decoded earlier is shown earlier, all that
    is decoded later is shown later."""
    before = [-1, *accumulate(times, max)]
    after = list(accumulate(reversed(times), min))[::-1]
    return [time for number, time in enumerate(times) if flags[number] and before[number] < time and after[number] >= time]
