"""Reads the tracks of a plain MP4 file: where each sample lies, and when it is decoded and shown (ISO/IEC 14496-12).

Plain: not fragmented, one sample description, an edit list that at most shifts the whole track. Whatever else there is, is
left to ffmpeg, which can turn it into a plain file.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise, repeat
from pathlib import Path
from typing import BinaryIO

from muxer.errors import Code, MediaError
from muxer.media import boxes, limits
from muxer.media.boxes import BoxError

# The index of a recording of many hours has some ten megabytes.
MOST_INDEX_BYTES = 256 * 1024 * 1024
_SIGN = 1 << 31
_MOST_TICKS = 1 << 56


@dataclass(frozen=True)
class Track:
    """One track. Times are ticks of ``timescale``; samples stand in the order in which they are decoded.

    ``description`` is the kind and the content of its sample description. ``skipped`` is how much of the track is cut off
    at its beginning, ``delay`` how much later than the movie it begins, ``shown`` how much of it is shown (0 = all).
    ``sync`` are the samples at which decoding may begin, None for all. ``groups`` are its boxes about groups of samples.
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

    @property
    def decoded(self) -> array[int]:
        """When each sample is decoded, in ticks."""
        return array("q", chain((0,), accumulate(self.durations[:-1])))

    @property
    def length(self) -> int:
        """The sum of all durations, in ticks."""
        return sum(self.durations)


def read_tracks(path: Path) -> list[Track]:
    """Given a path, return the tracks of the MP4 file there.

    Raise :class:`BoxError` when it is no plain MP4 file, :class:`~muxer.errors.MediaError` when it is one that is truncated.
    """
    with path.open("rb") as file:
        index, end = _index(file)
    body = memoryview(index)
    if boxes.child(body, b"mvex") is not None:
        raise BoxError("the file is fragmented")
    movie = boxes.need(body, b"mvhd")
    scale = boxes.number(movie, 20 if boxes.number(movie, 0, 1) else 12, 4)
    return [_track(inner, scale, end) for kind, inner in boxes.children(body) if kind == b"trak"]


def _index(file: BinaryIO) -> tuple[bytes, int]:
    """Return the content of the file's moov box, and the file's length."""
    end = file.seek(0, 2)
    position, first = 0, True
    for _ in range(boxes.MOST_CHILDREN):
        if position >= end:
            break
        file.seek(position)
        kind, skip, size = boxes.header(file.read(boxes.LARGE_HEADER))
        if first and kind not in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
            raise BoxError("the file does not begin as an MP4 file")
        size = size or end - position
        if kind == b"moov":
            if size > MOST_INDEX_BYTES or position + size > end:
                raise BoxError("the index is too long, or breaks off")
            file.seek(position + skip)
            return file.read(size - skip), end
        position, first = position + size, False
    raise BoxError("the file has no index")


