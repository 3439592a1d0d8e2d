"""Read the tracks of an MP4 file: where each sample is, and when it is decoded and shown (ISO/IEC 14496-12).

Not fragmented, one sample description, an edit list that only shifts, pauses or cuts off the end. ffmpeg converts others.
"""

from __future__ import annotations

import struct
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, chain, pairwise, repeat
from math import ceil, floor
from pathlib import Path
from typing import BinaryIO

from muxer.errors import Code, MediaError
from muxer.media import limits
from muxer.media.mp4 import boxes
from muxer.media.mp4.boxes import BoxError
from muxer.media.mp4.orientation import UPRIGHT, Orientation, matrix_numbers, read_orientation

# The index of a recording of many hours has about ten megabytes.
MAX_INDEX_BYTES = 256 * 1024 * 1024
_SIGN_BIT = 1 << 31
_MAX_TICKS = 1 << 56
# A size in whole pixels that differs from the exact one by less than this share is a rounded one.
_MAX_ROUNDED_SHAPE = 0.01
# The media time of an empty edit.
_EMPTY_EDIT = -1
# Edit lists count in milliseconds; this fraction of a second is ignored.
_EDIT_LIST_ROUNDING = 500
# Audio that starts later than this fraction of a second has a gap.
_LATE_START_DIVISOR = 20
# Lossy audio ends at a packet border; no packet of a playable codec is longer.
MAX_PACKET_US = 150_000


@dataclass(frozen=True)
class EditPause:
    """A pause in an edit list: samples at the media time `at` or later are shown `length` ticks later."""

    at: int
    length: int


@dataclass(frozen=True)
class Track:
    """One track. Times are ticks of `timescale`; samples are in decoding order.

    `description` is kind and content of the sample entry. `shifts` are presentation minus decoding times. `skipped` is cut
    off at the beginning, `delay` is how much later than the movie the track starts, `shown` how much is shown (0: all).
    `sync` are the samples at which decoding can start, None for all. `is_stretched`: video is shown in another shape
    than its frames have.
    """

    handler: bytes
    timescale: int
    description: tuple[bytes, bytes]
    durations: array[int]
    shifts: array[int] | None
    sizes: array[int]
    offsets: array[int]
    sync: array[int] | None
    skipped: int
    delay: int
    shown: int
    groups: bytes
    pauses: tuple[EditPause, ...] = ()
    orientation: Orientation = UPRIGHT
    is_stretched: bool = False

    @property
    def decode_times(self) -> array[int]:
        """When each sample is decoded, in ticks."""
        return array("q", chain((0,), accumulate(self.durations[:-1])))

    @property
    def total_ticks(self) -> int:
        """The sum of all durations, in ticks."""
        return sum(self.durations)


@dataclass(frozen=True)
class CopyableAudio:
    """An audio track that can be copied; `codec` as in ffmpeg, `padding` ticks at the end are not audio."""

    path: Path
    track: Track
    codec: str
    padding: int = 0

    @property
    def length_us(self) -> int:
        """The duration when it is played, in microseconds."""
        track = self.track
        available = track.total_ticks - track.skipped - self.padding
        is_cut = track.shown and available - track.shown > track.timescale // _EDIT_LIST_ROUNDING
        return round(Fraction((track.shown if is_cut else available) * 1_000_000, track.timescale))

    @property
    def has_gaps(self) -> bool:
        """Whether a sample is much longer than most, or the first one starts late: playback is undefined then."""
        if self.track.delay * _LATE_START_DIVISOR > self.track.timescale:
            return True
        durations = self.track.durations[:-1]
        if not durations:
            return False
        [(usual, _)] = Counter(durations).most_common(1)
        return max(durations) > usual * 3 // 2


def read_tracks(path: Path) -> list[Track]:
    """Return the tracks of the MP4 file at `path`. Raises BoxError when it is not accepted, MediaError when truncated."""
    with path.open("rb") as file:
        index, end = _read_index(file)
    body = memoryview(index)
    if boxes.find_child(body, b"mvex") is not None:
        raise BoxError("the file is fragmented")
    movie = boxes.require_child(body, b"mvhd")
    scale = boxes.read_number(movie, 20 if boxes.read_number(movie, 0, 1) else 12, 4)
    if _read_matrix(movie, 48 if boxes.read_number(movie, 0, 1) else 36) != UPRIGHT:
        raise BoxError("the whole movie is turned")
    return [_read_track(inner, scale, end) for kind, inner in boxes.iterate_children(body) if kind == b"trak"]


