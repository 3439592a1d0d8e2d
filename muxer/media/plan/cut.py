"""Decide how a span of a screen file gets into the result: copied where that is exact, else re-encoded. Pure.

A copy starts at a keyframe, and ends with B-frames only before one. Times are microseconds from the first frame.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, compress
from operator import sub

from muxer.media.media_info import TIME_TOLERANCE_US, Video
from muxer.media.mp4 import is_increasing, sorted_copy


@dataclass(frozen=True)
class Cut:
    """A span of `frames` frames that is copied (from `first` to before `last`), or re-encoded for a `reason`."""

    begin: int
    end: int
    frames: int
    reason: str | None
    first: int = 0
    last: int = 0


class FrameIndex:
    """The frames of a screen file: when each is shown, and where a copy can start."""

    def __init__(self, video: Video, *, seekable: bool = True) -> None:
        """Index the frames of `video`. `seekable` is True when a decoder can start in the middle of the file."""
        first, flags = video.first_pts, video.packets.keys
        times = array("q", (video.ticks_to_us(pts - first) for pts in video.packets.pts))
        self.shown = sorted_copy(times)
        self.reordered = self.shown is not times and self.shown != times
        # How much earlier than it is shown a frame may be decoded: the delay of the whole file, and the lead of this frame.
        self.reordering_us = max(map(sub, self.shown, times)) + max(map(sub, times, self.shown)) if self.reordered else 0
        self.keys = list(compress(times, flags)) if is_increasing(times) else _clean_keyframes(times, flags)
        self._seekable = seekable
        self._frame = video.frame_us

    def visible_frame(self, time: int) -> int:
        """Return when the frame that is visible at `time` was first shown."""
        return self.shown[max(bisect_left(self.shown, time + TIME_TOLERANCE_US) - 1, 0)]

    def seek_time(self, frame: int) -> int:
        """Return where a decoder must seek to reach the frame that is first shown at `frame`."""
        # Not to the frame itself: ffmpeg finds a keyframe by decoding times, and may choose one that is shown later.
        number = bisect_right(self.keys, frame) if self._seekable else 0
        return self.keys[number - 1] if number else self.shown[0]

    def just_before(self, frame: int) -> int:
        """Return a time shortly before the frame first shown at `frame`, when the previous one is already visible."""
        number = bisect_left(self.shown, frame)
        return frame - min(TIME_TOLERANCE_US, (frame - self.shown[max(number - 1, 0)]) // 2)

    def just_after(self, frame: int) -> int:
        """Return a time shortly after the frame first shown at `frame`, when the next one is not visible yet."""
        number = bisect_right(self.shown, frame)
        return frame + (min(TIME_TOLERANCE_US, (self.shown[number] - frame) // 2) if number < len(self.shown) else 0)

    def count_frames(self, begin: int, end: int) -> int:
        """Return how many frames are first shown from `begin` to before `end`."""
        return max(0, self._count_before(end) - self._count_before(begin))

    def frames_between(self, begin: int, end: int) -> array[int]:
        """Return when the frames after the one visible at `begin`, and before `end`, are first shown."""
        return self.shown[max(bisect_left(self.shown, begin + TIME_TOLERANCE_US), 1) : self._count_before(end)]

    def encode_cut(self, begin: int, end: int, reason: str) -> Cut:
        """Return the cut that re-encodes a span, starting with the frame visible at `begin`."""
        return Cut(begin, end, max(1, self.count_frames(self.visible_frame(begin), end)), reason)

    def copy_cuts(self, begin: int, end: int) -> list[Cut]:
        """Return the cuts that copy as much of a span as possible."""
        whole = self.shown[-1] < end - TIME_TOLERANCE_US
        head, tail = self._next_copy_start(begin), end
        if self.reordered and not whole:
            tail = max((key for key in self.keys if key <= end + TIME_TOLERANCE_US), default=0)
        if head is None or tail - head < self._frame:
            return [self.encode_cut(begin, end, "no keyframe in the span")]
        cuts = []
        # The first frame of a file is shown early where the gap before it is shorter than a frame.
        early = begin < self.shown[0] == head
        if head > begin + TIME_TOLERANCE_US and not early:
            cuts.append(self.encode_cut(begin, head, "starts between keyframes"))
        # All that is decoded before a keyframe is shown before it: its number is the same in both orders.
        first, last = self._count_before(head), self._count_before(tail)
        cuts.append(Cut(begin if early else max(begin, head), tail, last - first, None, first, last))
        if end > tail + TIME_TOLERANCE_US:
            cuts.append(self.encode_cut(tail, end, "ends between B-frames"))
        return cuts

    def _count_before(self, time: int) -> int:
        """Return how many frames are first shown before `time`, less the tolerance unless a frame is exactly there."""
        number = bisect_left(self.shown, time)
        exact = number < len(self.shown) and self.shown[number] == time
        return number if exact else bisect_left(self.shown, time - TIME_TOLERANCE_US)

    def _next_copy_start(self, begin: int) -> int | None:
        """Return the first time at or after `begin` where a copy can start; None when there is none."""
        number = bisect_left(self.keys, begin - TIME_TOLERANCE_US)
        return self.keys[number] if number < len(self.keys) else None


def _clean_keyframes(times: Sequence[int], flags: Sequence[int]) -> list[int]:
    """Return the times of keyframes before which everything is both decoded and shown earlier, and the rest later."""
    before = [-1, *accumulate(times, max)]
    after = list(accumulate(reversed(times), min))[::-1]
    return [time for number, time in enumerate(times) if flags[number] and before[number] < time and after[number] >= time]
