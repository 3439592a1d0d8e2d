"""Read MP3 files: where each frame is, what silence the encoder has added, and where frames are damaged.

Frames (ISO/IEC 11172-3 and 13818-3, layer III) follow one another. Tags, and frames that describe the file, are not audio.
Where anything else is between frames, frames are lost, and everything after the loss would be heard too early.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from operator import add, eq
from pathlib import Path
from typing import BinaryIO

from muxer.errors import Code, MediaError
from muxer.media import limits
from muxer.media.mp4.boxes import build_full_box
from muxer.media.mp4.mp3_tags import TagSkipper
from muxer.media.mp4.tracks import Track
from muxer.system.files import open_private

_BUFFER_BYTES = 1 << 16
_HEADER_BYTES = 4
# The header of a frame, and the name in a frame that describes the file.
_PROBE_BYTES = 40
_VBRI_AT = 36
# This many frames in a row are no coincidence; at the end of a file they may be fewer.
_MIN_FRAMES_IN_A_ROW = 3
# A file in which frames must be searched at more places is not a recording.
_MAX_SEARCHES = 1_000_000
_KILOBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
_RATES = (44_100, 48_000, 32_000)
_INFO_AT = {(True, True): 21, (True, False): 36, (False, True): 13, (False, False): 21}
_ENCODERS = (b"LAME", b"Lavf", b"Lavc")
# The delay of every MP3 decoder, in samples, is part of the added silence.
_DECODER_DELAY = 529
# In MP4, MPEG-1 layer III and its extension to low sample rates are two object types.
_OBJECT_TYPES = {True: 0x6B, False: 0x69}
# The next header of a free-format file is within this range: its longest frame has 640 kbit/s.
_FREE_FORMAT_BYTES = 6000


@dataclass(frozen=True)
class FrameHeader:
    """The fields of a frame header. `form` must not change within a track; `info_at` is where "Xing" may be."""

    size: int
    samples: int
    rate: int
    first_version: bool
    mono: bool
    form: tuple[int, bool]
    info_at: int


@dataclass(frozen=True)
class FrameSpan:
    """Frames of one form from the number `first` on; `head` is the header of the first one as bytes, `frame` its fields."""

    first: int
    head: bytes
    frame: FrameHeader


@dataclass(frozen=True)
class DamagedRange:
    """The bytes from `begin` to `end`, in which frames are damaged; `before` is the number of good frames before it."""

    begin: int
    end: int
    before: int


@dataclass
class Mp3File:
    """The frames of an MP3 file. `delay` and `padding` are the samples of silence that an encoder has added at both ends."""

    path: Path
    delay: int = 0
    padding: int = 0
    offsets: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("I"))
    damaged_ranges: list[DamagedRange] = field(default_factory=list)
    spans: list[FrameSpan] = field(default_factory=list)

    @property
    def changes_form(self) -> bool:
        """Whether the sample rate or the number of channels changes within the file."""
        return len({span.frame.form for span in self.spans}) > 1

    @property
    def is_contiguous(self) -> bool:
        """Whether there is nothing between the frames."""
        ends = map(add, self.offsets, self.sizes)
        return all(map(eq, ends, islice(self.offsets, 1, None)))

    def frames_seconds(self, frames: int) -> float:
        """Return the duration of the first `frames` frames, without the silence that replaces lost frames."""
        ends = [*(span.first for span in self.spans[1:]), len(self.sizes)]
        return sum(
            max(0, min(frames, end) - span.first) * span.frame.samples / span.frame.rate
            for span, end in zip(self.spans, ends, strict=True)
        )

    def lost_frames(self, damaged: DamagedRange) -> int:
        """Return the estimated number of lost frames in `damaged`, by the mean size of the frames of its span."""
        number = self._span_number(damaged)
        end = self.spans[number + 1].first if number + 1 < len(self.spans) else len(self.sizes)
        sizes = self.sizes[self.spans[number].first : end]
        return round((damaged.end - damaged.begin) * len(sizes) / sum(sizes))

    def lost_seconds(self) -> float:
        """Return the duration of the silence that replaces lost frames."""
        frames = ((self.lost_frames(one), self.spans[self._span_number(one)].frame) for one in self.damaged_ranges)
        return sum(lost * frame.samples / frame.rate for lost, frame in frames)

    @property
    def mp4_track(self) -> Track:
        """The frames as a track of an MP4 file. They must have one form."""
        frame, count = self.spans[0].frame, len(self.sizes)
        return Track(
            handler=b"soun",
            timescale=frame.rate,
            description=(b"mp4a", _sample_description(frame, self.sizes)),
            durations=array("I", [frame.samples]) * count,
            shifts=None,
            sizes=self.sizes,
            offsets=self.offsets,
            sync=None,
            skipped=self.delay,
            delay=0,
            shown=0,
            groups=b"",
        )

    def write_span(self, number: int, output: Path) -> None:
        """Write the frames of the span `number` to `output`, with silent frames in place of lost ones."""
        first, silence = self.spans[number].first, _silent_frame(self.spans[number].head)
        end = self.spans[number + 1].first if number + 1 < len(self.spans) else len(self.sizes)
        lost = {one.before: self.lost_frames(one) for one in self.damaged_ranges if self._span_number(one) == number}
        with self.path.open("rb", buffering=_BUFFER_BYTES) as file, open_private(output) as out:
            for frame in range(first, end):
                out.write(silence * lost.pop(frame, 0))
                file.seek(self.offsets[frame])
                out.write(file.read(self.sizes[frame]))
            # Frames lost between two spans belong to the first one.
            out.write(silence * sum(lost.values()))

    def _span_number(self, damaged: DamagedRange) -> int:
        """Return the number of the span in which, or after which, frames are damaged."""
        return max(0, bisect_right(self.spans, damaged.before - 1, key=lambda span: span.first) - 1)


def read_mp3(path: Path) -> Mp3File | None:
    """Read the frames of a file, None if it is no MP3. Raises MediaError for free format or too much damage."""
    end = path.stat().st_size
    with path.open("rb", buffering=_BUFFER_BYTES) as file:
        walk = _FrameWalk(file, end)
        position = walk.tags.skip_tags(0)
        if walk.confirm_frame(position, changing=True) is None:
            if _is_free_format(file, position):
                raise MediaError("the format free-format MP3 is not supported", code=Code.NO_AUDIO)
            return None
        mp3 = Mp3File(path)
        walk.collect_frames(mp3, position)
    return mp3 if mp3.sizes else None


def describe_samples(path: Path, track: Track) -> Track | None:
    """Return `track`, whose samples are MP3 frames, with our own description: players may refuse that of ffmpeg.

    A first sample without audio is omitted. Returns None when the samples are not one whole frame each, all of one form.
    """
    frames: list[FrameHeader] = []
    skipped = 0
    with path.open("rb", buffering=_BUFFER_BYTES) as file:
        for number, (offset, size) in enumerate(zip(track.offsets, track.sizes, strict=True)):
            file.seek(offset)
            data = file.read(min(size, _PROBE_BYTES))
            frame = parse_frame_header(data[:_HEADER_BYTES])
            if frame is None or frame.size != size or (frames and frame.form != frames[0].form):
                return None
            if not number and _is_description(frame, data):
                skipped = 1
            else:
                frames.append(frame)
    if not frames or track.timescale != frames[0].rate:
        return None
    rest = slice(skipped, None)
    return replace(
        track,
        description=(b"mp4a", _sample_description(frames[0], track.sizes[rest])),
        durations=track.durations[rest],
        sizes=track.sizes[rest],
        offsets=track.offsets[rest],
        skipped=max(0, track.skipped - sum(track.durations[:skipped])),
    )


@lru_cache(maxsize=1024)
def parse_frame_header(head: bytes) -> FrameHeader | None:
    """Parse four bytes as the header of a layer III frame. Returns None when they are not."""
    if not _is_layer_3(head):
        return None
    first_version, halved = head[1] & 0x08 == 0x08, head[1] & 0x10 == 0
    bits = _KILOBITS[first_version][head[2] >> 4] * 1000
    if not bits:
        return None
    hertz = _RATES[head[2] >> 2 & 3] // (1 if first_version else 4 if halved else 2)
    samples = 1152 if first_version else 576
    size = samples // 8 * bits // hertz + (head[2] >> 1 & 1)
    mono = head[3] >> 6 == 3
    return FrameHeader(size, samples, hertz, first_version, mono, (hertz, mono), _INFO_AT[first_version, mono])


def _is_layer_3(head: bytes) -> bool:
    sync = len(head) == _HEADER_BYTES and head[0] == 0xFF and head[1] & 0xE6 == 0xE2
    return sync and head[1] & 0x18 != 0x08 and head[2] >> 2 & 3 < len(_RATES)


class _FrameWalk:
    def __init__(self, file: BinaryIO, end: int) -> None:
        self._file = file
        self._end = end
        self.tags = TagSkipper(file, end)
        self._searches = iter(range(_MAX_SEARCHES))
        # The last description of the file, and how many frames were before it.
        self._described = _StreamDescription()
        self._before = 0

    def collect_frames(self, mp3: Mp3File, position: int) -> None:
        """Add all frames to `mp3`, from the first one at `position` on."""
        while (following := self._find_next(position)) is not None:
            begin, frame = following
            gap_begin = self.tags.skip_ape1(position, begin)
            if begin > gap_begin:
                mp3.damaged_ranges.append(DamagedRange(gap_begin, begin, len(mp3.sizes)))
            if not mp3.spans or frame.form != mp3.spans[-1].frame.form:
                self._file.seek(begin)
                mp3.spans.append(FrameSpan(len(mp3.sizes), self._file.read(_HEADER_BYTES), frame))
            position = self.tags.skip_tags(self._take_frames(mp3, begin, frame.form))
            if mp3.spans[-1].first == len(mp3.sizes):
                # Only descriptions of the file had this form.
                mp3.spans.pop()
        # Frames that the description does not count were appended later.
        is_last = len(mp3.sizes) - self._before <= self._described.frames + 1
        mp3.padding = self._described.padding if is_last else 0

    def _take_frames(self, mp3: Mp3File, position: int, form: tuple[int, bool]) -> int:
        """Add the consecutive frames of one form from `position` on. Returns the offset after them."""
        file, end, offsets, sizes = self._file, self._end, mp3.offsets, mp3.sizes
        file.seek(position)
        data = file.read(_PROBE_BYTES)
        while (frame := parse_frame_header(data[:_HEADER_BYTES])) and frame.form == form and position + frame.size <= end:
            if _is_description(frame, data):
                self._add_description(mp3, position, frame)
            else:
                offsets.append(position)
                sizes.append(frame.size)
            position += frame.size
            file.seek(position)
            data = file.read(_PROBE_BYTES)
        limits.check_frames(len(sizes))
        return position

    def _add_description(self, mp3: Mp3File, position: int, frame: FrameHeader) -> None:
        self._file.seek(position)
        self._described, self._before = _read_description(frame, self._file.read(frame.size)), len(mp3.sizes)
        if not mp3.sizes:
            mp3.delay = self._described.delay

    def _find_next(self, position: int) -> tuple[int, FrameHeader] | None:
        """Return where frames follow one another, and the first; None at the end. Raises MediaError."""
        if (frame := self.confirm_frame(position, changing=True)) is not None:
            return position, frame
        for candidate, _ in zip(self._candidate_offsets(position), self._searches, strict=False):
            if (frame := self.confirm_frame(candidate)) is not None:
                return candidate, frame
        if next(self._searches, None) is None:
            raise MediaError("the audio is damaged: too much of it is not audio")
        return None

    def _candidate_offsets(self, begin: int) -> Iterator[int]:
        for start in range(begin, self._end, _BUFFER_BYTES):
            self._file.seek(start)
            block = self._file.read(min(_BUFFER_BYTES, self._end - start))
            at = block.find(b"\xff")
            while at >= 0:
                yield start + at
                at = block.find(b"\xff", at + 1)

    def confirm_frame(self, position: int, *, changing: bool = False) -> FrameHeader | None:
        """Return the frame when more frames (`changing`: of any form), a tag or the end of the file follow it."""
        first: FrameHeader | None = None
        for _ in range(_MIN_FRAMES_IN_A_ROW):
            if first is not None and (position == self._end or self.tags.skip_tags(position) != position):
                break
            self._file.seek(position)
            frame = parse_frame_header(self._file.read(_HEADER_BYTES))
            if frame is None or position + frame.size > self._end:
                return None
            if first is not None and frame.form != first.form and not changing:
                return None
            first = first or frame
            position += frame.size
        return first


@dataclass(frozen=True)
class _StreamDescription:
    """The content of a frame that describes the file: the number of frames, and the silence at both ends in samples."""

    frames: int = 0
    delay: int = 0
    padding: int = 0


def _is_description(frame: FrameHeader, data: bytes) -> bool:
    """Return whether a frame that starts with `data` describes the file and contains no audio."""
    if data[_VBRI_AT : _VBRI_AT + 4] == b"VBRI":
        return True
    at = frame.info_at
    return data[at : at + 4] in (b"Xing", b"Info")


def _read_description(frame: FrameHeader, data: bytes) -> _StreamDescription:
    at = frame.info_at
    if data[at : at + 4] not in (b"Xing", b"Info") or len(data) < at + 8:
        return _StreamDescription()
    flags = data[at + 7]
    frames = int.from_bytes(data[at + 8 : at + 12], "big") if flags & 1 else 0
    at += 8 + sum(size for bit, size in ((1, 4), (2, 4), (4, 100), (8, 4)) if flags & bit)
    if data[at : at + 4] not in _ENCODERS or len(data) < at + 24:
        return _StreamDescription(frames)
    delay_and_padding = int.from_bytes(data[at + 21 : at + 24], "big")
    return _StreamDescription(
        frames, (delay_and_padding >> 12) + _DECODER_DELAY, max(0, (delay_and_padding & 0xFFF) - _DECODER_DELAY)
    )


def _sample_description(frame: FrameHeader, sizes: array[int]) -> bytes:
    """Return the usual sample description of MP3 in MP4, with the mean bit rate of frames of `sizes` bytes."""
    bits = sum(sizes) * 8 * frame.rate // (len(sizes) * frame.samples)
    decoder = struct.pack(">BBBHII", _OBJECT_TYPES[frame.first_version], 0x15, 0, 0, bits, bits)
    stream = struct.pack(">HB", 0, 0) + b"\x04" + bytes([len(decoder)]) + decoder + b"\x06\x01\x02"
    fields = struct.pack(">6xH8xHH4xI", 1, 2, 16, frame.rate << 16)
    return fields + build_full_box(b"esds", b"\x03" + bytes([len(stream)]) + stream)


def _silent_frame(head: bytes) -> bytes:
    silent = bytes([head[0], head[1] | 1, head[2] & ~2, head[3]])
    frame = parse_frame_header(silent)
    return silent + bytes((frame.size if frame is not None else _HEADER_BYTES) - _HEADER_BYTES)


def _is_free_format(file: BinaryIO, position: int) -> bool:
    """Return whether free-format frames follow one another: headers without a length, all at the same distance."""
    file.seek(position)
    data = file.read(3 * _FREE_FORMAT_BYTES)
    if not _is_layer_3(data[:_HEADER_BYTES]) or data[2] >> 4:
        return False
    places = [at for at in range(_HEADER_BYTES, len(data) - 2) if data[at : at + 2] == data[:2] and not data[at + 2] >> 4]
    # A frame may have one byte of padding.
    distances = (place for place in places if place <= _FREE_FORMAT_BYTES)
    return any(any(abs(other - 2 * distance) <= 1 for other in places) for distance in distances)
