"""Choose the frames to compare after encoding: the first and the last frame of each encoded piece, by presentation time."""

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
# Decoded frames after a join.
FRAMES_AFTER_JOIN = 3
# Frames per ffmpeg process: each one opens its file.
_MAX_BATCH = 8


@dataclass(frozen=True)
class FrameCheck:
    """A frame of the result to compare: its number among the excerpts' frames, and its source (no clip: black)."""

    number: int
    at: int
    clip: int | None = None
    frame: int = 0


def excerpt_length(part: Piece) -> int:
    """Return how many frames of a piece are decoded: all that were encoded from a source, else those after the join."""
    return part.frames if part.reason else min(FRAMES_AFTER_JOIN, part.frames)


def plan_frame_checks(parts: Sequence[Piece], indices: Mapping[int, FrameIndex]) -> tuple[FrameCheck, ...]:
    """Return the frames to compare: the first and the last one of each encoded piece, and the first one of padding."""
    checks: list[FrameCheck] = []
    begin, padded = 0, False
    for part in parts:
        if part.clip is None or part.cut is None:
            checks += [] if padded else [FrameCheck(begin, part.begin)]
            padded = True
        elif part.reason is not None:
            index, cut = indices[part.clip], part.cut
            checks.append(FrameCheck(begin, part.begin, part.clip, index.visible_frame(cut.begin)))
            if following := index.frames_between(cut.begin, cut.end):
                last = following[-1]
                checks.append(FrameCheck(begin + part.frames - 1, part.begin + last - cut.begin, part.clip, last))
        begin += excerpt_length(part)
    return tuple(checks)


def comparison_size(target: VideoTarget) -> tuple[int, int]:
    """Return the size, even in both directions, in which frames of the result are compared."""
    scale = min(1.0, MAX_SIDE_PIXELS / max(target.width, target.height))
    return max(2, 2 * round(target.width * scale / 2)), max(2, 2 * round(target.height * scale / 2))


def source_frame_path(folder: Path, number: int) -> Path:
    """Return the path of the source frame that is compared with the frame `number` of the excerpts."""
    return folder / f"look-{number}.yuv"


def source_frame_commands(
    checks: Sequence[FrameCheck],
    sources: Sequence[MediaInfo],
    indices: Mapping[int, FrameIndex],
    target: VideoTarget,
    tools: MediaTools,
    folder: Path,
    *,
    seekable: bool,
) -> Iterator[list[str]]:
    """Yield commands that write the sources' frames, by batches. `seekable`: decoded from shortly before them."""
    for batch in batch_frame_checks(checks):
        wanted = [
            (sources[check.clip], indices[check.clip], check.frame, source_frame_path(folder, check.number))
            for check in batch
            if check.clip is not None
        ]
        yield frame_command(tools, target, wanted, comparison_size(target), seekable=seekable)


def batch_frame_checks(checks: Sequence[FrameCheck]) -> Iterator[list[FrameCheck]]:
    """Yield the checks against sources in batches for one command; those of padding are omitted."""
    of_sources = [check for check in checks if check.clip is not None]
    for first in range(0, len(of_sources), _MAX_BATCH):
        yield of_sources[first : first + _MAX_BATCH]
