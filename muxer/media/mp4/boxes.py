"""The boxes of an MP4 file (ISO/IEC 14496-12): how they nest, and the tables in them. Pure."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import groupby

HEADER_BYTES = 8
LARGE_HEADER_BYTES = 16
# Type codes of array; "I" has four bytes on all supported systems.
_U32, _U64 = "I", "Q"
# More than in any real file.
MAX_CHILDREN = 10_000


class BoxError(ValueError):
    """The bytes are not boxes, or a table is shorter than it states."""


def parse_header(data: bytes) -> tuple[bytes, int, int]:
    """Return kind, header length and size (0: to the end of the file) of the box at the start of `data`."""
    if len(data) < HEADER_BYTES:
        raise BoxError("a box is truncated")
    size, kind = struct.unpack_from(">I4s", data)
    if size == 1:
        if len(data) < LARGE_HEADER_BYTES:
            raise BoxError("a box is truncated")
        (size,) = struct.unpack_from(">Q", data, HEADER_BYTES)
        if size < LARGE_HEADER_BYTES:
            raise BoxError("a box is shorter than its header")
        return kind, LARGE_HEADER_BYTES, size
    if 0 < size < HEADER_BYTES:
        raise BoxError("a box is shorter than its header")
    return kind, HEADER_BYTES, size


def iterate_children(body: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the kind and the content of each box in `body`. Raises BoxError."""
    position = 0
    for _ in range(MAX_CHILDREN):
        if position + HEADER_BYTES > len(body):
            return
        kind, skip, size = parse_header(bytes(body[position : position + LARGE_HEADER_BYTES]))
        size = size or len(body) - position
        if position + size > len(body):
            raise BoxError(f"the box {kind!r} is longer than its parent")
        yield kind, body[position + skip : position + size]
        position += size
    raise BoxError("too many boxes in one")


def find_child(body: memoryview, *path: bytes) -> memoryview | None:
    """Return the content of the first box at the `path` of kinds below `body`; None when there is none."""
    content: memoryview | None = body
    for kind in path:
        if content is None:
            return None
        content = next((inner for name, inner in iterate_children(content) if name == kind), None)
    return content


def require_child(body: memoryview, *path: bytes) -> memoryview:
    """Return the content of the first box at `path`. Raises BoxError when there is none."""
    content = find_child(body, *path)
    if content is None:
        raise BoxError(f"there is no box {b'/'.join(path)!r}")
    return content


def read_number(body: memoryview, offset: int, size: int) -> int:
    """Return the unsigned number of `size` bytes at `offset`. Raises BoxError behind the end."""
    if offset + size > len(body):
        raise BoxError("a box is shorter than its fields")
    return int.from_bytes(body[offset : offset + size], "big")


def read_numbers(body: memoryview, offset: int, count: int, *, wide: bool = False) -> array[int]:
    """Return `count` unsigned numbers of four bytes (`wide`: eight) from `offset` on. Raises BoxError behind the end."""
    numbers = array(_U64 if wide else _U32)
    end = offset + count * numbers.itemsize
    if end > len(body):
        raise BoxError("a table is shorter than it states")
    numbers.frombytes(bytes(body[offset:end]))
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def pack_numbers(values: Iterable[int], *, wide: bool = False) -> bytes:
    """Return numbers as a table of four bytes each (`wide`: eight)."""
    numbers = array(_U64 if wide else _U32, values)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tobytes()


def pack_runs(values: Iterable[int]) -> bytes:
    """Return a run-length table: the number of runs, then for each run its length and its value."""
    runs = [(sum(1 for _ in same), value) for value, same in groupby(values)]
    return struct.pack(">I", len(runs)) + pack_numbers(value & 0xFFFFFFFF for run in runs for value in run)


def build_box(kind: bytes, *parts: bytes) -> bytes:
    """Return a box of `kind` with the content `parts`."""
    size = HEADER_BYTES + sum(map(len, parts))
    return b"".join((struct.pack(">I4s", size, kind), *parts))


def build_full_box(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    """Return a box with version and flags."""
    return build_box(kind, struct.pack(">I", version << 24 | flags), *parts)
