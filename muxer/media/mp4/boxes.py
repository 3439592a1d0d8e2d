"""The boxes of an MP4 file (ISO/IEC 14496-12): how they nest, and the tables in them. Pure."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import groupby

HEADER_BYTES = 8
LARGE_HEADER_BYTES = 16
# What array has as its unsigned number of four bytes on every system of ours.
_U32, _U64 = "I", "Q"
# No box of a real file holds so many others.
MAX_CHILDREN = 10_000


class BoxError(ValueError):
    """The bytes are no boxes, or a table is shorter than it says."""


def parse_header(data: bytes) -> tuple[bytes, int, int]:
    """Given the first bytes of a box (16, fewer at the end of a file), return its kind, the length of its header and that
    of the whole box; 0 = up to the end of the file. Raise :class:`BoxError` when they are none."""
    if len(data) < HEADER_BYTES:
        raise BoxError("a box breaks off")
    size, kind = struct.unpack_from(">I4s", data)
    if size == 1:
        if len(data) < LARGE_HEADER_BYTES:
            raise BoxError("a box breaks off")
        (size,) = struct.unpack_from(">Q", data, HEADER_BYTES)
        if size < LARGE_HEADER_BYTES:
            raise BoxError("a box is shorter than its header")
        return kind, LARGE_HEADER_BYTES, size
    if 0 < size < HEADER_BYTES:
        raise BoxError("a box is shorter than its header")
    return kind, HEADER_BYTES, size


def iterate_children(body: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Given the content of a box that holds others, yield each one's kind and content."""
    position = 0
    for _ in range(MAX_CHILDREN):
        if position + HEADER_BYTES > len(body):
            return
        kind, skip, size = parse_header(bytes(body[position : position + LARGE_HEADER_BYTES]))
        size = size or len(body) - position
        if position + size > len(body):
            raise BoxError(f"the box {kind!r} is longer than what holds it")
        yield kind, body[position + skip : position + size]
        position += size
    raise BoxError("too many boxes in one")


def find_child(body: memoryview, *path: bytes) -> memoryview | None:
    """Given the content of a box and a path of kinds below it, return the content of the first box there, if any."""
    found: memoryview | None = body
    for kind in path:
        if found is None:
            return None
        found = next((inner for name, inner in iterate_children(found) if name == kind), None)
    return found


def require_child(body: memoryview, *path: bytes) -> memoryview:
    """Like :func:`child`; raise :class:`BoxError` when there is no such box."""
    found = find_child(body, *path)
    if found is None:
        raise BoxError(f"there is no box {b'/'.join(path)!r}")
    return found


def read_number(body: memoryview, offset: int, size: int) -> int:
    """Given a content, return the unsigned number of ``size`` bytes at ``offset``."""
    if offset + size > len(body):
        raise BoxError("a box is shorter than its fields")
    return int.from_bytes(body[offset : offset + size], "big")


def read_numbers(body: memoryview, offset: int, count: int, *, wide: bool = False) -> array[int]:
    """Given a content, return ``count`` unsigned numbers of four bytes (``wide``: eight) from ``offset`` on."""
    made = array(_U64 if wide else _U32)
    end = offset + count * made.itemsize
    if end > len(body):
        raise BoxError("a table is shorter than it says")
    made.frombytes(bytes(body[offset:end]))
    if sys.byteorder == "little":
        made.byteswap()
    return made


def pack_numbers(values: Iterable[int], *, wide: bool = False) -> bytes:
    """Given numbers, return them as a table holds them, in four bytes each (``wide``: eight)."""
    made = array(_U64 if wide else _U32, values)
    if sys.byteorder == "little":
        made.byteswap()
    return made.tobytes()


def pack_runs(values: Iterable[int]) -> bytes:
    """Given numbers, return a table of runs: how often a number comes, and the number; its count of runs before it."""
    runs = [(sum(1 for _ in same), value) for value, same in groupby(values)]
    return struct.pack(">I", len(runs)) + pack_numbers(value & 0xFFFFFFFF for run in runs for value in run)


def build_box(kind: bytes, *parts: bytes) -> bytes:
    """Given a kind and the parts of a content, return the box."""
    size = HEADER_BYTES + sum(map(len, parts))
    return b"".join((struct.pack(">I4s", size, kind), *parts))


def build_full_box(kind: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
    """Like :func:`box`, for one with version and flags."""
    return build_box(kind, struct.pack(">I", version << 24 | flags), *parts)
