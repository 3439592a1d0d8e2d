"""The display matrix of a video track (ISO/IEC 14496-12, 8.3.2), as one of the eight orientations of a rectangle. Pure.

A point (p, q) of a frame is shown at (a*p + c*q + x, b*p + d*q + y).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

_ONE, _LAST = 0x10000, 0x40000000


@dataclass(frozen=True)
class Orientation:
    """One of the eight orientations; `a`, `b`, `c` and `d` are -1, 0 or 1."""

    a: int
    b: int
    c: int
    d: int

    @property
    def swaps_sides(self) -> bool:
        """Whether width and height are swapped."""
        return self.a == 0

    @property
    def inverse(self) -> Orientation:
        """The orientation that undoes this one."""
        return Orientation(self.a, self.c, self.b, self.d)

    @property
    def ffmpeg_filters(self) -> tuple[str, ...]:
        """The ffmpeg filters that turn coded frames as a player shows them."""
        return _FILTERS[self.a, self.b, self.c, self.d]

    def shown_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the shown size for a coded one, or the other way round."""
        return (height, width) if self.swaps_sides else (width, height)

    def to_matrix(self, width: int, height: int) -> bytes:
        """Return the matrix of a track header box for frames of a coded size in pixels."""
        x = (width if self.a < 0 else 0) + (height if self.c < 0 else 0)
        y = (width if self.b < 0 else 0) + (height if self.d < 0 else 0)
        rows = (self.a * _ONE, self.b * _ONE, 0, self.c * _ONE, self.d * _ONE, 0, x * _ONE, y * _ONE, _LAST)
        return struct.pack(">9I", *(number & 0xFFFFFFFF for number in rows))


UPRIGHT = Orientation(1, 0, 0, 1)
_FILTERS: dict[tuple[int, int, int, int], tuple[str, ...]] = {
    (1, 0, 0, 1): (),
    (-1, 0, 0, -1): ("hflip", "vflip"),
    (-1, 0, 0, 1): ("hflip",),
    (1, 0, 0, -1): ("vflip",),
    (0, 1, -1, 0): ("transpose=clock",),
    (0, -1, 1, 0): ("transpose=cclock",),
    (0, 1, 1, 0): ("transpose=cclock_flip",),
    (0, -1, -1, 0): ("transpose=clock_flip",),
}


def read_orientation(numbers: Sequence[int]) -> Orientation:
    """Return the orientation for the nine numbers (16.16 fixed point) of a display matrix; UPRIGHT for any other."""
    if len(numbers) != 9:
        return UPRIGHT
    largest = max(abs(numbers[at]) for at in (0, 1, 3, 4))
    a, b, c, d = (_to_sign(numbers[at], largest) for at in (0, 1, 3, 4))
    return Orientation(a, b, c, d) if (a, b, c, d) in _FILTERS else UPRIGHT


def _to_sign(number: int, largest: int) -> int:
    """Return -1, 0 or 1 for a number of a matrix; one that is small compared with `largest` is 0."""
    return 0 if 16 * abs(number) < largest or not number else 1 if number > 0 else -1


def matrix_numbers(matrix: bytes) -> tuple[int, ...]:
    """Return the nine signed numbers of the matrix in a track header box."""
    return struct.unpack(">9i", matrix)


def printed_numbers(text: str) -> list[int]:
    """Return the numbers of a matrix as ffprobe prints it: in rows, each after its number."""
    return [int(number) for row in text.split("\\n") if ":" in row for number in row.split(":", 1)[1].split()]
