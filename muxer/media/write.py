"""Writes the muxed file: an MP4 with its index in front, picture and sound side by side in stretches of a second.

The bytes of samples are copied from where they lie; memory holds one stretch at a time. The layout follows ISO/IEC
14496-12 and -15. Only what browsers read is written: one H.264 track, one audio track, an edit list for each.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from heapq import merge
from io import FileIO
from itertools import accumulate, islice, repeat
from operator import sub
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from muxer.errors import Code, MediaError
from muxer.media.avc import Avc
from muxer.media.boxes import box, counted, full_box, packed
from muxer.media.compose import TIMESCALE, Row
from muxer.media.orientation import UPRIGHT
from muxer.media.plain import Sound
from muxer.transfer import present, private_file

_EPOCH_1904 = 2_082_844_800
_COPY_BYTES = 1 << 20
# A recording may have more files than a process may hold open.
_OPEN_AT_ONCE = 8
_NARROW = 1 << 32
_UNDETERMINED = 0x55C4
# Bytes of a file: its number (negative: that of a prefix), where they begin, how many.
Extent = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Samples that follow one another in the file, from ``first`` to before ``last`` of a track: when the first is decoded
    (seconds), and how many bytes they have."""

    when: float
    track: int
    first: int
    last: int
    size: int


def write_movie(
    path: Path,
    row: Row,
    avc: Avc,
    sound: Sound | None,
    start: datetime,
    tell: Callable[[int], None] = lambda _: None,
) -> tuple[int, int]:
    """Write the MP4 file; return the checksums (CRC-32) of the bytes of its video and audio samples in order, as they were
    read from the sources.

    ``row`` are the samples of the video, ``avc`` how they are coded, ``sound`` the audio (None = a silent file), ``start``
    when it began; ``tell`` is called with how many more microseconds are written. Raises
    :class:`~muxer.errors.LocalResourceError` when the disk is full.
    """
    chunks = list(merge(_picture_chunks(row), _sound_chunks(sound), key=lambda chunk: chunk.when))
    files = (*row.files, *((sound.path,) if sound else ()))
    total = sum(chunk.size for chunk in chunks)
    kind = box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomiso2avc1mp41")
    seconds = int(start.timestamp()) + _EPOCH_1904
    # The index is as long with right offsets as with any others of the same width.
    wide = total >= _NARROW - (64 << 20)
    base = len(kind) + len(_index(row, avc, sound, chunks, 0, seconds, wide))
    head = struct.pack(">I4sQ", 1, b"mdat", total + 16) if wide else struct.pack(">I4s", total + 8, b"mdat")
    with private_file(path) as out, _opened(files) as opened:
        out.write(kind + _index(row, avc, sound, chunks, base + len(head), seconds, wide) + head)
        buffer = memoryview(bytearray(_COPY_BYTES))
        told = 0
        checksums = [0, 0]
        for chunk in chunks:
            tell(max(0, round(chunk.when * 1_000_000) - told))
            told = max(told, round(chunk.when * 1_000_000))
            for file, offset, length in _extents(chunk, row, sound):
                checksum = checksums[chunk.track]
                if file < 0:
                    out.write(row.prefixes[-file])
                    checksums[chunk.track] = crc32(row.prefixes[-file], checksum)
                else:
                    source = opened(file)
                    source.seek(offset)
                    checksums[chunk.track] = _copy(out, source, length, buffer, checksum)
        tell(max(0, row.length * 1_000_000 // TIMESCALE - told))
    return checksums[0], checksums[1]


@contextmanager
def _opened(files: Sequence[Path]) -> Iterator[Callable[[int], FileIO]]:
    """Yield what returns a file by its number, opened. Those that were used last stay open, a few at a time."""
    latest: dict[int, FileIO] = {}

    def file(number: int) -> FileIO:
        with present(files[number].name):
            latest[number] = latest.pop(number) if number in latest else files[number].open("rb", buffering=0)
        if len(latest) > _OPEN_AT_ONCE:
            latest.pop(next(iter(latest))).close()
        return latest[number]

    try:
        yield file
    finally:
        for one in latest.values():
            one.close()


def _copy(out: BinaryIO, file: FileIO, length: int, buffer: memoryview, checksum: int) -> int:
    """Copy ``length`` bytes of a file, and return the checksum with them."""
    while length:
        there = file.readinto(buffer[: min(length, len(buffer))])
        if not there:
            raise MediaError(f"{Path(file.name).name} has become shorter, by {length} bytes", code=Code.TRUNCATED)
        out.write(buffer[:there])
        checksum = crc32(buffer[:there], checksum)
        length -= there
    return checksum


# ---- chunks -----------------------------------------------------------------------------------------


def _picture_chunks(row: Row) -> Iterator[_Chunk]:
    for first, last in _seconds(row.decoded, TIMESCALE):
        yield _Chunk(row.decoded[first] / TIMESCALE, 0, first, last, sum(row.sizes[first:last]))


def _sound_chunks(sound: Sound | None) -> Iterator[_Chunk]:
    if sound is None:
        return
    track = sound.track
    decoded = track.decoded
    for first, last in _seconds(decoded, track.timescale):
        when = (decoded[first] - track.skipped) / track.timescale
        yield _Chunk(when, 1, first, last, sum(track.sizes[first:last]))


def _seconds(decoded: Sequence[int], timescale: int) -> Iterator[tuple[int, int]]:
    """Yield stretches of samples, first and behind the last, that are decoded within a second."""
    first = 0
    for number in range(1, len(decoded) + 1):
        if number == len(decoded) or decoded[number] - decoded[first] >= timescale:
            yield first, number
            first = number


def _extents(chunk: _Chunk, row: Row, sound: Sound | None) -> Iterator[Extent]:
    """Yield where the bytes of a chunk lie."""
    span = slice(chunk.first, chunk.last)
    if chunk.track and sound is not None:
        yield from join_extents(repeat(len(row.files)), sound.track.offsets[span], sound.track.sizes[span])
    elif len(row.prefixes) == 1:
        yield from join_extents(row.file[span], row.offsets[span], row.sizes[span])
    else:
        for number in range(chunk.first, chunk.last):
            before = row.before[number]
            if before:
                yield -before, 0, 0
            yield row.file[number], row.offsets[number], row.sizes[number] - len(row.prefixes[before])


def join_extents(files: Iterable[int], offsets: Iterable[int], sizes: Iterable[int]) -> Iterator[Extent]:
    """Yield where samples lie, as one those that follow one another in their file."""
    current, begin, end = 0, 0, 0
    for file, offset, size in zip(files, offsets, sizes, strict=False):
        if offset != end or file != current:
            yield current, begin, end - begin
            current, begin = file, offset
        end = offset + size
    yield current, begin, end - begin


# ---- the index --------------------------------------------------------------------------------------


def _index(
    row: Row, avc: Avc, sound: Sound | None, chunks: Sequence[_Chunk], base: int, seconds: int, wide: bool
) -> bytes:
    """Return the moov box for samples that begin at ``base`` of the file."""
    begins = list(accumulate((chunk.size for chunk in chunks), initial=base))
    places: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    for begin, chunk in zip(begins, chunks, strict=False):
        places[chunk.track].append((begin, chunk.last - chunk.first))
    tracks = [_picture_track(row, avc, places[0], seconds, wide)]
    length = row.length
    if sound is not None:
        tracks.append(_sound_track(sound, places[1], seconds, wide))
        length = max(length, round(sound.length_us * TIMESCALE / 1_000_000))
    rest = struct.pack(">IH10x", 0x10000, 0x100) + UPRIGHT.matrix(0, 0) + struct.pack(">24xI", len(tracks) + 1)
    movie = full_box(b"mvhd", _times(seconds, length, TIMESCALE), rest, version=1)
    return box(b"moov", movie, *tracks)


def _times(seconds: int, length: int, timescale: int) -> bytes:
    """Return creation and modification time, timescale and length, in the form of version 1."""
    return struct.pack(">QQIQ", seconds, seconds, timescale, length)


def _picture_track(row: Row, avc: Avc, places: Sequence[tuple[int, int]], seconds: int, wide: bool) -> bytes:
    durations = array("q", map(sub, islice(row.decoded, 1, None), row.decoded))
    durations.append(max(1, row.length + row.decoded[0] + row.delay - row.decoded[-1]))
    media_length = sum(durations)
    shifts = [] if row.shown is row.decoded else list(map(sub, row.shown, row.decoded))
    table = [
        full_box(b"stsd", struct.pack(">I", 1), _picture_description(avc)),
        full_box(b"stts", counted(durations)),
        *([full_box(b"ctts", counted(shifts))] if any(shifts) else []),
        full_box(b"stss", struct.pack(">I", sum(row.sync)), packed(n + 1 for n, key in enumerate(row.sync) if key)),
        *_places(row.sizes, places, wide),
    ]
    edit = (row.length, row.delay)
    shape = row.orientation.matrix(avc.width, avc.height) + struct.pack(">II", avc.width << 16, avc.height << 16)
    media = _media(b"vide", full_box(b"vmhd", bytes(8), flags=1), table, media_length, TIMESCALE, seconds)
    return _track(1, row.length, edit, shape, 0, media, seconds)


def _sound_track(sound: Sound, places: Sequence[tuple[int, int]], seconds: int, wide: bool) -> bytes:
    track = sound.track
    kind, description = track.description
    table = [
        full_box(b"stsd", struct.pack(">I", 1), box(kind, description)),
        full_box(b"stts", counted(track.durations)),
        *_places(track.sizes, places, wide),
        track.groups,
    ]
    length = round(sound.length_us * TIMESCALE / 1_000_000)
    media = _media(b"soun", full_box(b"smhd", bytes(4)), table, track.length, track.timescale, seconds)
    return _track(2, length, (length, track.skipped), UPRIGHT.matrix(0, 0) + bytes(8), 0x100, media, seconds)


def _track(
    number: int, length: int, edit: tuple[int, int], shape: bytes, volume: int, media: bytes, seconds: int
) -> bytes:
    """Return a trak box. ``edit``: how much is shown (ticks of the movie) from which tick of the media on; ``shape``: the
    display matrix, width and height."""
    head = struct.pack(">QQI4xQ8xHHH2x", seconds, seconds, number, length, 0, volume and 1, volume)
    edits = full_box(b"elst", struct.pack(">IQqI", 1, *edit, 0x10000), version=1)
    return box(b"trak", full_box(b"tkhd", head, shape, version=1, flags=3), box(b"edts", edits), media)


def _media(handler: bytes, kind: bytes, table: Sequence[bytes], length: int, timescale: int, seconds: int) -> bytes:
    name = {b"vide": b"VideoHandler\0", b"soun": b"SoundHandler\0"}[handler]
    here = box(b"dinf", full_box(b"dref", struct.pack(">I", 1), full_box(b"url ", flags=1)))
    return box(
        b"mdia",
        full_box(b"mdhd", _times(seconds, length, timescale), struct.pack(">HH", _UNDETERMINED, 0), version=1),
        full_box(b"hdlr", bytes(4), handler, bytes(12), name),
        box(b"minf", kind, here, box(b"stbl", *table)),
    )


def _picture_description(avc: Avc) -> bytes:
    fields = struct.pack(">6xH16xHHIIIH32xHh", 1, avc.width, avc.height, 0x480000, 0x480000, 0, 1, 24, -1)
    return box(b"avc1", fields, box(b"avcC", avc.config), box(b"pasp", struct.pack(">II", 1, 1)))


def _places(sizes: Sequence[int], places: Sequence[tuple[int, int]], wide: bool) -> list[bytes]:
    """Return the boxes that tell how long samples are and where chunks lie: (offset, number of samples)."""
    entries: list[tuple[int, int]] = []
    for number, (_, samples) in enumerate(places, start=1):
        if not entries or entries[-1][1] != samples:
            entries.append((number, samples))
    in_chunks = packed(value for number, samples in entries for value in (number, samples, 1))
    offsets = packed((offset for offset, _ in places), wide=wide)
    return [
        full_box(b"stsc", struct.pack(">I", len(entries)), in_chunks),
        full_box(b"stsz", struct.pack(">II", 0, len(sizes)), packed(sizes)),
        full_box(b"co64" if wide else b"stco", struct.pack(">I", len(places)), offsets),
    ]
