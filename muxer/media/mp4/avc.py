"""H.264 parameter sets (ISO/IEC 14496-10 and -15): the properties of frames, and how the sets are stored in a file. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

IDR, SEQUENCE_SET, PICTURE_SET = 5, 7, 8
# The units with the data of a frame: slices and their partitions. Before them come others, such as the prefix (14) of a
# slice with temporal layers.
SLICES = range(1, IDR + 1)
UNIT_LENGTH_BYTES = 4

_PROFILES = {66: "Baseline", 77: "Main", 100: "High"}
_EXTENDED_SAR = 255
# Sample aspect ratios that mean square pixels: unspecified, and 1:1.
_SQUARE_SAR_IDS = (0, 1)


class AvcError(ValueError):
    """The parameter sets are broken, or of a form that cannot be copied."""


@dataclass(frozen=True)
class AvcConfig:
    """An H.264 stream by its parameter sets. `config` is the content of its avcC box, `sets` are the sets in it."""

    config: bytes
    sets: tuple[bytes, ...]
    profile: str
    width: int
    height: int
    full_range: bool
    square: bool

    @property
    def in_band(self) -> bytes:
        """The parameter sets as they are stored before a frame."""
        return b"".join(struct.pack(">I", len(unit)) + unit for unit in self.sets)


def read_config(config: bytes) -> AvcConfig:
    """Parse an avcC box. Raises AvcError for all but progressive 8 bit 4:2:0 in Baseline, Main or High."""
    sets = _parameter_sets(config)
    if config[4] & 3 != UNIT_LENGTH_BYTES - 1:
        raise AvcError("NAL unit lengths have fewer than four bytes")
    first = next((unit for unit in sets if unit[0] & 31 == SEQUENCE_SET), None)
    if first is None or not any(unit[0] & 31 == PICTURE_SET for unit in sets):
        raise AvcError("there are no parameter sets")
    try:
        return _read_sequence(_BitReader(first[1:].replace(b"\0\0\3", b"\0\0")), config, sets)
    except IndexError:
        raise AvcError("a parameter set is truncated") from None


def _parameter_sets(config: bytes) -> list[bytes]:
    sets: list[bytes] = []
    position = 5
    try:
        for mask in (31, 255):
            count = config[position] & mask
            position += 1
            for _ in range(count):
                (size,) = struct.unpack_from(">H", config, position)
                sets.append(config[position + 2 : position + 2 + size])
                position += 2 + size
    except (IndexError, struct.error):
        raise AvcError("the avcC box is truncated") from None
    if not all(sets) or position > len(config):
        raise AvcError("the avcC box is truncated")
    return sets


class _BitReader:
    """Reads bit fields and numbers in Exp-Golomb code. Raises IndexError behind the end."""

    def __init__(self, data: bytes) -> None:
        self._text = bin(int.from_bytes(b"\1" + data, "big"))[3:]
        self._at = 0

    def read_bits(self, count: int) -> int:
        if self._at + count > len(self._text):
            raise IndexError
        self._at += count
        return int(self._text[self._at - count : self._at] or "0", 2)

    def read_unsigned(self) -> int:
        one = self._text.find("1", self._at)
        zeros = one - self._at
        if one < 0 or zeros > 32:
            raise IndexError
        self._at += zeros
        return self.read_bits(zeros + 1) - 1

    def read_signed(self) -> int:
        number = self.read_unsigned()
        return (number + 1) // 2 if number % 2 else -(number // 2)


def _read_sequence(bits: _BitReader, config: bytes, sets: list[bytes]) -> AvcConfig:
    """Parse a sequence parameter set (14496-10, 7.3.2.1.1) as far as it describes frames."""
    number, constraints, _level = bits.read_bits(8), bits.read_bits(8), bits.read_bits(8)
    bits.read_unsigned()
    if number not in _PROFILES:
        raise AvcError(f"browsers do not play the profile {number}")
    if number == 100:
        _require_8bit_420(bits)
    bits.read_unsigned()  # log2_max_frame_num
    _skip_frame_order(bits)
    bits.read_unsigned()  # max_num_ref_frames
    bits.read_bits(1)
    width, height = 16 * (bits.read_unsigned() + 1), 16 * (bits.read_unsigned() + 1)
    if not bits.read_bits(1):
        raise AvcError("the frames are interlaced")
    bits.read_bits(1)
    if bits.read_bits(1):
        left, right, top, bottom = (2 * bits.read_unsigned() for _ in range(4))
        width, height = width - left - right, height - top - bottom
    full_range, square = _read_usability(bits) if bits.read_bits(1) else (False, True)
    profile = "Constrained Baseline" if number == 66 and constraints & 0x40 else _PROFILES[number]
    return AvcConfig(config, tuple(sets), profile, width, height, full_range, square)


def _require_8bit_420(bits: _BitReader) -> None:
    """Parse the fields of the High profiles. Raises AvcError for anything but 8 bit 4:2:0."""
    if bits.read_unsigned() != 1 or bits.read_unsigned() or bits.read_unsigned():
        raise AvcError("the frames are not 8 bit 4:2:0")
    bits.read_bits(1)
    if bits.read_bits(1):
        for number in range(8):
            if bits.read_bits(1):
                _skip_scaling_list(bits, 16 if number < 6 else 64)


def _skip_scaling_list(bits: _BitReader, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.read_signed() + 256) % 256
        last = following or last


def _skip_frame_order(bits: _BitReader) -> None:
    kind = bits.read_unsigned()
    if kind == 0:
        bits.read_unsigned()
    elif kind == 1:
        bits.read_bits(1)
        bits.read_signed()
        bits.read_signed()
        for _ in range(bits.read_unsigned()):
            bits.read_signed()


def _read_usability(bits: _BitReader) -> tuple[bool, bool]:
    """Parse the video usability information. Returns whether colours have the full range, and whether pixels are square."""
    square = True
    if bits.read_bits(1):
        ratio = bits.read_bits(8)
        square = ratio in _SQUARE_SAR_IDS
        if ratio == _EXTENDED_SAR:
            width, height = bits.read_bits(16), bits.read_bits(16)
            square = width == height
    if bits.read_bits(1):
        bits.read_bits(1)
    full_range = False
    if bits.read_bits(1):
        bits.read_bits(3)
        full_range = bool(bits.read_bits(1))
    return full_range, square
