"""Reads sample descriptions (stsd) by ISO/IEC 14496-12 (entries), -14 (mp4a), -15 (avc1) and -1 (object types)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from muxer.media.mp4 import avc, boxes
from muxer.media.mp4.avc import AvcConfig, AvcError
from muxer.media.mp4.boxes import BoxError
from muxer.media.mp4.tracks import Track

# The fixed fields of a sample entry, before its boxes.
_VIDEO_ENTRY_BYTES, _AUDIO_ENTRY_BYTES = 78, 28
# No parameter set is longer.
_MAX_PARAMETER_SET_BYTES = 512
_OBJECT_TYPES = {0x40: "aac", 0x69: "mp3", 0x6B: "mp3"}


def read_avc_config(track: Track) -> AvcConfig | None:
    """Return the H.264 configuration, None for other video or pixels. Raises BoxError or AvcError."""
    kind, description = track.description
    if kind != b"avc1":
        return None
    children = memoryview(description)[_VIDEO_ENTRY_BYTES:]
    config = avc.read_config(bytes(boxes.require_child(children, b"avcC")))
    ratio = boxes.find_child(children, b"pasp")
    # Without a box of their own, the shape of pixels follows from the size that the track is shown in.
    square = not track.is_stretched if ratio is None else boxes.read_number(ratio, 0, 4) == boxes.read_number(ratio, 4, 4)
    return config if config.square and square else None


def find_idr_samples(file: BinaryIO, track: Track, sets: Sequence[bytes]) -> bytearray:
    """Return a flag for each sample: 1 for an IDR frame. Raises AvcError for parameter sets not in `sets`."""
    flags = bytearray(len(track.sizes))
    for number in range(len(track.sizes)) if track.sync is None else track.sync:
        kind = 0
        for unit in _unit_heads(file, track.offsets[number], track.sizes[number]):
            kind = unit[0] & 31
            if kind in (avc.SEQUENCE_SET, avc.PICTURE_SET) and unit not in sets:
                raise AvcError("the parameter sets change within the file")
        flags[number] = kind == avc.IDR
    return flags


def _unit_heads(file: BinaryIO, offset: int, size: int) -> Iterator[bytes]:
    """Yield the first bytes of each NAL unit of a sample up to its first slice; parameter sets are complete."""
    end = offset + size
    while offset + avc.UNIT_LENGTH_BYTES < end:
        file.seek(offset)
        head = file.read(_MAX_PARAMETER_SET_BYTES)
        length = int.from_bytes(head[: avc.UNIT_LENGTH_BYTES], "big")
        unit = head[avc.UNIT_LENGTH_BYTES :][:length]
        if unit:
            yield unit
        if unit and unit[0] & 31 in avc.SLICES:
            return
        offset += avc.UNIT_LENGTH_BYTES + length


def read_audio_codec(track: Track, file: BinaryIO) -> str:
    """Return the codec of an audio track by ffmpeg's name, or the kind of its sample entry when browsers do not play it."""
    kind, description = track.description
    if kind == b"Opus":
        return "opus"
    if kind == b"fLaC":
        return "flac"
    if kind != b"mp4a":
        return kind.decode("ascii", "replace").strip()
    codec = _OBJECT_TYPES.get(
        _object_type(bytes(boxes.require_child(memoryview(description)[_AUDIO_ENTRY_BYTES:], b"esds"))), "mp4a"
    )
    if codec != "mp3":
        return codec
    file.seek(track.offsets[0])
    head = file.read(2)
    # Layer II has the same object type as layer III.
    return "mp3" if len(head) == 2 and head[1] & 0x06 == 0x02 else "mp2"


def _object_type(esds: bytes) -> int:
    """Return the object type in the content of an esds box (ISO/IEC 14496-1). Raises BoxError when it is broken."""
    position = 4
    for tag, fields in ((3, 3), (4, 0)):
        if position >= len(esds) or esds[position] != tag:
            raise BoxError("an esds box is broken")
        position += 1
        while position < len(esds) and esds[position] & 0x80:
            position += 1
        position += 1 + fields
    if position >= len(esds):
        raise BoxError("an esds box is broken")
    return esds[position]
