"""Measure audio (two channels of 16 bits at 8 kHz) in blocks of 50 ms, to compare two decoded files. Pure."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterator, Sequence
from operator import mul
from typing import IO

RATE, CHANNELS = 8_000, 2
BLOCKS_PER_SECOND = 20
BLOCK_US = 1_000_000 // BLOCKS_PER_SECOND
_BLOCK_SAMPLES = RATE // BLOCKS_PER_SECOND * CHANNELS
_READ_BYTES = 64 * _BLOCK_SAMPLES * 2
_FULL_SCALE = 32_768.0**2
# In decibels (our decisions): below the floor is silence; a lossy encoder changes a level by less than the tolerance.
FLOOR, TOLERANCE = -60.0, 3.0


class AudioLevels:
    """The mean square of each block of each channel, in order."""

    def __init__(self) -> None:
        self.channels = tuple(array("f") for _ in range(CHANNELS))

    def __len__(self) -> int:
        return len(self.channels[0])

    def read_pcm(self, pcm: IO[bytes]) -> None:
        """Add the blocks of all samples of `pcm`, 16 bit little-endian; a shorter block at the end counts as complete."""
        while data := pcm.read(_READ_BYTES):
            samples = array("h", data[: len(data) // (2 * CHANNELS) * 2 * CHANNELS])
            if sys.byteorder == "big":
                samples.byteswap()
            before: array[int] | None = None
            for channel, levels in enumerate(self.channels):
                channel_samples = samples[channel::CHANNELS]
                levels.extend(
                    self.channels[0][-_count_blocks(len(channel_samples)) :]
                    if channel_samples == before
                    else _mean_squares(channel_samples)
                )
                before = channel_samples

    def add_span(self, other: AudioLevels, begin_us: int, end_us: int) -> None:
        """Add the blocks of `other` between two times in microseconds."""
        for mine, theirs in zip(self.channels, other.channels, strict=True):
            mine.extend(theirs[round(begin_us / BLOCK_US) : round(end_us / BLOCK_US)])

    def fill_to(self, end_us: int) -> None:
        """Add silence up to a time in microseconds, or drop what is behind it."""
        end = round(end_us / BLOCK_US)
        for levels in self.channels:
            del levels[end:]
            levels.extend([0.0] * (end - len(levels)))


def find_difference(wanted: AudioLevels, found: AudioLevels) -> tuple[int, float, float] | None:
    """Return the first second whose level differs by more than a block's shift explains, and both levels in decibels."""
    for ours, theirs in zip(wanted.channels, found.channels, strict=True):
        count = min(len(ours), len(theirs))
        sums = _running_sums(ours)
        for begin in range(0, max(1, count - BLOCKS_PER_SECOND + 1), BLOCKS_PER_SECOND):
            end = min(begin + BLOCKS_PER_SECOND, count)
            around = [_mean_decibels(sums, begin + shift, end + shift) for shift in (-1, 0, 1)]
            level = _to_decibels(sum(theirs[begin:end]) / max(1, end - begin))
            if not min(around) - TOLERANCE <= level <= max(around) + TOLERANCE:
                return begin // BLOCKS_PER_SECOND, around[1], level
    return None


def _count_blocks(samples: int) -> int:
    return math.ceil(samples * CHANNELS / _BLOCK_SAMPLES)


def _mean_squares(samples: array[int]) -> Iterator[float]:
    size = _BLOCK_SAMPLES // CHANNELS
    for begin in range(0, len(samples), size):
        block = samples[begin : begin + size]
        yield sum(map(mul, block, block)) / len(block)


def _running_sums(levels: Sequence[float]) -> list[float]:
    sums = [0.0]
    for level in levels:
        sums.append(sums[-1] + level)
    return sums


def _mean_decibels(sums: Sequence[float], begin: int, end: int) -> float:
    begin, end = max(0, begin), min(end, len(sums) - 1)
    return _to_decibels((sums[end] - sums[begin]) / (end - begin)) if end > begin else FLOOR


def _to_decibels(mean_square: float) -> float:
    return max(FLOOR, 10 * math.log10(mean_square / _FULL_SCALE)) if mean_square > 0 else FLOOR