def starts_with_index(path: Path) -> bool:
    """Return whether the index of a file is in front of its media. Raises BoxError."""
    with path.open("rb") as file:
        kinds = (kind for kind, *_ in _top_boxes(file) if kind in (b"moov", b"mdat"))
        return next(kinds, b"") == b"moov"


def read_index_boxes(path: Path) -> list[tuple[bytes, bytes]]:
    """Return kind and content of the boxes ftyp, if it is the first one, and moov. Raises BoxError, MediaError."""
    with path.open("rb") as file:
        kind, position, skip, size = next(_top_boxes(file), (b"", 0, 0, 0))
        file.seek(position + skip)
        first = [(kind, file.read(size - skip))] if kind == b"ftyp" and size < MAX_INDEX_BYTES else []
        return [*first, (b"moov", _read_index(file)[0])]


def _top_boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int, int]]:
    """Yield kind, position, header length and size of the boxes that are not in others."""
    end, position = file.seek(0, 2), 0
    for _ in range(boxes.MAX_CHILDREN):
        if position >= end:
            return
        file.seek(position)
        kind, skip, size = boxes.parse_header(file.read(boxes.LARGE_HEADER_BYTES))
        size = size or end - position
        yield kind, position, skip, size
        position += size


def _read_index(file: BinaryIO) -> tuple[bytes, int]:
    """Return the content of the moov box, and the file's length."""
    end = file.seek(0, 2)
    for kind, position, skip, size in _top_boxes(file):
        if not position and kind not in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
            raise BoxError("the file does not begin as an MP4 file")
        if kind == b"moov":
            if size > MAX_INDEX_BYTES or position + size > end:
                raise BoxError("the index is too long or truncated")
            file.seek(position + skip)
            return file.read(size - skip), end
    raise BoxError("the file has no index")


def _read_track(body: memoryview, movie_scale: int, end: int) -> Track:
    media = boxes.require_child(body, b"mdia")
    times = boxes.require_child(media, b"mdhd")
    timescale = boxes.read_number(times, 20 if boxes.read_number(times, 0, 1) else 12, 4)
    table = boxes.require_child(media, b"minf", b"stbl")
    sizes = _read_sizes(boxes.require_child(table, b"stsz"), end)
    count, offsets = len(sizes), _sample_offsets(table, sizes)
    # First: ffprobe cannot distinguish a truncated file from one that hides frames.
    _check_complete(offsets, sizes, end)
    durations = _expand_runs(boxes.require_child(table, b"stts"), count)
    if max(durations, default=0) >= _SIGN_BIT:
        raise BoxError("the duration of a sample is negative")
    shifts = boxes.find_child(table, b"ctts")
    sync = boxes.find_child(table, b"stss")
    if not timescale or not movie_scale or len(durations) != count:
        raise BoxError("the tables of a track do not fit one another")
    edits = _read_edits(boxes.find_child(body, b"edts", b"elst"), Fraction(timescale, movie_scale))
    header, description = boxes.require_child(body, b"tkhd"), _read_description(boxes.require_child(table, b"stsd"))
    return Track(
        handler=bytes(boxes.require_child(media, b"hdlr")[8:12]),
        timescale=timescale,
        description=description,
        durations=durations,
        shifts=None if shifts is None else _read_shifts(shifts, count),
        sizes=sizes,
        offsets=offsets,
        sync=None if sync is None else _read_sync(sync, count),
        skipped=edits.skipped,
        delay=edits.delay,
        shown=edits.shown,
        groups=_group_boxes(table),
        pauses=edits.pauses,
        orientation=_read_matrix(header, 52 if boxes.read_number(header, 0, 1) else 40),
        is_stretched=_is_stretched(header, description[1]),
    )


def _read_matrix(header: memoryview, at: int) -> Orientation:
    return read_orientation(matrix_numbers(bytes(header[at : at + 36]))) if len(header) >= at + 36 else UPRIGHT


