"""Compares what was encoded with what it was encoded from: the first and the last frame of each encoded piece.

A wrong seek, or a frame too many, shows in no table. So each of these frames of the result is decoded and held against the
frame of the source that is in effect at that time, which is found by its own presentation time and not by the way in which
the piece was encoded. Both are brought to the same small size: encoding changes a block of it a little, another frame much.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from muxer.media.ffmpeg import MediaTools, VideoTarget
from muxer.media.media_info import MediaInfo
from muxer.media.plan.commands import frame_command
from muxer.media.plan.cut import FrameIndex
from muxer.media.plan.pieces import Piece

# The longer side of the compared frames, in pixels.
MAX_SIDE_PIXELS = 640
# So many frames behind a join are decoded.
FRAMES_AFTER_JOIN = 3
# As many frames are looked at by one ffmpeg: each one opens its file.
_MAX_BATCH = 8


@dataclass(frozen=True)
class FrameCheck:
    """A frame of the result that is compared: ``number`` is its number among the frames of the excerpts, ``at`` when it is
    shown in the result. ``clip`` and ``frame`` name the frame of a source, which is shown so much later than the first one
    of the clip; no clip means black. Times are microseconds."""

    number: int
    at: int
    clip: int | None = None
    frame: int = 0


def excerpt_length(part: Piece) -> int:
    """Return how many frames of a piece are decoded: all that were encoded from a source, else what follows the join."""
    return part.frames if part.reason else min(FRAMES_AFTER_JOIN, part.frames)


def plan_frame_checks(parts: Sequence[Piece], indices: Mapping[int, FrameIndex]) -> tuple[FrameCheck, ...]:
    """Return the frames to compare: the first and the last one of each encoded piece, and the first one of padding."""
    looks: list[FrameCheck] = []
    begin, padded = 0, False
    for part in parts:
        if part.clip is None or part.cut is None:
            looks += [] if padded else [FrameCheck(begin, part.begin)]
            padded = True
        elif part.reason is not None:
            index, cut = indices[part.clip], part.cut
            looks.append(FrameCheck(begin, part.begin, part.clip, index.visible_frame(cut.begin)))
            if following := index.frames_between(cut.begin, cut.end):
                last = following[-1]
                looks.append(FrameCheck(begin + part.frames - 1, part.begin + last - cut.begin, part.clip, last))
        begin += excerpt_length(part)
    return tuple(looks)


def comparison_size(target: VideoTarget) -> tuple[int, int]:
    """Return the size, even in both directions, in which frames of the result are compared."""
    scale = min(1.0, MAX_SIDE_PIXELS / max(target.width, target.height))
    return max(2, 2 * round(target.width * scale / 2)), max(2, 2 * round(target.height * scale / 2))


def source_frame_path(folder: Path, number: int) -> Path:
    """Return where the frame of a source is written that is compared with one of the excerpts, by its number there."""
    return folder / f"look-{number}.yuv"


def source_frame_commands(
    looks: Sequence[FrameCheck],
    sources: Sequence[MediaInfo],
    indices: Mapping[int, FrameIndex],
    target: VideoTarget,
    tools: MediaTools,
    folder: Path,
    *,
    seekable: bool,
) -> Iterator[list[str]]:
    """Yield the commands that write the frames of the sources, as small as :func:`look_size` says, one for each of
    :func:`look_batches`.

    ``seekable``: each file is read from shortly before the frame on, else from its begin. ``folder`` takes the frames.
    """
    for batch in batch_frame_checks(looks):
        wanted = [
            (sources[look.clip], indices[look.clip], look.frame, source_frame_path(folder, look.number))
            for look in batch
            if look.clip is not None
        ]
        yield frame_command(tools, target, wanted, comparison_size(target), seekable=seekable)


def batch_frame_checks(looks: Sequence[FrameCheck]) -> Iterator[list[FrameCheck]]:
    """Yield the looks at sources as they are looked at together, those at padding left out."""
    left = [look for look in looks if look.clip is not None]
    for first in range(0, len(left), _MAX_BATCH):
        yield left[first : first + _MAX_BATCH]
