"""What an MP3 file says of the silence that its encoder has added at the end: the Xing/Info frame of LAME."""

from __future__ import annotations

from pathlib import Path

_LOOK_BYTES = 4096
# The delay of every MP3 decoder, in samples, is a part of the silence that was added.
_DECODER_DELAY = 529
_TAG_AFTER_HEADER = {(True, True): 17, (True, False): 32, (False, True): 9, (False, False): 17}
_LAME_FIELD = 141


def end_padding(path: Path) -> int:
    """Given the path of an audio file, return how many samples at its end are no sound; 0 when it does not say."""
    with path.open("rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3" and len(head) == 10:
            file.seek(10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)))
        else:
            file.seek(0)
        frame = file.read(_LOOK_BYTES)
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:
        return 0
    first_version, one_channel = frame[1] & 0x18 == 0x18, frame[3] >> 6 == 3
    tag = 4 + _TAG_AFTER_HEADER[first_version, one_channel]
    field = frame[tag + _LAME_FIELD : tag + _LAME_FIELD + 3]
    if frame[tag : tag + 4] not in (b"Xing", b"Info") or len(field) < 3:
        return 0
    return max(0, (int.from_bytes(field, "big") & 0xFFF) - _DECODER_DELAY)
