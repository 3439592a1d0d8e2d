"""The samples of the video track that is written. Pure."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from fractions import Fraction
from operator import sub
from pathlib import Path

from muxer.media.mp4.ordering import sorted_copy
from muxer.media.mp4.orientation import UPRIGHT, Orientation

TIMESCALE = 90_000


def to_ticks(microseconds: int) -> int:
    """Convert microseconds to ticks of the result, rounded to the nearest."""
    return round(Fraction(microseconds * TIMESCALE, 1_000_000))


@dataclass(frozen=True)
class SampleTable:
    """The samples of a track in decoding order; times in ticks of 1/90000 s; `file` and `prefix` are indices."""

    files: tuple[Path, ...]
    prefixes: tuple[bytes, ...]
    pts: array[int]
    dts: array[int]
    sync: bytearray
    file: array[int]
    offsets: array[int]
    sizes: array[int]
    prefix: array[int]
    length: int
    orientation: Orientation = UPRIGHT

    @property
    def start_delay(self) -> int:
        """How much later the first frame is shown than decoded, in ticks."""
        return min(self.pts) - self.dts[0] if self.pts else 0


def decoding_times(shown: array[int]) -> array[int]:
    """Return the sorted presentation times, shifted so that no sample is shown before it is decoded."""
    ordered = sorted_copy(shown)
    if ordered is shown:
        return shown
    early = max(map(sub, ordered, shown))
    return array("q", (time - early for time in ordered))