def _is_stretched(header: memoryview, entry: bytes) -> bool:
    """Whether the shown shape of a video track is another than that of its frames, by more than a rounded size."""
    at = 88 if boxes.read_number(header, 0, 1) else 76
    if len(header) < at + 8 or len(entry) < 28:
        return False
    width, height = (boxes.read_number(header, at + 4 * side, 4) / 0x10000 for side in (0, 1))
    coded_width, coded_height = struct.unpack(">HH", entry[24:28])
    if not width * height * coded_width * coded_height:
        return False
    return abs(float(width * coded_height / (height * coded_width)) - 1) > _MAX_ROUNDED_SHAPE


def _read_description(body: memoryview) -> tuple[bytes, bytes]:
    if boxes.read_number(body, 4, 4) != 1:
        raise BoxError("a track has more than one sample description")
    kind, content = next(boxes.iterate_children(body[8:]), (b"", memoryview(b"")))
    return kind, bytes(content)


def _read_sizes(body: memoryview, end: int) -> array[int]:
    """Return the size of each sample. A few bytes can claim any number of samples, so it is compared with the file."""
    size, count = boxes.read_number(body, 4, 4), boxes.read_number(body, 8, 4)
    if size and (count > limits.MAX_FRAMES or size * count > end):
        raise BoxError("a track has many samples of one size, as uncompressed audio has, or a wrong number")
    limits.check_frames(count)
    return array("I", [size]) * count if size else boxes.read_numbers(body, 12, count)


def _expand_runs(body: memoryview, max_count: int) -> array[int]:
    """Return the values of a run-length table. Raises BoxError when there are more than `max_count`."""
    runs = boxes.read_numbers(body, 8, 2 * boxes.read_number(body, 4, 4))
    values = array("I")
    for count, value in zip(runs[::2], runs[1::2], strict=True):
        if count > max_count - len(values):
            raise BoxError("a table of runs is longer than its track")
        values.extend(array("I", [value]) * count)
    return values


def _read_shifts(body: memoryview, count: int) -> array[int]:
    shifts = _expand_runs(body, count)
    if len(shifts) != count:
        raise BoxError("the table of shifts is shorter than its track")
    return array("q", (shift - 2 * _SIGN_BIT if shift >= _SIGN_BIT else shift for shift in shifts))


def _read_sync(body: memoryview, count: int) -> array[int]:
    sync = array("q", (number - 1 for number in boxes.read_numbers(body, 8, boxes.read_number(body, 4, 4))))
    if any(not 0 <= number < count for number in sync):
        raise BoxError("a sync sample is outside its track")
    return sync


def last_sample_end(track: memoryview) -> int:
    """Return where the last sample of a trak box ends in the file; 0 when it has none. Raises BoxError."""
    table = boxes.require_child(track, b"mdia", b"minf", b"stbl")
    body = boxes.require_child(table, b"stsz")
    size, count = boxes.read_number(body, 4, 4), boxes.read_number(body, 8, 4)
    if not count:
        return 0
    sizes = array("I") if size else boxes.read_numbers(body, 12, count)
    chunks = _chunk_offsets(table)
    last = sample = 0
    for chunk, samples in zip(chunks, _samples_in_chunks(boxes.require_child(table, b"stsc"), len(chunks)), strict=True):
        samples = min(samples, count - sample)
        if samples:
            last = max(last, chunk + (size * samples if size else sum(sizes[sample : sample + samples])))
        sample += samples
    return last


def _chunk_offsets(table: memoryview) -> array[int]:
    wide = boxes.find_child(table, b"co64")
    found = wide if wide is not None else boxes.require_child(table, b"stco")
    chunks = boxes.read_numbers(found, 8, boxes.read_number(found, 4, 4), wide=wide is not None)
    if max(chunks, default=0) > _MAX_TICKS:
        raise BoxError("a chunk is outside of any file")
    return chunks


def _sample_offsets(table: memoryview, sizes: array[int]) -> array[int]:
    chunks = _chunk_offsets(table)
    offsets = array("q")
    sample = 0
    for chunk, samples in zip(chunks, _samples_in_chunks(boxes.require_child(table, b"stsc"), len(chunks)), strict=True):
        chunk_sizes = sizes[sample : sample + samples]
        offsets.extend(accumulate(chunk_sizes[:-1], initial=chunk) if chunk_sizes else ())
        sample += samples
    if len(offsets) != len(sizes):
        raise BoxError("the chunks of a track do not contain all of its samples")
    return offsets


