"""Detect by its own structure whether a media file is truncated. What the container does not state is `UNPROVEN`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from muxer.media.mp4 import MAX_INDEX_BYTES, BoxError, boxes, last_sample_end

# One for each frame of a recording of days.
MAX_HEADERS = 5_000_000
# A file that is not longer than this contains no media.
MAX_HEADER_BYTES = 16
# An error page is detected by its first bytes; a shorter text may be the beginning of a media file.
TEXT_BYTES, MIN_TEXT_BYTES = 512, 7

_MP4_FIRST = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"moof", b"sidx", b"pnot")
# Without an index, an MP4 file with other boxes than these is not truncated: it is a stream segment or an image.
_MP4_MEDIA_ONLY = {b"ftyp", b"mdat", b"free", b"skip", b"wide", b"uuid", b"pnot"}

_EBML, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
# The children of a segment, and of a cluster (RFC 9559).
_SEGMENT_IDS = {0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, 0xEC, 0xBF}
_CLUSTER_IDS = {0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF}
_KNOWN_IDS = {_EBML, _SEGMENT, _CLUSTER} | _SEGMENT_IDS | _CLUSTER_IDS

# Programs that cannot seek back to the header write a size from here on when it is unknown.
_RIFF_UNKNOWN = 0x7FFFF000
# Some programs count the header too, or omit the padding at the end.
_AVI_SLACK, _WAV_SLACK = 9, 64


class Structure(StrEnum):
    """What the structure of a file states: it is complete, it is truncated, or nothing."""

    WHOLE = "whole"
    TRUNCATED = "truncated"
    UNPROVEN = "unproven"


def examine_structure(path: Path) -> Structure:
    """Return what the structure of the file at `path` states. An empty file is TRUNCATED. Raises OSError."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(0)
        head = file.read(MAX_HEADER_BYTES)
        if len(head) < MAX_HEADER_BYTES:
            return Structure.UNPROVEN if _looks_like_text(head) else Structure.TRUNCATED
        form = container_form(head)
        if form == "mp4":
            return _examine_mp4(file, end)
        if form == "matroska":
            return _examine_matroska(file, end)
        if form == "wav":
            return _examine_wav(file, end)
        return _examine_avi(file, end) if form == "avi" else Structure.UNPROVEN


def container_form(head: bytes) -> str:
    """Return the container of a file by its first 16 bytes: mp4, matroska, wav, avi, or an empty text for any other."""
    if head[:4] == _EBML.to_bytes(4, "big"):
        return "matroska"
    if head[:4] in (b"RIFF", b"RF64", b"BW64"):
        return {b"WAVE": "wav", b"AVI ": "avi"}.get(head[8:12], "")
    return "mp4" if head[4:8] in _MP4_FIRST else ""


def is_text(path: Path) -> bool:
    """Return whether the file at `path` starts as text, such as an error page instead of media. Raises OSError."""
    with path.open("rb") as file:
        return _looks_like_text(file.read(TEXT_BYTES))


def _looks_like_text(head: bytes) -> bool:
    return len(head) >= MIN_TEXT_BYTES and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)


def _read_at(file: BinaryIO, position: int, length: int = MAX_HEADER_BYTES) -> bytes:
    file.seek(position)
    return file.read(length)


@dataclass(frozen=True)
class _TopBoxes:
    """The top-level boxes of an MP4 file.

    `breaks_off`: a box is truncated; `foreign`: other bytes follow; `indexed_end` is the largest end that a sidx box states.
    """

    kinds: tuple[bytes, ...]
    index: memoryview | None
    breaks_off: bool
    foreign: bool
    indexed_end: int


def _examine_mp4(file: BinaryIO, end: int) -> Structure:
    top = _read_top_boxes(file, end)
    if top.index is None:
        if top.breaks_off:
            return Structure.TRUNCATED
        return Structure.UNPROVEN if top.foreign or set(top.kinds) - _MP4_MEDIA_ONLY else Structure.TRUNCATED
    try:
        tracks = (inner for kind, inner in boxes.iterate_children(top.index) if kind == b"trak")
        last_sample = max(map(last_sample_end, tracks), default=0)
        fragmented = boxes.find_child(top.index, b"mvex") is not None
    except BoxError:
        return Structure.TRUNCATED if top.breaks_off else Structure.UNPROVEN
    if last_sample > end:
        return Structure.TRUNCATED
    if not fragmented:
        return Structure.WHOLE if last_sample else Structure.UNPROVEN
    return _examine_fragments(top, end, has_samples=last_sample > 0)


def _examine_fragments(top: _TopBoxes, end: int, *, has_samples: bool) -> Structure:
    if top.kinds[-1] == b"mfra":
        # mfra is written when the file is closed.
        return Structure.WHOLE
    if top.breaks_off or top.indexed_end > end or top.kinds[-1] == b"moof":
        return Structure.TRUNCATED
    if b"moof" not in top.kinds and not has_samples:
        return Structure.TRUNCATED
    return Structure.UNPROVEN


