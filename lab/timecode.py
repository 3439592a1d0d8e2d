"""The codes from which the time of a generated frame or pip can be read.

Frame: a strip of 2 x 32 blocks at the bottom, in relative coordinates, so that it survives scaling. First row: epoch
milliseconds modulo 2^32. Second row: agent number (8 bits), CRC-16 of those five bytes, and the sync pattern 10100101.
Audio: a pip of 200 ms at each whole second, whose frequency is 600 + 40 * (epoch second modulo 40) Hz.
"""

import binascii
from collections.abc import Callable
from datetime import datetime

COLUMNS, ROWS = 32, 2
STRIP_LEFT, STRIP_WIDTH = 0.04, 0.92
STRIP_TOPS, STRIP_HEIGHT = (0.84, 0.91), 0.06
SYNC_BYTE = 0b10100101
DARK, BRIGHT = 72, 224

PIP_SECONDS = 0.2
PIP_CODES = 40


def instant_code(time: datetime) -> int:
    """Return the code of a time: epoch milliseconds modulo 2^32."""
    return round(time.timestamp() * 1000) % (1 << 32)


def second_code(time: datetime) -> int:
    """Return the code of the whole second that contains a time: the epoch second modulo 40."""
    return int(time.timestamp()) % PIP_CODES


def pip_frequency(code: int) -> int:
    """Return the frequency in Hz of the pip with this code."""
    return 600 + 40 * code


def strip_bits(instant: int, agent: int) -> list[list[bool]]:
    """Return the two rows of the strip for an instant code and an agent number below 256, True for bright."""
    content = instant.to_bytes(4, "big") + bytes([agent])
    second = agent << 24 | binascii.crc_hqx(content, 0xFFFF) << 8 | SYNC_BYTE
    return [[bool(value >> (COLUMNS - 1 - column) & 1) for column in range(COLUMNS)] for value in (instant, second)]


def strip_cell(column: int, row: int) -> tuple[float, float, float, float]:
    """Return a block of the strip as left, top, width and height, as fractions of the frame."""
    width = STRIP_WIDTH / COLUMNS
    return STRIP_LEFT + column * width, STRIP_TOPS[row], width, STRIP_HEIGHT


def read_strip(luma: Callable[[float, float], float]) -> tuple[int, int] | None:
    """Return instant code and agent number, or None without a strip. `luma` returns the brightness at a relative point."""
    levels = [[luma(*_cell_center(column, row)) for column in range(COLUMNS)] for row in range(ROWS)]
    sync = [bool(SYNC_BYTE >> (7 - bit) & 1) for bit in range(8)]
    bright = [level for level, bit in zip(levels[1][-8:], sync, strict=True) if bit]
    dark = [level for level, bit in zip(levels[1][-8:], sync, strict=True) if not bit]
    if min(bright) - max(dark) < 30:
        return None
    middle = (sum(bright) / len(bright) + sum(dark) / len(dark)) / 2
    instant, second = (_bits_to_number(row, middle) for row in levels)
    agent = second >> 24
    return (instant, agent) if strip_bits(instant, agent)[1] == [level > middle for level in levels[1]] else None


def _cell_center(column: int, row: int) -> tuple[float, float]:
    left, top, width, height = strip_cell(column, row)
    return left + width / 2, top + height / 2


def _bits_to_number(levels: list[float], middle: float) -> int:
    return sum(1 << (COLUMNS - 1 - column) for column, level in enumerate(levels) if level > middle)
