"""Write the muxed file: an MP4 with its index in front, video and audio interleaved in chunks of a second."""

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
from muxer.media.mp4.avc import AvcConfig
from muxer.media.mp4.boxes import build_box, build_full_box, pack_numbers, pack_runs
from muxer.media.mp4.orientation import UPRIGHT
from muxer.media.mp4.samples import TIMESCALE, SampleTable
from muxer.media.mp4.tracks import CopyableAudio
from muxer.system.files import file_present, open_private

_EPOCH_1904 = 2_082_844_800
_COPY_BYTES = 1 << 20
# A recording may have more files than a process may hold open.
_MAX_OPEN_FILES = 8
_MAX_32_BIT_SIZE = 1 << 32
_LANGUAGE_UNDETERMINED = 0x55C4
# Bytes of a file: its number (negative: that of a prefix), their offset, their count.
Extent = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Consecutive samples `first` to before `last` of a track; `when` is the first decoding time in seconds."""

    when: float
    track: int
    first: int
    last: int
    size: int


def write_movie(
    path: Path,
    table: SampleTable,
    avc: AvcConfig,
    audio: CopyableAudio | None,
    start: datetime,
    add_progress: Callable[[int], None] = lambda _: None,
) -> tuple[int, int]:
    """Write an MP4 file; return the CRC-32 of the video and of the audio samples. Raises LocalResourceError.

    `audio` None: a silent file. `start` is when it began. `add_progress` gets the microseconds since its last call.
    """
    chunks = list(merge(_video_chunks(table), _audio_chunks(audio), key=lambda chunk: chunk.when))
    files = (*table.files, *((audio.path,) if audio else ()))
    total = sum(chunk.size for chunk in chunks)
    file_type = build_box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomiso2avc1mp41")
    seconds = int(start.timestamp()) + _EPOCH_1904
    # The length of the index does not depend on the offsets in it, only on their width.
    wide = total >= _MAX_32_BIT_SIZE - (64 << 20)
    base = len(file_type) + len(_build_moov(table, avc, audio, chunks, 0, seconds, wide))
    head = struct.pack(">I4sQ", 1, b"mdat", total + 16) if wide else struct.pack(">I4s", total + 8, b"mdat")
    with open_private(path) as out, _open_files(files) as opened:
        out.write(file_type + _build_moov(table, avc, audio, chunks, base + len(head), seconds, wide) + head)
        buffer = memoryview(bytearray(_COPY_BYTES))
        reported_us = 0
        checksums = [0, 0]
        for chunk in chunks:
            add_progress(max(0, round(chunk.when * 1_000_000) - reported_us))
            reported_us = max(reported_us, round(chunk.when * 1_000_000))
            for file, offset, length in _chunk_extents(chunk, table, audio):
                checksum = checksums[chunk.track]
                if file < 0:
                    out.write(table.prefixes[-file])
                    checksums[chunk.track] = crc32(table.prefixes[-file], checksum)
                else:
                    source = opened(file)
                    source.seek(offset)
                    checksums[chunk.track] = _copy_bytes(out, source, length, buffer, checksum)
        add_progress(max(0, table.length * 1_000_000 // TIMESCALE - reported_us))
    return checksums[0], checksums[1]


@contextmanager
def _open_files(files: Sequence[Path]) -> Iterator[Callable[[int], FileIO]]:
    """Yield a function that returns the open file with a number. The last few used stay open."""
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
        for file in latest.values():
            file.close()


def _copy_bytes(out: BinaryIO, file: FileIO, length: int, buffer: memoryview, checksum: int) -> int:
    """Copy `length` bytes of a file. Returns the updated checksum."""
    while length:
        there = file.readinto(buffer[: min(length, len(buffer))])
        if not there:
            raise MediaError(
                f"{Path(file.name).name} was truncated by {length} bytes while it was read", code=Code.TRUNCATED
            )
        out.write(buffer[:there])
        checksum = crc32(buffer[:there], checksum)
        length -= there
    return checksum


def _video_chunks(table: SampleTable) -> Iterator[_Chunk]:
    for first, last in _one_second_spans(table.dts, TIMESCALE):
        yield _Chunk(table.dts[first] / TIMESCALE, 0, first, last, sum(table.sizes[first:last]))


def _audio_chunks(audio: CopyableAudio | None) -> Iterator[_Chunk]:
    if audio is None:
        return
    track = audio.track
    decoded = track.decode_times
    for first, last in _one_second_spans(decoded, track.timescale):
        when = (decoded[first] - track.skipped) / track.timescale
        yield _Chunk(when, 1, first, last, sum(track.sizes[first:last]))


def _one_second_spans(decoded: Sequence[int], timescale: int) -> Iterator[tuple[int, int]]:
    """Yield spans of samples (first, last + 1) that are decoded within a second."""
    first = 0
    for number in range(1, len(decoded) + 1):
        if number == len(decoded) or decoded[number] - decoded[first] >= timescale:
            yield first, number
            first = number


def _chunk_extents(chunk: _Chunk, table: SampleTable, audio: CopyableAudio | None) -> Iterator[Extent]:
    span = slice(chunk.first, chunk.last)
    if chunk.track and audio is not None:
        yield from join_extents(repeat(len(table.files)), audio.track.offsets[span], audio.track.sizes[span])
    elif len(table.prefixes) == 1:
        yield from join_extents(table.file[span], table.offsets[span], table.sizes[span])
    else:
        for number in range(chunk.first, chunk.last):
            prefix = table.prefix[number]
            if prefix:
                yield -prefix, 0, 0
            yield table.file[number], table.offsets[number], table.sizes[number] - len(table.prefixes[prefix])


def join_extents(files: Iterable[int], offsets: Iterable[int], sizes: Iterable[int]) -> Iterator[Extent]:
    """Yield the extents of samples; those that follow one another in their file are joined."""
    current, begin, end = 0, 0, 0
    for file, offset, size in zip(files, offsets, sizes, strict=False):
        if offset != end or file != current:
            yield current, begin, end - begin
            current, begin = file, offset
        end = offset + size
    yield current, begin, end - begin


def _build_moov(
    table: SampleTable,
    avc: AvcConfig,
    audio: CopyableAudio | None,
    chunks: Sequence[_Chunk],
    base: int,
    seconds: int,
    wide: bool,
) -> bytes:
    """Return the moov box for samples that start at the offset `base` of the file."""
    offsets = list(accumulate((chunk.size for chunk in chunks), initial=base))
    locations: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    for begin, chunk in zip(offsets, chunks, strict=False):
        locations[chunk.track].append((begin, chunk.last - chunk.first))
    tracks = [_build_video_track(table, avc, locations[0], seconds, wide)]
    length = table.length
    if audio is not None:
        tracks.append(_build_audio_track(audio, locations[1], seconds, wide))
        length = max(length, round(audio.length_us * TIMESCALE / 1_000_000))
    other_fields = struct.pack(">IH10x", 0x10000, 0x100) + UPRIGHT.to_matrix(0, 0) + struct.pack(">24xI", len(tracks) + 1)
    movie = build_full_box(b"mvhd", _time_fields(seconds, length, TIMESCALE), other_fields, version=1)
    return build_box(b"moov", movie, *tracks)


def _time_fields(seconds: int, length: int, timescale: int) -> bytes:
    """Return creation and modification time, time scale and duration, as in version 1."""
    return struct.pack(">QQIQ", seconds, seconds, timescale, length)


def _build_video_track(
    table: SampleTable, avc: AvcConfig, locations: Sequence[tuple[int, int]], seconds: int, wide: bool
) -> bytes:
    durations = array("q", map(sub, islice(table.dts, 1, None), table.dts))
    durations.append(max(1, table.length + table.dts[0] + table.start_delay - table.dts[-1]))
    media_length = sum(durations)
    shifts = [] if table.pts is table.dts else list(map(sub, table.pts, table.dts))
    boxes = [
        build_full_box(b"stsd", struct.pack(">I", 1), _video_description(avc)),
        build_full_box(b"stts", pack_runs(durations)),
        *([build_full_box(b"ctts", pack_runs(shifts))] if any(shifts) else []),
        build_full_box(
            b"stss", struct.pack(">I", sum(table.sync)), pack_numbers(n + 1 for n, key in enumerate(table.sync) if key)
        ),
        *_sample_location_boxes(table.sizes, locations, wide),
    ]
    edit = (table.length, table.start_delay)
    shape = table.orientation.to_matrix(avc.width, avc.height) + struct.pack(">II", avc.width << 16, avc.height << 16)
    media = _build_media(b"vide", build_full_box(b"vmhd", bytes(8), flags=1), boxes, media_length, TIMESCALE, seconds)
    return _build_trak(1, table.length, edit, shape, 0, media, seconds)


def _build_audio_track(audio: CopyableAudio, locations: Sequence[tuple[int, int]], seconds: int, wide: bool) -> bytes:
    track = audio.track
    kind, description = track.description
    table = [
        build_full_box(b"stsd", struct.pack(">I", 1), build_box(kind, description)),
        build_full_box(b"stts", pack_runs(track.durations)),
        *_sample_location_boxes(track.sizes, locations, wide),
        track.groups,
    ]
    length = round(audio.length_us * TIMESCALE / 1_000_000)
    media = _build_media(b"soun", build_full_box(b"smhd", bytes(4)), table, track.total_ticks, track.timescale, seconds)
    return _build_trak(2, length, (length, track.skipped), UPRIGHT.to_matrix(0, 0) + bytes(8), 0x100, media, seconds)


def _build_trak(
    number: int, length: int, edit: tuple[int, int], shape: bytes, volume: int, media: bytes, seconds: int
) -> bytes:
    """Return a trak box. `edit` are movie ticks shown, from a media tick on; `shape` is matrix, width, height."""
    head = struct.pack(">QQI4xQ8xHHH2x", seconds, seconds, number, length, 0, volume and 1, volume)
    edits = build_full_box(b"elst", struct.pack(">IQqI", 1, *edit, 0x10000), version=1)
    return build_box(b"trak", build_full_box(b"tkhd", head, shape, version=1, flags=3), build_box(b"edts", edits), media)


def _build_media(handler: bytes, kind: bytes, table: Sequence[bytes], length: int, timescale: int, seconds: int) -> bytes:
    name = {b"vide": b"VideoHandler\0", b"soun": b"SoundHandler\0"}[handler]
    data_info = build_box(b"dinf", build_full_box(b"dref", struct.pack(">I", 1), build_full_box(b"url ", flags=1)))
    return build_box(
        b"mdia",
        build_full_box(
            b"mdhd", _time_fields(seconds, length, timescale), struct.pack(">HH", _LANGUAGE_UNDETERMINED, 0), version=1
        ),
        build_full_box(b"hdlr", bytes(4), handler, bytes(12), name),
        build_box(b"minf", kind, data_info, build_box(b"stbl", *table)),
    )


def _video_description(avc: AvcConfig) -> bytes:
    fields = struct.pack(">6xH16xHHIIIH32xHh", 1, avc.width, avc.height, 0x480000, 0x480000, 0, 1, 24, -1)
    return build_box(b"avc1", fields, build_box(b"avcC", avc.config), build_box(b"pasp", struct.pack(">II", 1, 1)))


def _sample_location_boxes(sizes: Sequence[int], locations: Sequence[tuple[int, int]], wide: bool) -> list[bytes]:
    """Return the boxes of sample sizes and chunks. `locations` are the offset and the number of samples of each chunk."""
    entries: list[tuple[int, int]] = []
    for number, (_, samples) in enumerate(locations, start=1):
        if not entries or entries[-1][1] != samples:
            entries.append((number, samples))
    in_chunks = pack_numbers(value for number, samples in entries for value in (number, samples, 1))
    offsets = pack_numbers((offset for offset, _ in locations), wide=wide)
    return [
        build_full_box(b"stsc", struct.pack(">I", len(entries)), in_chunks),
        build_full_box(b"stsz", struct.pack(">II", 0, len(sizes)), pack_numbers(sizes)),
        build_full_box(b"co64" if wide else b"stco", struct.pack(">I", len(locations)), offsets),
    ]