def _read_top_boxes(file: BinaryIO, end: int) -> _TopBoxes:
    kinds: list[bytes] = []
    index: memoryview | None = None
    position = indexed_end = 0
    breaks_off = foreign = False
    for _ in range(MAX_HEADERS):
        if position >= end:
            break
        head = _read_at(file, position)
        if len(head) >= boxes.HEADER_BYTES and not any(head):
            foreign = True  # padded with zeros
            break
        try:
            kind, skip, size = boxes.parse_header(head)
        except BoxError:
            # A truncated header, or an mdat whose size the recorder fills in at the end.
            breaks_off = len(head) < MAX_HEADER_BYTES or head[4:8] == b"mdat"
            foreign = not breaks_off
            break
        if not all(32 <= byte < 127 or byte == 0xA9 for byte in kind):
            foreign = True
            break
        size = size or end - position
        if position + size > end:
            breaks_off = True
            break
        kinds.append(kind)
        if kind == b"moov" and size <= MAX_INDEX_BYTES:
            index = memoryview(_read_at(file, position + skip, size - skip))
        if kind == b"sidx":
            indexed_end = max(indexed_end, _indexed_end(_read_at(file, position + skip, size - skip), position + size))
        position += size
    return _TopBoxes(tuple(kinds), index, breaks_off, foreign, indexed_end)


def _indexed_end(body: bytes, anchor: int) -> int:
    """Return where the last segment ends by a sidx box; 0 when it cannot be parsed."""
    view = memoryview(body)
    try:
        wide = bool(boxes.read_number(view, 0, 1))
        first = boxes.read_number(view, 20 if wide else 16, 8 if wide else 4)
        entries = 28 if wide else 20
        count = boxes.read_number(view, entries + 2, 2)
        sizes = (boxes.read_number(view, entries + 4 + 12 * number, 4) & 0x7FFFFFFF for number in range(count))
        return anchor + first + sum(sizes)
    except BoxError:
        return 0


def _examine_matroska(file: BinaryIO, end: int) -> Structure:
    """Follow the elements of a file. A segment or cluster of unknown size is entered, all others are skipped."""
    position, clusters = 0, 0
    for _ in range(MAX_HEADERS):
        if position >= end:
            return Structure.UNPROVEN if clusters else Structure.TRUNCATED
        head = _read_at(file, position)
        element = _parse_element(head)
        if element is None:
            may_continue = any(head) and position + MAX_HEADER_BYTES > end
            return Structure.TRUNCATED if may_continue else Structure.UNPROVEN
        kind, skip, size = element
        if kind not in _KNOWN_IDS or (size is None and kind not in (_SEGMENT, _CLUSTER)):
            return Structure.UNPROVEN
        clusters += kind == _CLUSTER
        position += skip + (size or 0)
        if position > end:
            return Structure.TRUNCATED
        if kind == _SEGMENT and size is not None and position == end:
            return Structure.WHOLE
        clusters += kind == _SEGMENT and size is not None  # its clusters were skipped with it
    return Structure.UNPROVEN


def _parse_element(head: bytes) -> tuple[int, int, int | None] | None:
    """Return id, header length and size (None: unknown) of the element at the start of `head`; None for no header."""
    kind = _parse_variable(head, 4)
    if kind is None:
        return None
    size = _parse_variable(head[kind[1] :], 8)
    if size is None:
        return None
    value, length = size
    mask = (1 << 7 * length) - 1
    return kind[0], kind[1] + length, None if value & mask == mask else value & mask


def _parse_variable(data: bytes, max_length: int) -> tuple[int, int] | None:
    """Return the number of variable length at the start of `data`, with its marker bit, and its length in bytes."""
    length = 9 - data[0].bit_length() if data else max_length + 1
    return (int.from_bytes(data[:length], "big"), length) if length <= min(max_length, len(data)) else None


def _examine_wav(file: BinaryIO, end: int) -> Structure:
    long_size = 0
    for kind, start, size in _riff_chunks(file, 12, end):
        if kind == b"ds64":
            long_size = int.from_bytes(_read_at(file, start + 8, 8), "little")
        if kind == b"data":
            size = long_size if long_size and size == 0xFFFFFFFF else size
            if start + size <= end:
                return Structure.WHOLE if size else Structure.UNPROVEN
            is_known = size < _RIFF_UNKNOWN or size == long_size
            return Structure.TRUNCATED if is_known and start + size - end > _WAV_SLACK else Structure.UNPROVEN
    return Structure.TRUNCATED


def _riff_chunks(file: BinaryIO, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    for _ in range(MAX_HEADERS):
        head = _read_at(file, position, 8)
        if len(head) < 8:
            return
        size = int.from_bytes(head[4:], "little")
        yield head[:4], position + 8, size
        position += 8 + size + size % 2
        if position > end:
            return


def _examine_avi(file: BinaryIO, end: int) -> Structure:
    """Compare the sizes of all RIFF chunks with the file: a long AVI file has several (OpenDML)."""
    for kind, start, size in _riff_chunks(file, 0, end):
        if kind != b"RIFF" or size in (0, 0xFFFFFFFF):
            return Structure.UNPROVEN
        if start + size > end:
            return Structure.TRUNCATED if start + size - end > _AVI_SLACK else Structure.UNPROVEN
        if end - start - size <= size % 2:
            return Structure.WHOLE
    return Structure.UNPROVEN
