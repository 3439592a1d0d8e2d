"""How a stretch of a screen file gets into the result: copied where that is exact, re-encoded where it is not. Pure.

A copy may begin at a key frame only, and may end anywhere unless frames are reordered (B-frames): then only before a key
frame. What lies between is re-encoded. All times are microseconds from the file's first frame.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, compress

from muxer.media.media_info import TIME_TOLERANCE_US, Video
from muxer.media.mp4 import is_increasing, sorted_copy


@dataclass(frozen=True)
class Cut:
    """A stretch ``begin`` to ``end`` of a file that is copied, or re-encoded for ``reason``.

    ``frames`` is how many frames it shows. A copy takes the samples from ``first`` to before ``last``, in the order in which
    they are decoded.
    """

    begin: int
    end: int
    frames: int
    reason: str | None
    first: int = 0
    last: int = 0


class FrameIndex:
    """The frames of a screen file: when each is shown, and where a copy may begin."""

    def __init__(self, video: Video, *, seekable: bool = True) -> None:
        """Read the frames of ``video``; ``seekable``: a decoder may begin in the middle of the file."""
        first, flags = video.first_pts, video.packets.keys
        times = array("q", (video.ticks_to_us(pts - first) for pts in video.packets.pts))
        self.shown = sorted_copy(times)
        self.reordered = self.shown is not times and self.shown != times
        self.keys = list(compress(times, flags)) if is_increasing(times) else _clean_keyframes(times, flags)
        self._seekable = seekable
        self._frame = video.frame_us

    def visible_frame(self, moment: int) -> int:
        """Return when the frame that is on the screen at ``moment`` was first shown."""
        return self.shown[max(bisect_left(self.shown, moment + TIME_TOLERANCE_US) - 1, 0)]

    def seek_time(self, frame: int) -> int:
        """Given when a frame is first shown, return the time of the frame to which a decoder is sent to reach it."""
        # Not to the frame itself: ffmpeg looks for a keyframe by decoding times, and may find one that is shown later.
        place = bisect_right(self.keys, frame) if self._seekable else 0
        return self.keys[place - 1] if place else self.shown[0]

    def just_before(self, frame: int) -> int:
        """Given when a frame is first shown, return a moment shortly before, at which the one before it is shown already."""
        place = bisect_left(self.shown, frame)
        return frame - min(TIME_TOLERANCE_US, (frame - self.shown[max(place - 1, 0)]) // 2)

    def count_frames(self, begin: int, end: int) -> int:
        """Return how many frames are first shown from ``begin`` to before ``end``."""
        return max(0, self._count_before(end) - self._count_before(begin))

    def frames_between(self, begin: int, end: int) -> array[int]:
        """Return when the frames after the one in effect at ``begin``, and before ``end``, are first shown."""
        return self.shown[max(bisect_left(self.shown, begin + TIME_TOLERANCE_US), 1) : self._count_before(end)]

    def encode_cut(self, begin: int, end: int, reason: str) -> Cut:
        """Return the cut that re-encodes a stretch, beginning with the frame in effect there."""
        return Cut(begin, end, max(1, self.count_frames(self.visible_frame(begin), end)), reason)

    def copy_cuts(self, begin: int, end: int) -> list[Cut]:
        """Return the cuts that copy a stretch as far as possible."""
        whole = self.shown[-1] < end - TIME_TOLERANCE_US
        head, tail = self._next_copy_start(begin), end
        if self.reordered and not whole:
            tail = max((key for key in self.keys if key <= end + TIME_TOLERANCE_US), default=0)
        if head is None or tail - head < self._frame:
            return [self.encode_cut(begin, end, "no key frame in the stretch")]
        cuts = []
        # The first frame of a file may be held from before its time on, where a gap is shorter than a frame.
        early = begin < self.shown[0] == head
        if head > begin + TIME_TOLERANCE_US and not early:
            cuts.append(self.encode_cut(begin, head, "begins between two key frames"))
        # All that is decoded before a key frame is shown before it: its place is the same in both orders.
        first, last = self._count_before(head), self._count_before(tail)
        cuts.append(Cut(begin if early else max(begin, head), tail, last - first, None, first, last))
        if end > tail + TIME_TOLERANCE_US:
            cuts.append(self.encode_cut(tail, end, "ends between reordered frames"))
        return cuts

    def _count_before(self, moment: int) -> int:
        """Return how many frames are first shown before ``moment``; one near it is not, unless another is right there."""
        place = bisect_left(self.shown, moment)
        exact = place < len(self.shown) and self.shown[place] == moment
        return place if exact else bisect_left(self.shown, moment - TIME_TOLERANCE_US)

    def _next_copy_start(self, begin: int) -> int | None:
        """Return the first time at or after ``begin`` where a copy may begin."""
        place = bisect_left(self.keys, begin - TIME_TOLERANCE_US)
        return self.keys[place] if place < len(self.keys) else None


def _clean_keyframes(times: Sequence[int], flags: Sequence[int]) -> list[int]:
    """Return the times of key frames that divide the file cleanly: all that is decoded earlier is shown earlier, all that
    is decoded later is shown later."""
    before = [-1, *accumulate(times, max)]
    after = list(accumulate(reversed(times), min))[::-1]
    return [time for number, time in enumerate(times) if flags[number] and before[number] < time and after[number] >= time]
