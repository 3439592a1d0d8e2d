"""Turns a timeline into pieces, and pieces into argument lists of ffmpeg. Pure: nothing is run or read here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from muxer.media.ffmpeg import VideoTarget
from muxer.media.media_info import DEFAULT_RATE, TIME_TOLERANCE_US, Video, canvas_size
from muxer.media.mp4 import Orientation
from muxer.media.plan.cut import Cut, FrameIndex
from muxer.media.plan.timeline import Segment

_X264_PROFILES = {"Constrained Baseline": "baseline", "Baseline": "baseline", "Main": "main", "High": "high"}


@dataclass(frozen=True)
class Piece:
    """A part of the result, ``begin`` to ``end`` in microseconds: a cut of a clip, or padding (no clip)."""

    begin: int
    end: int
    frames: int
    clip: int | None = None
    cut: Cut | None = None

    @property
    def reason(self) -> str | None:
        """Why the piece is re-encoded; None for a copy and for padding."""
        return self.cut.reason if self.cut else None


def choose_video_target(clips: Mapping[int, Video]) -> tuple[VideoTarget, frozenset[int]]:
    """Given the clips by index, return the parameters of the result and the indices of the clips that have them.

    The canvas is the smallest on which every clip fits; the parameters are those of the longest group of equal clips of
    that size.
    """
    size = canvas_size(clips.values())
    groups: dict[tuple[str, str, Orientation], list[int]] = {}
    for index, video in clips.items():
        if video.display_size == size and is_copyable(video):
            groups.setdefault((video.entry["pix_fmt"], video.entry["profile"], video.orientation), []).append(index)
    if not groups:
        rate = max((video.frame_rate for video in clips.values()), default=DEFAULT_RATE)
        return VideoTarget(*size, "yuv420p", "high", rate), frozenset()
    best = max(groups.values(), key=lambda group: sum(clips[index].length_us for index in group))
    video = clips[best[0]]
    profile, turned = _X264_PROFILES[video.entry["profile"]], video.orientation
    coded = turned.shown_size(*size)
    return VideoTarget(*coded, video.entry["pix_fmt"], profile, video.frame_rate, video.avc, turned), frozenset(best)


def is_copyable(video: Video) -> bool:
    """Whether a clip's frames may stand in the result as they are: H.264 that every browser plays, in square pixels."""
    return video.avc is not None


def plan_pieces(
    segments: Sequence[Segment], indices: Mapping[int, FrameIndex], why: Mapping[int, str], rate: Fraction, slice_frames: int
) -> tuple[Piece, ...]:
    """Given a timeline, the frames of the clips, why some of them are re-encoded as a whole, and the rate and the number of
    frames of a padding slice, return the pieces of the result in order."""
    made: list[Piece] = []
    for segment in segments:
        if segment.clip is None:
            frames = sum(
                count_frames_in(end - begin, rate) for begin, end in padding_slices(segment.length, slice_frames, rate)
            )
            made.append(Piece(segment.begin, segment.end, frames))
            continue
        start = segment.offset - segment.held
        index, stop = indices[segment.clip], start + segment.length
        reason = why.get(segment.clip)
        cuts = index.copy_cuts(start, stop) if reason is None else [index.encode_cut(start, stop, reason)]
        shift = segment.begin - start
        made += [Piece(cut.begin + shift, cut.end + shift, cut.frames, segment.clip, cut) for cut in cuts]
    return tuple(made)


def find_encode_reasons(clips: Mapping[int, Video], copied: frozenset[int]) -> dict[int, str]:
    """Given the clips by index and the indices of those that may be copied, return why each of the others is not."""
    return {index: _encode_reason(video, copied) for index, video in clips.items() if index not in copied}


def _encode_reason(video: Video, copied: frozenset[int]) -> str:
    if not is_copyable(video):
        return f"{video.codec_name} {video.entry.get('pix_fmt', '')} cannot be copied"
    return "differs in size or parameters from the others" if copied else "everything is re-encoded"


def count_frames_in(length: int, rate: Fraction) -> int:
    """Given a length in microseconds and a frame rate, return how many frames begin within it."""
    return max(1, ceil((length - TIME_TOLERANCE_US) * rate / 1_000_000))


def padding_slices(length: int, slice_frames: int, rate: Fraction) -> Iterator[tuple[int, int]]:
    """Given the length of a gap in microseconds and the number of frames in a padding slice, yield where each slice begins
    and ends in the gap; the last one is cut to fit."""
    number = 0
    while (begin := round(number * slice_frames * 1_000_000 / rate)) < length:
        number += 1
        end = round(number * slice_frames * 1_000_000 / rate)
        yield begin, length if length - end <= TIME_TOLERANCE_US else end
        if length - end <= TIME_TOLERANCE_US:
            return
