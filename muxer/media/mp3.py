"""Reads MP3 files: where each frame lies, what silence the encoder has added, and where frames are damaged.

An MP3 file has no index; its frames (ISO/IEC 11172-3 and 13818-3, layer III) follow one another, each with a header from
which its length follows. Where no frame stands where one must, something was lost: the place of sound is the number of
frames before it, so that all that follows would be heard too early.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from muxer.errors import MediaError
from muxer.media import limits
from muxer.media.boxes import full_box
from muxer.media.tracks import Track
from muxer.transfer import private_file

_BUFFER_BYTES = 1 << 16
_HEADER = 4
# So many frames in a row are no chance; the last ones of a file may be fewer.
_IN_A_ROW = 3
# So often a frame is looked for where none may be; a file that needs more is no recording any more.
_MOST_LOOKS = 1_000_000
_KILOBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
_RATES = (44_100, 48_000, 32_000)
# What players read behind the frames, and is no sound.
_TAGS_BEHIND = (b"TAG", b"APET", b"LYRI")
_ENCODERS = (b"LAME", b"Lavf", b"Lavc")
# The delay of every MP3 decoder, in samples, is a part of the silence that was added.
_DECODER_DELAY = 529
# In MP4, MPEG-1 layer III and its form with low sample rates are two object types.
_OBJECT_TYPES = {True: 0x6B, False: 0x69}


@dataclass(frozen=True)
class _Frame:
    """What the header of a frame says. ``kind`` is what all frames of a file have in common."""

    size: int
    samples: int
    rate: int
    first_version: bool
    mono: bool

    @property
    def kind(self) -> tuple[int, bool]:
        return self.rate, self.mono

    @property
    def tag(self) -> int:
        """Where the Xing or Info tag of an encoder stands in a frame."""
        return _HEADER + {(True, True): 17, (True, False): 32, (False, True): 9, (False, False): 17}[
            self.first_version, self.mono
        ]


@dataclass(frozen=True)
class Hole:
    """A stretch of the file, ``begin`` to ``end``, where frames are damaged; so many whole ones stand ``before`` it."""

    begin: int
    end: int
    before: int


@dataclass(frozen=True)
class Mp3:
    """The frames of an MP3 file. ``head`` is the header of the first one; ``delay`` and ``padding`` are samples of silence
    that an encoder has put at both ends."""

    path: Path
    first: _Frame
    head: bytes
    delay: int
    padding: int
    offsets: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("I"))
    holes: list[Hole] = field(default_factory=list)

    def seconds(self, frames: int) -> float:
        """Given a number of frames, return how long they last."""
        return frames * self.first.samples / self.first.rate

    def lost(self, hole: Hole) -> int:
        """Given a hole, return about how many frames are lost there."""
        return round((hole.end - hole.begin) * len(self.sizes) / sum(self.sizes))

    @property
    def track(self) -> Track:
        """The frames as a track of an MP4 file."""
        first, count = self.first, len(self.sizes)
        return Track(
            handler=b"soun",
            timescale=first.rate,
            description=(b"mp4a", self._description()),
            durations=array("I", [first.samples]) * count,
            shifts=None,
            sizes=self.sizes,
            offsets=self.offsets,
            sync=None,
            skipped=self.delay,
            delay=0,
            shown=0,
            groups=b"",
        )

    def _description(self) -> bytes:
        """Return the sample description: what every MP4 file with MP3 has, with the mean of bits a second."""
        bits = sum(self.sizes) * 8 * self.first.rate // (len(self.sizes) * self.first.samples)
        decoder = struct.pack(">BBBHII", _OBJECT_TYPES[self.first.first_version], 0x15, 0, 0, bits, bits)
        stream = struct.pack(">HB", 0, 0) + b"\x04" + bytes([len(decoder)]) + decoder + b"\x06\x01\x02"
        fields = struct.pack(">6xH8xHH4xI", 1, 2, 16, self.first.rate << 16)
        return fields + full_box(b"esds", b"\x03" + bytes([len(stream)]) + stream)

    def repair(self, made: Path) -> None:
        """Write the file anew, with silent frames where frames are damaged."""
        silent = bytes([self.head[0], self.head[1] | 1, self.head[2] & ~2, self.head[3]])
        silence = silent + bytes(_size(silent) - _HEADER)
        with self.path.open("rb") as file, private_file(made) as out:
            for hole in self.holes:
                _copy(file, out, hole.begin - file.tell())
                for _ in range(self.lost(hole)):
                    out.write(silence)
                file.seek(hole.end)
            _copy(file, out, self.path.stat().st_size - file.tell())


def read_mp3(path: Path) -> Mp3 | None:
    """Given the path of an audio file, return its frames when it is an MP3 file that begins with one and stays of one kind;
    None for whatever else, which is left to ffmpeg. Raise :class:`MediaError` when too much of it is damaged."""
    end = path.stat().st_size
    with path.open("rb", buffering=_BUFFER_BYTES) as file:
        position = _after_tags(file, 0)
        first = _follow(file, position, end)
        if first is None:
            return None
        file.seek(position)
        tagged, delay, padding = _silence(first, file.read(first.size))
        file.seek(position)
        found = Mp3(path, first, file.read(_HEADER), delay, padding)
        whole = _walk(file, found, position + (first.size if tagged else 0), end)
    return found if whole and found.sizes else None


def end_padding(path: Path) -> int:
    """Given the path of an audio file, return how many samples at its end are no sound; 0 when it does not say."""
    with path.open("rb", buffering=_BUFFER_BYTES) as file:
        position = _after_tags(file, 0)
        file.seek(position)
        frame = _frame(file.read(_HEADER))
        if frame is None:
            return 0
        file.seek(position)
        return _silence(frame, file.read(frame.size))[2]


@lru_cache(maxsize=1024)
def _frame(head: bytes) -> _Frame | None:
    """Given four bytes, return what they say as a header of layer III; None when they are none."""
    if len(head) < _HEADER or head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or head[1] & 0x18 == 0x08:
        return None
    first_version, halved = head[1] & 0x08 == 0x08, head[1] & 0x10 == 0
    bits, rate = _KILOBITS[first_version][head[2] >> 4] * 1000, head[2] >> 2 & 3
    if not bits or rate == len(_RATES):
        return None
    hertz = _RATES[rate] // (1 if first_version else 4 if halved else 2)
    samples = 1152 if first_version else 576
    return _Frame(samples // 8 * bits // hertz + (head[2] >> 1 & 1), samples, hertz, first_version, head[3] >> 6 == 3)


def _size(head: bytes) -> int:
    frame = _frame(head)
    return frame.size if frame is not None else 0


def _walk(file: BinaryIO, found: Mp3, position: int, end: int) -> bool:
    """Note all frames from a position on, and the holes between them. Return False when frames of another kind come."""
    kind, offsets, sizes = found.first.kind, found.offsets, found.sizes
    looks = iter(range(_MOST_LOOKS))
    while True:
        file.seek(position)
        while (frame := _frame(file.read(_HEADER))) and frame.kind == kind and position + frame.size <= end:
            offsets.append(position)
            sizes.append(frame.size)
            position += frame.size
            file.seek(frame.size - _HEADER, 1)
        limits.check_frames(len(sizes))
        hole = _after_tags(file, position)
        following = _next(file, hole, end, looks)
        if following is None:
            return True
        begin, frame = following
        if frame.kind != kind:
            return False
        if begin > hole:
            found.holes.append(Hole(hole, begin, len(sizes)))
        position = begin


def _next(file: BinaryIO, position: int, end: int, looks: Iterator[int]) -> tuple[int, _Frame] | None:
    """Return where frames follow one another again, and the first of them; None when only what is no sound comes.

    Raise :class:`MediaError` when there are no more ``looks``.
    """
    file.seek(position)
    if file.read(_HEADER).startswith(_TAGS_BEHIND):
        return None
    for place, _ in zip(_places_of(b"\xff", file, position, end), looks, strict=False):
        if (frame := _follow(file, place, end)) is not None:
            return place, frame
    if next(looks, None) is None:
        raise MediaError("the audio is damaged: too much of it is no sound")
    return None


def _places_of(byte: bytes, file: BinaryIO, begin: int, end: int) -> Iterator[int]:
    """Yield where a byte stands in a stretch of a file."""
    for start in range(begin, end, _BUFFER_BYTES):
        file.seek(start)
        block = file.read(min(_BUFFER_BYTES, end - start))
        place = block.find(byte)
        while place >= 0:
            yield start + place
            place = block.find(byte, place + 1)


def _follow(file: BinaryIO, position: int, end: int) -> _Frame | None:
    """Return the frame at a position when more of its kind follow it, or the end of the file."""
    first: _Frame | None = None
    for _ in range(_IN_A_ROW):
        if first is not None and position == end:
            break
        file.seek(position)
        frame = _frame(file.read(_HEADER))
        if frame is None or position + frame.size > end or (first is not None and frame.kind != first.kind):
            return None
        first = first or frame
        position += frame.size
    return first


def _after_tags(file: BinaryIO, position: int) -> int:
    """Given where an ID3 tag may begin, return where what follows it does."""
    file.seek(position)
    head = file.read(10)
    while head[:3] == b"ID3" and len(head) == 10:
        length = sum((byte & 127) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        position += 10 + length + (10 if head[5] & 0x10 else 0)
        file.seek(position)
        head = file.read(10)
    return position


def _silence(frame: _Frame, data: bytes) -> tuple[bool, int, int]:
    """Given the first frame, return whether it is no sound but says something of the file; and of how many samples it says
    that an encoder has put them before and behind the sound."""
    if data[36:40] == b"VBRI":
        return True, 0, 0
    tag = frame.tag
    if data[tag : tag + 4] not in (b"Xing", b"Info") or len(data) < tag + 8 or not data[tag + 7] & 3:
        return False, 0, 0
    flags = data[tag + 7]
    at = tag + 8 + sum(size for bit, size in ((1, 4), (2, 4), (4, 100), (8, 4)) if flags & bit)
    if data[at : at + 4] not in _ENCODERS or len(data) < at + 24:
        return True, 0, 0
    both = int.from_bytes(data[at + 21 : at + 24], "big")
    return True, (both >> 12) + _DECODER_DELAY, max(0, (both & 0xFFF) - _DECODER_DELAY)


def _copy(file: BinaryIO, out: BinaryIO, length: int) -> None:
    while length and (data := file.read(min(length, _BUFFER_BYTES))):
        out.write(data)
        length -= len(data)
