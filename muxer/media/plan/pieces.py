"""Turn a timeline into pieces: copied or re-encoded cuts of clips, and padding. Pure."""

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
    """A part of the result, `begin` to `end` in microseconds: a cut of a clip, or padding (no clip)."""

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
    """Return the parameters of the largest group of clips as large as the canvas, and the clips that have them."""
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
    """Return whether a clip's frames can be copied: H.264 that every browser plays, in square pixels."""
    return video.avc is not None


def plan_pieces(
    segments: Sequence[Segment],
    indices: Mapping[int, FrameIndex],
    reasons: Mapping[int, str],
    rate: Fraction,
    slice_frames: int,
) -> tuple[Piece, ...]:
    """Return the pieces in order. `indices` and `reasons` (to re-encode whole clips) are by clip."""
    pieces: list[Piece] = []
    for segment in segments:
        if segment.clip is None:
            frames = sum(
                count_frames_in(end - begin, rate) for begin, end in padding_slices(segment.length, slice_frames, rate)
            )
            pieces.append(Piece(segment.begin, segment.end, frames))
            continue
        start = segment.offset - segment.held
        index, stop = indices[segment.clip], start + segment.length
        reason = reasons.get(segment.clip)
        cuts = index.copy_cuts(start, stop) if reason is None else [index.encode_cut(start, stop, reason)]
        shift = segment.begin - start
        pieces += [Piece(cut.begin + shift, cut.end + shift, cut.frames, segment.clip, cut) for cut in cuts]
    return tuple(pieces)


def find_encode_reasons(clips: Mapping[int, Video], copied: frozenset[int]) -> dict[int, str]:
    """Return by clip why it is re-encoded as a whole. `copied` are those that may be copied."""
    return {index: _encode_reason(video, copied) for index, video in clips.items() if index not in copied}


def _encode_reason(video: Video, copied: frozenset[int]) -> str:
    if not is_copyable(video):
        return f"{video.codec_name} {video.entry.get('pix_fmt', '')} cannot be copied"
    return "differs in size or parameters from the others" if copied else "everything is re-encoded"


def count_frames_in(length: int, rate: Fraction) -> int:
    """Return how many frames start within `length` microseconds."""
    return max(1, ceil((length - TIME_TOLERANCE_US) * rate / 1_000_000))


def padding_slices(length: int, slice_frames: int, rate: Fraction) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each padding slice in a gap of `length` microseconds; the last one is cut to fit."""
    number = 0
    while (begin := round(number * slice_frames * 1_000_000 / rate)) < length:
        number += 1
        end = round(number * slice_frames * 1_000_000 / rate)
        yield begin, length if length - end <= TIME_TOLERANCE_US else end
        if length - end <= TIME_TOLERANCE_US:
            return
