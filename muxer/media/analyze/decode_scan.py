"""Find which frames of a screen file a decoder returns: packets may be damaged, or contain frames that are never shown."""

from __future__ import annotations

import itertools
import logging
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from muxer.errors import Code, MediaError, ToolError
from muxer.media.analyze.source_commands import scan_command
from muxer.media.ffmpeg import MediaTools, parse_frame_times
from muxer.media.limits import decoding_seconds
from muxer.media.media_info import TIME_TOLERANCE_US, MediaInfo, Packets, Video, require_video
from muxer.media.mp4 import TIMESCALE, to_ticks
from muxer.system.process import Runner

log = logging.getLogger(__name__)

# A file with a larger undecodable share of frames is rejected.
MAX_DAMAGED_SHARE = 0.1
_MAX_COMPLAINTS = 3
# From 7.1 on, a decoder in strict mode may report the same packet again and again, without an end: 100,000 times a second.
MAX_COMPLAINTS_WITHOUT_FRAME = 1_000_000
# Messages of ffmpeg's versions for a stream without a decoder, and for one without any frame.
_NO_DECODER_TEXTS = ("no decoder found for", "not found for input stream")
_NO_FRAME_TEXT = "Cannot determine format of input"


@dataclass(frozen=True)
class _ScanResult:
    """The sorted times of the frames that a decoder returned, in ticks of 1/90000 s, and its error messages."""

    shown: array[int]
    complaints: str


def keep_decodable(source: MediaInfo, tools: MediaTools, runner: Runner) -> MediaInfo:
    """Return a screen file with only its decodable frames; instead of a damaged one, the previous frame is shown.

    A frame with a decoder's error counts as damaged, unless a tenth of the file does. Raises MediaError when a tenth is
    lost.
    """
    scan = _scan_frames(replace(source, strict=True), tools, runner)
    if scan.complaints or not scan.shown:
        source = replace(source, damaged=True)
        strict = replace(source, strict=True)
        scan, played = _scan_frames(strict, tools, runner), _scan_frames(source, tools, runner)
        if len(scan.shown) >= (1 - MAX_DAMAGED_SHARE) * len(played.shown):
            source = strict
        else:
            scan = played
    reduced = _reduce_packets(source, scan.shown)
    if scan.complaints:
        _report_damage(reduced, scan.complaints)
    video = replace(require_video(source), packets=reduced.packets)
    return replace(source, video=video, lost_us=source.lost_us + reduced.lost_us, scanned=True)


@dataclass(frozen=True)
class _ReducedPackets:
    """The remaining packets, the times of the removed ones, and how much later the first frame is (microseconds)."""

    packets: Packets
    original_count: int
    removed_us: tuple[int, ...]
    lost_us: int


def _report_damage(reduced: _ReducedPackets, complaints: str) -> None:
    """Log how many frames are damaged, or the decoder's messages when there are none. Raises MediaError for too many."""
    if len(reduced.removed_us) > MAX_DAMAGED_SHARE * reduced.original_count:
        raise MediaError(
            f"the file is damaged: {len(reduced.removed_us)} of {reduced.original_count} frames cannot be decoded, "
            f"the first at {reduced.removed_us[0] / 1e6:.2f} s",
            code=Code.DAMAGED,
        )
    if reduced.removed_us:
        log.warning(
            "%d of %d frames are damaged, the first at %.2f s; the previous frame is shown instead of each",
            *(len(reduced.removed_us), reduced.original_count, reduced.removed_us[0] / 1e6),
        )
    else:
        log.warning("the file is damaged; its decodable frames are shown: %s", complaints.strip())


def _scan_frames(source: MediaInfo, tools: MediaTools, runner: Runner) -> _ScanResult:
    """Decode a whole file. Raises MediaError when it has no frame, or no decoder."""
    complaints: list[str] = []
    since_frame = itertools.count(1)

    def note_line(line: bytes) -> bool:
        if len(complaints) < _MAX_COMPLAINTS:
            complaints.append(line.decode(errors="replace"))
        if source.strict and next(since_frame) > MAX_COMPLAINTS_WITHOUT_FRAME:
            raise ToolError("the decoder does not get beyond a damaged frame")
        return False

    def read_times(lines: Iterable[bytes]) -> array[int]:
        nonlocal since_frame
        times = array("q")
        for _, time in parse_frame_times(lines):
            times.append(time)
            since_frame = itertools.count(1)
        return times

    timeout = decoding_seconds(len(require_video(source).packets.pts))
    try:
        shown = runner.run_streaming(scan_command(tools, source), read_times, timeout=timeout, hear=note_line)
    except ToolError as error:
        if any(sign in str(error) for sign in _NO_DECODER_TEXTS):
            codec = require_video(source).codec_name
            raise MediaError(f"the codec {codec} is not supported by this build of ffmpeg", code=Code.NO_MEDIA) from error
        # Some decoders terminate ffmpeg in strict mode.
        if not source.strict:
            what = "no frame of the file can" if _NO_FRAME_TEXT in str(error) else "the file cannot"
            raise MediaError(f"{what} be decoded: {error}", code=Code.DAMAGED) from error
        return _ScanResult(array("q"), str(error))
    if not shown and not source.strict:
        raise MediaError(f"no frame of the file can be decoded: {''.join(complaints)}", code=Code.DAMAGED)
    return _ScanResult(array("q", sorted(shown)), "".join(complaints))


def _reduce_packets(source: MediaInfo, shown: Sequence[int]) -> _ReducedPackets:
    video = require_video(source)
    packets = video.packets
    times = [video.ticks_to_us(pts) for pts in packets.pts]
    order = sorted(range(len(times)), key=times.__getitem__)
    kept = [number for number, time in enumerate(times) if _is_among(to_ticks(time), shown)]
    unmatched = set(order).difference(kept)
    removed = tuple(times[number] - times[order[0]] for number in order if number in unmatched)
    # When the decoder returns frames at other times than the file states, its times are right.
    keeps_times = len(kept) == len(shown) and not video.lacks_times
    chosen = packets.select_packets(kept) if keeps_times else _packets_as_decoded(shown, source)
    reduced = replace(video, packets=chosen)
    hold_to_end(chosen, times[order[0]] + video.length_us, reduced)
    return _ReducedPackets(chosen, len(times), removed, reduced.ticks_to_us(reduced.first_pts) - times[order[0]])


def _is_among(tick: int, shown: Sequence[int]) -> bool:
    """Return whether a frame was decoded at the time `tick`, within rounding."""
    tolerance = to_ticks(TIME_TOLERANCE_US) // 2
    number = bisect_left(shown, tick - tolerance)
    return number < len(shown) and shown[number] <= tick + tolerance


def _packets_as_decoded(shown: Sequence[int], source: MediaInfo) -> Packets:
    """Return packets for decoded frames. Decoding can then only start at the beginning of the file."""
    scale = require_video(source).time_base
    # Of two frames at one time, the later one is visible.
    pts = array("q", sorted({round(tick / (scale * TIMESCALE)) for tick in shown}))
    count = len(pts)
    return Packets(pts, pts, array("q", bytes(8 * count)), bytearray(count))


def hold_to_end(packets: Packets, end_us: int, video: Video) -> None:
    """Show the last remaining frame until `end_us`, the end of the file."""
    last = max(range(len(packets.pts)), key=packets.pts.__getitem__)
    missing = end_us - video.ticks_to_us(packets.pts[last] + packets.durations[last])
    if missing > TIME_TOLERANCE_US:
        packets.durations[last] += int(missing / (video.time_base * 1_000_000))
