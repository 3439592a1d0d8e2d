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
from muxer.media.compose import TIMESCALE, SampleTable
from muxer.media.mp4.avc import AvcConfig
from muxer.media.mp4.boxes import build_box, build_full_box, pack_numbers, pack_runs
from muxer.media.orientation import UPRIGHT
from muxer.media.plain import CopyableAudio
from muxer.system.files import file_present, open_private

_EPOCH_1904 = 2_082_844_800
_COPY_BYTES = 1 << 20
# A recording may have more files than a process may hold open.
_MAX_OPEN_FILES = 8
_MAX_32_BIT_SIZE = 1 << 32
_LANGUAGE_UNDETERMINED = 0x55C4
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
    row: SampleTable,
    avc: AvcConfig,
    sound: CopyableAudio | None,
    start: datetime,
    tell: Callable[[int], None] = lambda _: None,
) -> tuple[int, int]:
    """Write the MP4 file; return the checksums (CRC-32) of the bytes of its video and audio samples in order, as they were
    read from the sources.

    ``row`` are the samples of the video, ``avc`` how they are coded, ``sound`` the audio (None = a silent file), ``start``
    when it began; ``tell`` is called with how many more microseconds are written. Raises
    :class:`~muxer.errors.LocalResourceError` when the disk is full.
    """
    chunks = list(merge(_video_chunks(row), _audio_chunks(sound), key=lambda chunk: chunk.when))
    files = (*row.files, *((sound.path,) if sound else ()))
    total = sum(chunk.size for chunk in chunks)
    kind = build_box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomiso2avc1mp41")
    seconds = int(start.timestamp()) + _EPOCH_1904
    # The index is as long with right offsets as with any others of the same width.
    wide = total >= _MAX_32_BIT_SIZE - (64 << 20)
    base = len(kind) + len(_build_moov(row, avc, sound, chunks, 0, seconds, wide))
    head = struct.pack(">I4sQ", 1, b"mdat", total + 16) if wide else struct.pack(">I4s", total + 8, b"mdat")
    with open_private(path) as out, _open_files(files) as opened:
        out.write(kind + _build_moov(row, avc, sound, chunks, base + len(head), seconds, wide) + head)
        buffer = memoryview(bytearray(_COPY_BYTES))
        told = 0
        checksums = [0, 0]
        for chunk in chunks:
            tell(max(0, round(chunk.when * 1_000_000) - told))
            told = max(told, round(chunk.when * 1_000_000))
            for file, offset, length in _chunk_extents(chunk, row, sound):
                checksum = checksums[chunk.track]
                if file < 0:
                    out.write(row.prefixes[-file])
                    checksums[chunk.track] = crc32(row.prefixes[-file], checksum)
                else:
                    source = opened(file)
                    source.seek(offset)
                    checksums[chunk.track] = _copy_bytes(out, source, length, buffer, checksum)
        tell(max(0, row.length * 1_000_000 // TIMESCALE - told))
    return checksums[0], checksums[1]


@contextmanager
def _open_files(files: Sequence[Path]) -> Iterator[Callable[[int], FileIO]]:
    """Yield what returns a file by its number, opened. Those that were used last stay open, a few at a time."""
    latest: dict[int, FileIO] = {}

    def open_file(number: int) -> FileIO:
        with file_present(files[number].name):
            latest[number] = latest.pop(number) if number in latest else files[number].open("rb", buffering=0)
        if len(latest) > _MAX_OPEN_FILES:
            latest.pop(next(iter(latest))).close()
        return latest[number]

    try:
        yield open_file
    finally:
        for one in latest.values():
            one.close()


def _copy_bytes(out: BinaryIO, file: FileIO, length: int, buffer: memoryview, checksum: int) -> int:
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


def _video_chunks(row: SampleTable) -> Iterator[_Chunk]:
    for first, last in _one_second_spans(row.dts, TIMESCALE):
        yield _Chunk(row.dts[first] / TIMESCALE, 0, first, last, sum(row.sizes[first:last]))


def _audio_chunks(sound: CopyableAudio | None) -> Iterator[_Chunk]:
    if sound is None:
        return
    track = sound.track
    decoded = track.decode_times
    for first, last in _one_second_spans(decoded, track.timescale):
        when = (decoded[first] - track.skipped) / track.timescale
        yield _Chunk(when, 1, first, last, sum(track.sizes[first:last]))


def _one_second_spans(decoded: Sequence[int], timescale: int) -> Iterator[tuple[int, int]]:
    """Yield stretches of samples, first and behind the last, that are decoded within a second."""
    first = 0
    for number in range(1, len(decoded) + 1):
        if number == len(decoded) or decoded[number] - decoded[first] >= timescale:
            yield first, number
            first = number


def _chunk_extents(chunk: _Chunk, row: SampleTable, sound: CopyableAudio | None) -> Iterator[Extent]:
    """Yield where the bytes of a chunk lie."""
    span = slice(chunk.first, chunk.last)
    if chunk.track and sound is not None:
        yield from join_extents(repeat(len(row.files)), sound.track.offsets[span], sound.track.sizes[span])
    elif len(row.prefixes) == 1:
        yield from join_extents(row.file[span], row.offsets[span], row.sizes[span])
    else:
        for number in range(chunk.first, chunk.last):
            before = row.prefix[number]
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


def _build_moov(
    row: SampleTable,
    avc: AvcConfig,
    sound: CopyableAudio | None,
    chunks: Sequence[_Chunk],
    base: int,
    seconds: int,
    wide: bool,
) -> bytes:
    """Return the moov box for samples that begin at ``base`` of the file."""
    begins = list(accumulate((chunk.size for chunk in chunks), initial=base))
    places: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    for begin, chunk in zip(begins, chunks, strict=False):
        places[chunk.track].append((begin, chunk.last - chunk.first))
    tracks = [_build_video_track(row, avc, places[0], seconds, wide)]
    length = row.length
    if sound is not None:
        tracks.append(_build_audio_track(sound, places[1], seconds, wide))
        length = max(length, round(sound.length_us * TIMESCALE / 1_000_000))
    rest = struct.pack(">IH10x", 0x10000, 0x100) + UPRIGHT.to_matrix(0, 0) + struct.pack(">24xI", len(tracks) + 1)
    movie = build_full_box(b"mvhd", _time_fields(seconds, length, TIMESCALE), rest, version=1)
    return build_box(b"moov", movie, *tracks)


def _time_fields(seconds: int, length: int, timescale: int) -> bytes:
    """Return creation and modification time, timescale and length, in the form of version 1."""
    return struct.pack(">QQIQ", seconds, seconds, timescale, length)


def _build_video_track(
    row: SampleTable, avc: AvcConfig, places: Sequence[tuple[int, int]], seconds: int, wide: bool
) -> bytes:
    durations = array("q", map(sub, islice(row.dts, 1, None), row.dts))
    durations.append(max(1, row.length + row.dts[0] + row.start_delay - row.dts[-1]))
    media_length = sum(durations)
    shifts = [] if row.pts is row.dts else list(map(sub, row.pts, row.dts))
    table = [
        build_full_box(b"stsd", struct.pack(">I", 1), _video_description(avc)),
        build_full_box(b"stts", pack_runs(durations)),
        *([build_full_box(b"ctts", pack_runs(shifts))] if any(shifts) else []),
        build_full_box(
            b"stss", struct.pack(">I", sum(row.sync)), pack_numbers(n + 1 for n, key in enumerate(row.sync) if key)
        ),
        *_sample_location_boxes(row.sizes, places, wide),
    ]
    edit = (row.length, row.start_delay)
    shape = row.orientation.to_matrix(avc.width, avc.height) + struct.pack(">II", avc.width << 16, avc.height << 16)
    media = _build_media(b"vide", build_full_box(b"vmhd", bytes(8), flags=1), table, media_length, TIMESCALE, seconds)
    return _build_trak(1, row.length, edit, shape, 0, media, seconds)


def _build_audio_track(sound: CopyableAudio, places: Sequence[tuple[int, int]], seconds: int, wide: bool) -> bytes:
    track = sound.track
    kind, description = track.description
    table = [
        build_full_box(b"stsd", struct.pack(">I", 1), build_box(kind, description)),
        build_full_box(b"stts", pack_runs(track.durations)),
        *_sample_location_boxes(track.sizes, places, wide),
        track.groups,
    ]
    length = round(sound.length_us * TIMESCALE / 1_000_000)
    media = _build_media(b"soun", build_full_box(b"smhd", bytes(4)), table, track.total_ticks, track.timescale, seconds)
    return _build_trak(2, length, (length, track.skipped), UPRIGHT.to_matrix(0, 0) + bytes(8), 0x100, media, seconds)


def _build_trak(
    number: int, length: int, edit: tuple[int, int], shape: bytes, volume: int, media: bytes, seconds: int
) -> bytes:
    """Return a trak box. ``edit``: how much is shown (ticks of the movie) from which tick of the media on; ``shape``: the
    display matrix, width and height."""
    head = struct.pack(">QQI4xQ8xHHH2x", seconds, seconds, number, length, 0, volume and 1, volume)
    edits = build_full_box(b"elst", struct.pack(">IQqI", 1, *edit, 0x10000), version=1)
    return build_box(b"trak", build_full_box(b"tkhd", head, shape, version=1, flags=3), build_box(b"edts", edits), media)


def _build_media(handler: bytes, kind: bytes, table: Sequence[bytes], length: int, timescale: int, seconds: int) -> bytes:
    name = {b"vide": b"VideoHandler\0", b"soun": b"SoundHandler\0"}[handler]
    here = build_box(b"dinf", build_full_box(b"dref", struct.pack(">I", 1), build_full_box(b"url ", flags=1)))
    return build_box(
        b"mdia",
        build_full_box(
            b"mdhd", _time_fields(seconds, length, timescale), struct.pack(">HH", _LANGUAGE_UNDETERMINED, 0), version=1
        ),
        build_full_box(b"hdlr", bytes(4), handler, bytes(12), name),
        build_box(b"minf", kind, here, build_box(b"stbl", *table)),
    )


def _video_description(avc: AvcConfig) -> bytes:
    fields = struct.pack(">6xH16xHHIIIH32xHh", 1, avc.width, avc.height, 0x480000, 0x480000, 0, 1, 24, -1)
    return build_box(b"avc1", fields, build_box(b"avcC", avc.config), build_box(b"pasp", struct.pack(">II", 1, 1)))


def _sample_location_boxes(sizes: Sequence[int], places: Sequence[tuple[int, int]], wide: bool) -> list[bytes]:
    """Return the boxes that tell how long samples are and where chunks lie: (offset, number of samples)."""
    entries: list[tuple[int, int]] = []
    for number, (_, samples) in enumerate(places, start=1):
        if not entries or entries[-1][1] != samples:
            entries.append((number, samples))
    in_chunks = pack_numbers(value for number, samples in entries for value in (number, samples, 1))
    offsets = pack_numbers((offset for offset, _ in places), wide=wide)
    return [
        build_full_box(b"stsc", struct.pack(">I", len(entries)), in_chunks),
        build_full_box(b"stsz", struct.pack(">II", 0, len(sizes)), pack_numbers(sizes)),
        build_full_box(b"co64" if wide else b"stco", struct.pack(">I", len(places)), offsets),
    ]
