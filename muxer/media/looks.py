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

from muxer.errors import MediaError, ToolError
from muxer.media.cut import Index
from muxer.media.probe import Probed
from muxer.media.render import Piece, Target, Tools, look_command
from muxer.process import Runner

LOOK_SECONDS = 600.0
# The longer side of the compared frames, in pixels.
MAX_SIDE = 640
# The mean difference of a block of 8 x 8 values, of 255. Measured with x264 as we run it: at most 8 for noise, 2 to 3 for
# screens; a frame apart, 40 and more where anything moves.
BLOCK, MAX_DIFFERENCE = 8, 16
# As many frames are looked at by one ffmpeg: each one opens its file.
_AT_ONCE = 8


@dataclass(frozen=True)
class Look:
    """A frame of an encoded piece: ``at`` is when it is shown in the result, ``frame`` when that of its source is, counted
    from the first frame of the clip; microseconds."""

    at: int
    clip: int
    frame: int


def plan_looks(parts: Sequence[Piece], indices: Mapping[int, Index]) -> tuple[Look, ...]:
    """Return the frames to compare: the first and the last one of each encoded piece."""
    looks = []
    for part in parts:
        if part.clip is None or part.cut is None or part.reason is None:
            continue
        index = indices[part.clip]
        looks.append(Look(part.begin, part.clip, index.in_effect(part.cut.begin)))
        if following := index.shown_between(part.cut.begin, part.cut.end):
            looks.append(Look(part.begin + following[-1] - part.cut.begin, part.clip, following[-1]))
    return tuple(looks)


def look_size(target: Target) -> tuple[int, int]:
    """Return the size, even in both directions, in which frames of the result are compared."""
    scale = min(1.0, MAX_SIDE / max(target.width, target.height))
    return max(2, 2 * round(target.width * scale / 2)), max(2, 2 * round(target.height * scale / 2))


def view_sources(
    looks: Sequence[Look],
    sources: Sequence[Probed],
    indices: Mapping[int, Index],
    target: Target,
    tools: Tools,
    runner: Runner,
    folder: Path,
    *,
    seekable: bool,
) -> list[bytes]:
    """Return the frames of the sources for some looks, as small as :func:`look_size` says, empty for one that is not there.

    ``seekable``: each file is read from shortly before the frame on, else from its begin. ``folder`` takes the frames.
    """
    size = look_size(target)
    frames = []
    for first in range(0, len(looks), _AT_ONCE):
        batch = looks[first : first + _AT_ONCE]
        paths = [folder / f"look-{number}.yuv" for number in range(len(batch))]
        found = zip(batch, paths, strict=True)
        wanted = [(sources[look.clip], indices[look.clip], look.frame, path) for look, path in found]
        try:
            runner.run(look_command(tools, target, wanted, size, seekable=seekable), timeout=LOOK_SECONDS)
        except ToolError as error:
            if not seekable:
                raise MediaError(f"frames of a source cannot be looked at: {error}") from error
        for path in paths:
            frames.append(path.read_bytes() if path.exists() else b"")
            path.unlink(missing_ok=True)
    return frames


def is_alike(one: bytes, other: bytes, size: tuple[int, int]) -> bool:
    """Whether two frames (yuv420p of the same size, rows without padding) show the same."""
    if len(one) != len(other) or not one:
        return False
    return one == other or all(difference <= MAX_DIFFERENCE for difference in _differences(one, other, size))


def is_black(frame: bytes, size: tuple[int, int]) -> bool:
    """Whether a frame (as in :func:`is_alike`) is black, in limited or full range."""
    pixels = size[0] * size[1]
    black = bytes([min(frame[:pixels], default=0)]) * pixels + bytes([128]) * (len(frame) - pixels)
    return max(frame[:pixels], default=255) <= 16 + MAX_DIFFERENCE and is_alike(frame, black, size)


def _differences(one: bytes, other: bytes, size: tuple[int, int]) -> Iterator[float]:
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
