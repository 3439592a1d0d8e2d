"""Compare decoded frames by the mean difference of small blocks. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from operator import sub

# The mean difference of a block of 8 x 8 values, of 255. Measured with x264 and our options: at most 8 for noise, 2 to 3
# for screens; 40 and more for the next frame where anything moves.
BLOCK, MAX_DIFFERENCE = 8, 16


def is_alike(one: bytes, other: bytes, size: tuple[int, int]) -> bool:
    """Return whether two frames (yuv420p of the same size, rows without padding) show the same."""
    if len(one) != len(other) or not one:
        return False
    return one == other or all(difference <= MAX_DIFFERENCE for difference in _block_differences(one, other, size))


def is_black(frame: bytes, size: tuple[int, int]) -> bool:
    """Return whether a frame (as for is_alike) is black, in limited or full range."""
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