def _track(body: memoryview, movie_scale: int, end: int) -> Track:
    media = boxes.need(body, b"mdia")
    times = boxes.need(media, b"mdhd")
    timescale = boxes.number(times, 20 if boxes.number(times, 0, 1) else 12, 4)
    table = boxes.need(media, b"minf", b"stbl")
    sizes = _sizes(boxes.need(table, b"stsz"), end)
    count, offsets = len(sizes), _offsets(table, sizes)
    # Before all that makes a file no plain one: ffprobe cannot tell a truncated file from one that hides frames.
    _check_complete(offsets, sizes, end)
    durations = _runs(boxes.need(table, b"stts"), count)
    shifts = boxes.child(table, b"ctts")
    sync = boxes.child(table, b"stss")
    if not timescale or not movie_scale or len(durations) != count:
        raise BoxError("the tables of a track do not fit one another")
    delay, shown, skipped = _edits(boxes.child(body, b"edts", b"elst"))
    delay, shown = (one * timescale // movie_scale for one in (delay, shown))
    if max(delay, shown, skipped) > _MOST_TICKS:
        raise BoxError("an edit list is out of all proportion")
    return Track(
        handler=bytes(boxes.need(media, b"hdlr")[8:12]),
        timescale=timescale,
        description=_description(boxes.need(table, b"stsd")),
        durations=durations,
        shifts=None if shifts is None else _shifts(shifts, count),
        sizes=sizes,
        offsets=offsets,
        sync=None if sync is None else _sync(sync, count),
        skipped=skipped,
        delay=delay,
        shown=shown,
        groups=_groups(table),
    )


def _description(body: memoryview) -> tuple[bytes, bytes]:
    if boxes.number(body, 4, 4) != 1:
        raise BoxError("a track has more than one sample description")
    kind, content = next(boxes.children(body[8:]), (b"", memoryview(b"")))
    return kind, bytes(content)


def _sizes(body: memoryview, end: int) -> array[int]:
    """Return the size of each sample. A few bytes can claim any number of them, so the file must be long enough."""
    size, count = boxes.number(body, 4, 4), boxes.number(body, 8, 4)
    if size and (count > limits.MOST_FRAMES or size * count > end):
        raise BoxError("a track has many samples of one size, as sound without compression has, or a wrong number")
    limits.check_frames(count)
    return array("I", [size]) * count if size else boxes.numbers(body, 12, count)


def _runs(body: memoryview, most: int) -> array[int]:
    """Return the numbers of a table of runs, as many as there are samples at most."""
    runs = boxes.numbers(body, 8, 2 * boxes.number(body, 4, 4))
    made = array("I")
    for count, value in zip(runs[::2], runs[1::2], strict=True):
        if count > most - len(made):
            raise BoxError("a table of runs is longer than its track")
        made.extend(array("I", [value]) * count)
    return made


def _shifts(body: memoryview, count: int) -> array[int]:
    shifts = _runs(body, count)
    if len(shifts) != count:
        raise BoxError("the table of shifts is shorter than its track")
    return array("q", (one - 2 * _SIGN if one >= _SIGN else one for one in shifts))


def _sync(body: memoryview, count: int) -> array[int]:
    sync = array("q", (one - 1 for one in boxes.numbers(body, 8, boxes.number(body, 4, 4))))
    if any(not 0 <= one < count for one in sync):
        raise BoxError("a sync sample lies outside its track")
    return sync


def last_byte(track: memoryview) -> int:
    """Return where the last sample of a track ends in the file, 0 when the track has no sample.

    `track` is the content of a trak box. Raises BoxError when its tables do not state it.
    """
    table = boxes.need(track, b"mdia", b"minf", b"stbl")
    body = boxes.need(table, b"stsz")
    size, count = boxes.number(body, 4, 4), boxes.number(body, 8, 4)
    if not count:
        return 0
    sizes = array("I") if size else boxes.numbers(body, 12, count)
    chunks = _chunks(table)
    last = sample = 0
    for chunk, held in zip(chunks, _samples_in_chunks(boxes.need(table, b"stsc"), len(chunks)), strict=True):
        held = min(held, count - sample)
        if held:
            last = max(last, chunk + (size * held if size else sum(sizes[sample : sample + held])))
        sample += held
    return last


def _chunks(table: memoryview) -> array[int]:
    """Return where each chunk is stored in the file."""
    wide = boxes.child(table, b"co64")
    found = wide if wide is not None else boxes.need(table, b"stco")
    chunks = boxes.numbers(found, 8, boxes.number(found, 4, 4), wide=wide is not None)
    if max(chunks, default=0) > _MOST_TICKS:
        raise BoxError("a chunk lies outside of any file")
    return chunks


def _offsets(table: memoryview, sizes: array[int]) -> array[int]:
    """Return where each sample lies in the file."""
    chunks = _chunks(table)
    made = array("q")
    sample = 0
    for chunk, held in zip(chunks, _samples_in_chunks(boxes.need(table, b"stsc"), len(chunks)), strict=True):
        following = sizes[sample : sample + held]
        made.extend(accumulate(following[:-1], initial=chunk) if following else ())
        sample += held
    if len(made) != len(sizes):
        raise BoxError("the chunks of a track do not hold its samples")
    return made


def _samples_in_chunks(body: memoryview, chunks: int) -> Iterator[int]:
    """Yield how many samples each chunk holds."""
    entries = boxes.numbers(body, 8, 3 * boxes.number(body, 4, 4))
    firsts = [one - 1 for one in entries[::3]]
    bounds = [*firsts, chunks]
    if not firsts or bounds[0] or any(one >= following for one, following in pairwise(bounds)):
        raise BoxError("the table of chunks is broken")
    for (first, following), held in zip(pairwise(bounds), entries[1::3], strict=True):
        yield from repeat(held, following - first)


def _edits(body: memoryview | None) -> tuple[int, int, int]:
    """Return what an edit list says: a delay and what is shown (both in movie ticks, 0 = all), what is skipped (ticks)."""
    if body is None:
        return 0, 0, 0
    wide, count = bool(boxes.number(body, 0, 1)), boxes.number(body, 4, 4)
    width = 8 if wide else 4
    entries = []
    for entry in range(count):
        at = 8 + entry * (2 * width + 4)
        sign = 1 << (8 * width - 1)
        begin = boxes.number(body, at + width, width)
        entries.append((boxes.number(body, at, width), begin - 2 * sign if begin >= sign else begin))
        if boxes.number(body, at + 2 * width, 4) != 0x10000:
            raise BoxError("an edit list changes the speed")
    delay = entries.pop(0)[0] if entries and entries[0][1] == -1 else 0
    if len(entries) > 1 or any(begin < 0 for _, begin in entries):
        raise BoxError("an edit list rearranges the track")
    shown, skipped = entries[0] if entries else (0, 0)
    return delay, shown, skipped


def _groups(table: memoryview) -> bytes:
    """Return the boxes about groups of samples as they are: decoders need them to roll in."""
    groups = ((kind, inner) for kind, inner in boxes.children(table) if kind in (b"sgpd", b"sbgp"))
    return b"".join(boxes.box(kind, bytes(inner)) for kind, inner in groups)


def _check_complete(offsets: array[int], sizes: array[int], end: int) -> None:
    """Raise :class:`MediaError` when samples lie behind the end of the file."""
    if max(map(int.__add__, offsets, sizes), default=0) > end:
        there = sum(offset + size <= end for offset, size in zip(offsets, sizes, strict=True))
        raise MediaError(f"the file is truncated: {there} of {len(sizes)} frames are there", code=Code.TRUNCATED)
