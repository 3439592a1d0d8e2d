"""Puts samples of several files in one row: where each stands in the result, and where its bytes come from. Pure.

Times of the result are ticks of 1/90000 s. Every stretch is anchored to its absolute time, and a frame is shown until the
next one is, so that nothing adds up. Where files differ in their parameter sets, the sets stand before each key frame, so
that a player may begin at any of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from muxer.media.media_info import MediaInfo, require_video
from muxer.media.mp4 import TIMESCALE, SampleTable, decoding_times, to_ticks


@dataclass(frozen=True)
class SampleSpan:
    """A stretch of a file's samples in the result: those from ``first`` to before ``last``, in the order in which they are
    decoded. ``at`` is where the file's first frame would be shown, in microseconds of the result (it may be negative);
    ``begin`` is where the stretch begins."""

    source: MediaInfo
    first: int
    last: int
    at: int
    begin: int


def build_sample_table(runs: Sequence[SampleSpan], length: int) -> SampleTable:
    """Given the stretches of a result in order and its length in microseconds, return its samples in a row."""
    sources = {run.source.path: run.source for run in runs}
    files = {path: number for number, path in enumerate(sources)}
    prefixes = _number_prefixes(runs)
    row = SampleTable(tuple(files), tuple(prefixes), *_empty_columns(), to_ticks(length))
    for run in runs:
        _append_span(row, run, files[run.source.path], prefixes.get(_parameter_sets(run), 0))
    return replace(row, dts=decoding_times(row.pts))


def _empty_columns() -> tuple[array[int], array[int], bytearray, array[int], array[int], array[int], array[int]]:
    return array("q"), array("q"), bytearray(), array("I"), array("q"), array("I"), array("I")


def _parameter_sets(run: SampleSpan) -> bytes:
    avc = require_video(run.source).avc
    return avc.in_band if avc is not None else b""


def _number_prefixes(runs: Sequence[SampleSpan]) -> dict[bytes, int]:
    """Return the parameter sets of all stretches with their numbers from 1 on, none when they are the same everywhere."""
    different = dict.fromkeys(map(_parameter_sets, runs))
    return {b"": 0} | {sets: number for number, sets in enumerate(different, start=1)} if len(different) > 1 else {b"": 0}


def _append_span(row: SampleTable, run: SampleSpan, file: int, prefix: int) -> None:
    video = require_video(run.source)
    packets, span = video.packets, slice(run.first, run.last)
    scale = Fraction(TIMESCALE) * video.time_base
    up, down = scale.numerator, scale.denominator
    begin, anchor = to_ticks(run.begin), Fraction(run.at * TIMESCALE, 1_000_000)
    base = round(anchor * down) - video.first_pts * up
    # Half of the divisor makes the division round to the nearest.
    at = len(row.pts)
    row.pts.extend((base + pts * up + down // 2) // down for pts in packets.pts[span])
    # A stretch begins with its key frame, exactly.
    row.pts[at] = begin
    keys = packets.keys[span]
    row.sync.extend(keys)
    row.file.extend([file] * len(keys))
    row.offsets.extend(packets.offsets[span])
    extra = len(row.prefixes[prefix])
    row.sizes.extend(size + extra * key for size, key in zip(packets.sizes[span], keys, strict=True))
    row.prefix.extend(prefix * key for key in keys)
