"""Compares the index of a stored muxed file with that of a reference, box by box.

Only files that this writer made are compared: other programs arrange the boxes in another way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from muxer.media.mp4 import boxes
from muxer.media.mp4.tracks import read_index_boxes

_PARENTS = frozenset((b"moov", b"trak", b"edts", b"mdia", b"minf", b"dinf", b"stbl"))
# Creation and modification time in version 1: they are those of the call, and an earlier muxer may have had another clock.
_TIMES, _WITH_TIMES = slice(4, 20), (b"mvhd", b"tkhd", b"mdhd")
# The content of mvhd in version 1, which ffmpeg writes for dates after 2040 only.
_MOVIE_HEADER_BYTES = 112
# What depends on the samples: another build of ffmpeg encodes them differently.
_TABLES = frozenset((b"stts", b"ctts", b"stss", b"stsc", b"stsz", b"sgpd", b"sbgp"))
# Durations of eight bytes: where they are, and how many ticks an earlier muxer may have rounded them differently.
_DURATIONS = {b"mvhd": {24: 450}, b"tkhd": {28: 450}, b"mdhd": {24: 40}, b"elst": {8: 450, 16: 40}}
_OFFSETS = (b"stco", b"co64")
# Flags, number of entries, and the fixed fields of the sample entry behind its header.
_VIDEO_FIELDS, _AUDIO_FIELDS = slice(12, 94), slice(12, 44)


@dataclass(frozen=True)
class _Box:
    """A box without children: the kinds from the top down to it, and its content."""

    path: tuple[bytes, ...]
    content: bytes

    @property
    def kind(self) -> bytes:
        return self.path[-1]


def compare_indexes(stored: Path, reference: Path) -> list[str]:
    """Return the boxes of the index that differ, empty when another program wrote `stored`. Raises BoxError."""
    ours, theirs = (list(_read_boxes(path)) for path in (stored, reference))
    renamed = sum(mine.path != other.path for mine, other in zip(ours, theirs, strict=False))
    if len(ours) != len(theirs) or renamed > 1:
        return []
    if any(mine.kind == b"mvhd" and len(mine.content) != _MOVIE_HEADER_BYTES for mine in ours):
        return []
    encoded = _find_encoded(ours, theirs)
    found = []
    for mine, other, track in zip(ours, theirs, _track_numbers(theirs), strict=True):
        # The samples of both tracks are interleaved, and the movie is as long as its longest track.
        is_shared = not track or other.kind in _OFFSETS
        is_encoded = bool(encoded) if is_shared else track in encoded
        if mine.path != other.path or _differs(mine, other, is_encoded=is_encoded):
            name = b"/".join(other.path).decode("latin-1").replace("trak", f"trak {track}")
            found.append(f"the box {name} of its index differs")
    return found


def _read_boxes(path: Path) -> Iterator[_Box]:
    for kind, content in read_index_boxes(path):
        yield from _leaves((kind,), memoryview(content))


def _leaves(path: tuple[bytes, ...], content: memoryview) -> Iterator[_Box]:
    if path[-1] not in _PARENTS:
        yield _Box(path, bytes(content))
        return
    for kind, inner in boxes.iterate_children(content):
        yield from _leaves((*path, kind), inner)


def _track_numbers(index: list[_Box]) -> list[int]:
    """Return the number of the track of each box, 0 outside of tracks."""
    numbers, number = [], 0
    for box in index:
        number += box.kind == b"tkhd"
        numbers.append(number if b"trak" in box.path else 0)
    return numbers


def _find_encoded(ours: list[_Box], theirs: list[_Box]) -> set[int]:
    """Return the tracks whose samples have other sizes: they were encoded by another build, or are not the same."""
    return {
        track
        for mine, other, track in zip(ours, theirs, _track_numbers(theirs), strict=True)
        if other.kind == b"stsz" and mine.content != other.content
    }


def _differs(mine: _Box, other: _Box, *, is_encoded: bool) -> bool:
    one, two, kind = mine.content, other.content, other.kind
    if kind in _OFFSETS:
        return not is_encoded and _shifts(one, wide=kind == b"co64") != _shifts(two, wide=kind == b"co64")
    if is_encoded and kind in _TABLES:
        return False
    if is_encoded and kind == b"stsd":
        fields = _VIDEO_FIELDS if two[12:16] == b"avc1" else _AUDIO_FIELDS
        return one[:8] + one[fields] != two[:8] + two[fields]
    masked = [_TIMES] if kind in _WITH_TIMES else []
    for at, tolerance in _DURATIONS.get(kind, {}).items():
        place = slice(at, at + 8)
        if is_encoded or abs(int.from_bytes(one[place], "big") - int.from_bytes(two[place], "big")) <= tolerance:
            masked.append(place)
    return _mask(one, masked) != _mask(two, masked)


def _mask(content: bytes, parts: Sequence[slice]) -> bytes:
    masked = bytearray(content)
    for part in parts:
        masked[part] = bytes(len(masked[part]))
    return bytes(masked)


def _shifts(content: bytes, *, wide: bool) -> list[int]:
    """Return flags, count and the offsets of a chunk table, relative to the first one; `wide`: in eight bytes each."""
    offsets = boxes.read_numbers(memoryview(content), 8, (len(content) - 8) // (8 if wide else 4), wide=wide)
    return [*content[:8], *(offset - offsets[0] for offset in offsets)]
