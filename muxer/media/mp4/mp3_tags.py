"""Find where the tags of an MP3 file end: ID3v2, ID3v1 (also enhanced), APE 1 and 2, Lyrics3. They may contain headers."""

from __future__ import annotations

from typing import BinaryIO

from muxer.errors import Code, MediaError

# Our decision: a file joined of thousands of parts has two tags in each.
MAX_TAGS = 20_000
_PROBE_BYTES = 32
_ID3V1_BYTES, _ENHANCED_BYTES = 128, 227
_APE, _APE_BYTES, _APE_IS_HEADER = b"APETAGEX", 32, 1 << 29
_ID3V2_HEADER, _ID3V2_HAS_FOOTER = 10, 0x10
_LYRICS, _LYRICS1_END, _LYRICS2_END = b"LYRICSBEGIN", b"LYRICSEND", b"LYRICS200"
# Version 1 of Lyrics3 has no size, only a maximum.
_LYRICS1_BYTES = 5200
_MAX_LYRICS2_FIELDS = 100
_APE1_BYTES = 1 << 16


class TagSkipper:
    """Skips the tags of one open file."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self._file = file
        self._end = end
        self._left = MAX_TAGS

    def skip_tags(self, position: int) -> int:
        """Return the offset after all tags from `position` on. Raises MediaError for more than MAX_TAGS tags."""
        while (size := self._tag_size(position)) and position + size <= self._end:
            position += size
            self._left -= 1
            if not self._left:
                raise MediaError(f"the audio has more than {MAX_TAGS} tags", code=Code.TOO_MUCH)
        return position

    def skip_ape1(self, begin: int, end: int) -> int:
        """Return the offset after an APE tag without a header that starts at `begin`, else `begin`."""
        self._file.seek(begin)
        data = self._file.read(min(end - begin, _APE1_BYTES))
        footer = data.find(_APE)
        if footer < 0 or len(data) < footer + _APE_BYTES:
            return begin
        size = int.from_bytes(data[footer + 12 : footer + 16], "little")
        return self.skip_tags(begin + size) if size == footer + _APE_BYTES else begin

    def _tag_size(self, position: int) -> int:
        """Return the size of the tag at `position`; 0 when there is none."""
        self._file.seek(position)
        head = self._file.read(_PROBE_BYTES)
        if head.startswith(b"TAG+"):
            return _ENHANCED_BYTES
        if head.startswith(b"TAG"):
            return _ID3V1_BYTES
        if head.startswith(b"ID3"):
            return _id3v2_size(head)
        if head.startswith(_APE) and len(head) == _APE_BYTES:
            size, flags = (int.from_bytes(head[at : at + 4], "little") for at in (12, 20))
            return _APE_BYTES + (size if flags & _APE_IS_HEADER else 0)
        if head.startswith(_LYRICS):
            return self._lyrics_size(position)
        return 0

    def _lyrics_size(self, position: int) -> int:
        at = position + len(_LYRICS)
        for _ in range(_MAX_LYRICS2_FIELDS):
            self._file.seek(at)
            field = self._file.read(6 + len(_LYRICS2_END))
            if field[6:] == _LYRICS2_END and field[:6].isdigit():
                return at + len(field) - position
            if not field[3:8].isdigit() or not field[:3].isalnum():
                break
            at += 8 + int(field[3:8])
        self._file.seek(position)
        found = self._file.read(_LYRICS1_BYTES).find(_LYRICS1_END)
        return found + len(_LYRICS1_END) if found > 0 else 0


def _id3v2_size(head: bytes) -> int:
    """Return the size of an ID3v2 tag by its header, whose size has seven bits in each byte."""
    size = head[6:_ID3V2_HEADER]
    if len(size) < 4 or max(size) > 127 or 0xFF in head[3:5]:
        return 0
    footer = _ID3V2_HEADER if head[5] & _ID3V2_HAS_FOOTER else 0
    return _ID3V2_HEADER + sum(byte << shift for byte, shift in zip(size, (21, 14, 7, 0), strict=True)) + footer
