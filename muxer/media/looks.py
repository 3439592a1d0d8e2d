"""Compares what was encoded with what it was encoded from: the first and the last frame of each encoded piece.

A wrong seek, or a frame too many, shows in no table. So each of these frames of the result is decoded and held against the
frame of the source that is in effect at that time, which is found by its own presentation time and not by the way in which
the piece was encoded. Both are brought to the same small size: encoding changes a block of it a little, another frame much.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import sub
from pathlib import Path

from muxer.media.plan.cut import FrameIndex
from muxer.media.plan.pieces import MediaTools, Piece, VideoTarget, frame_command
from muxer.media.probe import MediaInfo

# The longer side of the compared frames, in pixels.
MAX_SIDE_PIXELS = 640
# The mean difference of a block of 8 x 8 values, of 255. Measured with x264 as we run it: at most 8 for noise, 2 to 3 for
# screens; a frame apart, 40 and more where anything moves.
BLOCK, MAX_DIFFERENCE = 8, 16
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


def is_alike(one: bytes, other: bytes, size: tuple[int, int]) -> bool:
    """Whether two frames (yuv420p of the same size, rows without padding) show the same."""
    if len(one) != len(other) or not one:
        return False
    return one == other or all(difference <= MAX_DIFFERENCE for difference in _block_differences(one, other, size))


def is_black(frame: bytes, size: tuple[int, int]) -> bool:
    """Whether a frame (as in :func:`is_alike`) is black, in limited or full range."""
    pixels = size[0] * size[1]
    black = bytes([min(frame[:pixels], default=0)]) * pixels + bytes([128]) * (len(frame) - pixels)
    return max(frame[:pixels], default=255) <= 16 + MAX_DIFFERENCE and is_alike(frame, black, size)


def _block_differences(one: bytes, other: bytes, size: tuple[int, int]) -> Iterator[float]:
    """Yield the mean difference of each block of the three planes."""
    begin = 0
    for width, height in (size, (size[0] // 2, size[1] // 2), (size[0] // 2, size[1] // 2)):
        for top in range(0, height, BLOCK):
            rows = range(top, min(top + BLOCK, height))
            spans = [slice(begin + row * width, begin + (row + 1) * width) for row in rows]
            columns = [sum(values) for values in zip(*(map(abs, map(sub, one[s], other[s])) for s in spans), strict=True)]
            for left in range(0, width, BLOCK):
                block = columns[left : left + BLOCK]
                yield sum(block) / (len(block) * len(spans))
        begin += width * height