def _samples_in_chunks(body: memoryview, chunks: int) -> Iterator[int]:
    entries = boxes.read_numbers(body, 8, 3 * boxes.read_number(body, 4, 4))
    firsts = [number - 1 for number in entries[::3]]
    bounds = [*firsts, chunks]
    if not firsts or bounds[0] or any(first >= following for first, following in pairwise(bounds)):
        raise BoxError("the table of chunks is broken")
    for (first, following), samples in zip(pairwise(bounds), entries[1::3], strict=True):
        yield from repeat(samples, following - first)


@dataclass(frozen=True)
class _EditList:
    """The content of an edit list, in ticks of the track; `shown` is 0 when the whole track is shown."""

    delay: int = 0
    skipped: int = 0
    shown: int = 0
    pauses: tuple[EditPause, ...] = ()


def _read_edits(body: memoryview | None, ticks: Fraction) -> _EditList:
    """Read an edit list; `ticks` of the track are one of the movie. Raises BoxError when it does anything else."""
    if body is None:
        return _EditList()
    entries = _edit_entries(body)
    delay = 0
    while entries and entries[0][1] == _EMPTY_EDIT:
        delay += entries.pop(0)[0]
    if not entries:
        return _EditList(_to_whole_ticks(delay * ticks))
    skipped = position = Fraction(entries[0][1])
    pauses: list[EditPause] = []
    for length, begin, rate in entries:
        # Durations are whole ticks of the movie, which may be much coarser than those of the track.
        if begin != _EMPTY_EDIT and abs(begin - position) > 2 * max(ticks, Fraction(1)):
            raise BoxError("an edit list rearranges the track")
        if begin == _EMPTY_EDIT or not rate:
            # A dwell holds the frame at its time; an empty edit precedes the next frame.
            at = ceil(position - ticks) if begin == _EMPTY_EDIT else floor(begin + ticks) + 1
            pauses.append(EditPause(_to_whole_ticks(max(at, 0)), _to_whole_ticks(length * ticks)))
        else:
            position = begin + length * ticks
    shown = 0 if len(entries) == 1 and not entries[0][0] else _to_whole_ticks(position - skipped)
    return _EditList(_to_whole_ticks(delay * ticks), _to_whole_ticks(skipped), shown, tuple(pauses))


def _edit_entries(body: memoryview) -> list[tuple[int, int, int]]:
    """Return the entries of an edit list: duration (movie ticks), media time (track ticks), rate (0 or 1)."""
    wide, count = bool(boxes.read_number(body, 0, 1)), boxes.read_number(body, 4, 4)
    width = 8 if wide else 4
    if count * (2 * width + 4) > len(body):
        raise BoxError("an edit list is shorter than it states")
    entries = []
    for at in range(8, 8 + count * (2 * width + 4), 2 * width + 4):
        sign = 1 << (8 * width - 1)
        begin, rate = boxes.read_number(body, at + width, width), boxes.read_number(body, at + 2 * width, 4)
        begin = begin - 2 * sign if begin >= sign else begin
        if begin < _EMPTY_EDIT or rate not in (0, 0x10000):
            raise BoxError("an edit list changes the speed, or starts before the track")
        entries.append((boxes.read_number(body, at, width), begin, rate >> 16))
    return entries


def _to_whole_ticks(number: Fraction | int) -> int:
    """Return a number of an edit list as whole ticks. Raises BoxError when it is too large."""
    if number > _MAX_TICKS:
        raise BoxError("an edit list contains too large a number")
    return int(number)


def _group_boxes(table: memoryview) -> bytes:
    """Return the sample group boxes unchanged: decoders need the roll distance."""
    groups = ((kind, inner) for kind, inner in boxes.iterate_children(table) if kind in (b"sgpd", b"sbgp"))
    return b"".join(boxes.build_box(kind, bytes(inner)) for kind, inner in groups)


def _check_complete(offsets: array[int], sizes: array[int], end: int) -> None:
    if max(map(int.__add__, offsets, sizes), default=0) > end:
        there = sum(offset + size <= end for offset, size in zip(offsets, sizes, strict=True))
        raise MediaError(f"the file is truncated: it contains {there} of {len(sizes)} frames", code=Code.TRUNCATED)
