"""Put samples of several files into one sample table: when each is shown in the result, and where its bytes are. Pure.

Times are ticks of 1/90000 s. Spans are anchored to absolute times. Differing parameter sets precede each keyframe.
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
    """The samples `first` to before `last` of a file; its first frame would be shown `at`, the span starts at `begin`."""

    source: MediaInfo
    first: int
    last: int
    at: int
    begin: int


def build_sample_table(spans: Sequence[SampleSpan], length: int) -> SampleTable:
    """Return the samples of `spans`, which are in order; `length` is the duration of the result in microseconds."""
    sources = {span.source.path: span.source for span in spans}
    files = {path: number for number, path in enumerate(sources)}
    prefixes = _number_prefixes(spans)
    table = SampleTable(tuple(files), tuple(prefixes), *_empty_columns(), to_ticks(length))
    for span in spans:
        _append_span(table, span, files[span.source.path], prefixes.get(_parameter_sets(span), 0))
    return replace(table, dts=decoding_times(table.pts))


def _empty_columns() -> tuple[array[int], array[int], bytearray, array[int], array[int], array[int], array[int]]:
    return array("q"), array("q"), bytearray(), array("I"), array("q"), array("I"), array("I")


def _parameter_sets(span: SampleSpan) -> bytes:
    avc = require_video(span.source).avc
    return avc.in_band if avc is not None else b""


def _number_prefixes(spans: Sequence[SampleSpan]) -> dict[bytes, int]:
    """Number the parameter sets of all spans from 1 on; none when they are the same everywhere."""
    different = dict.fromkeys(map(_parameter_sets, spans))
    return {b"": 0} | {sets: number for number, sets in enumerate(different, start=1)} if len(different) > 1 else {b"": 0}


def _append_span(table: SampleTable, span: SampleSpan, file: int, prefix: int) -> None:
    video = require_video(span.source)
    packets, samples = video.packets, slice(span.first, span.last)
    scale = Fraction(TIMESCALE) * video.time_base
    up, down = scale.numerator, scale.denominator
    begin, anchor = to_ticks(span.begin), Fraction(span.at * TIMESCALE, 1_000_000)
    base = round(anchor * down) - video.first_pts * up
    # Adding half of the divisor rounds to the nearest.
    first = len(table.pts)
    table.pts.extend((base + pts * up + down // 2) // down for pts in packets.pts[samples])
    # A span starts exactly with its keyframe.
    table.pts[first] = begin
    keys = packets.keys[samples]
    table.sync.extend(keys)
    table.file.extend([file] * len(keys))
    table.offsets.extend(packets.offsets[samples])
    extra = len(table.prefixes[prefix])
    table.sizes.extend(size + extra * key for size, key in zip(packets.sizes[samples], keys, strict=True))
    table.prefix.extend(prefix * key for key in keys)
