"""Which frames of a screen file a decoder really returns: every packet is decoded once, and nothing is kept but its time.

What stands in a file need not be seen: packets may be damaged, or hold frames that are never shown (VP8, packed B-frames).
Files whose frames are copied need no such look; files that are re-encoded are planned with what comes out of it.
"""

from __future__ import annotations

import logging
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from muxer.errors import Code, MediaError, ToolError
from muxer.media.analyze.source_commands import scan_command
from muxer.media.ffmpeg import MediaTools, parse_frame_times
from muxer.media.media_info import TIME_TOLERANCE_US, MediaInfo, Packets, Video, require_video
from muxer.media.mp4 import TIMESCALE, to_ticks
from muxer.system.process import Runner

log = logging.getLogger(__name__)

SCAN_SECONDS = 1800.0
# A file of which more than this share of the frames cannot be decoded is refused.
MAX_DAMAGED_SHARE = 0.1
_MAX_COMPLAINTS = 3
# What ffmpeg reports in its versions of a stream for which it has no decoder, and of one without any frame.
_NO_DECODER_TEXTS = ("no decoder found for", "not found for input stream")
_NO_FRAME_TEXT = "Cannot determine format of input"


@dataclass(frozen=True)
class _ScanResult:
    """The times of the frames that a decoder returned, in ticks of 1/90000 s and in order, and what it complained of."""

    shown: array[int]
    complaints: str


def keep_decodable(source: MediaInfo, tools: MediaTools, runner: Runner) -> MediaInfo:
    """Return a screen file with only those frames that can be decoded; the one before a damaged frame is held in its place.

    Decoders that conceal damage return a frame all the same. It counts as damaged when the decoder finds an error in it,
    unless that would be more than a tenth of a file that plays. Raises :class:`MediaError` when more than a tenth of the
    frames cannot be decoded.
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
    found = _reduce_packets(source, scan.shown)
    if scan.complaints:
        _report_damage(found, scan.complaints)
    video = replace(require_video(source), packets=found.packets)
    return replace(source, video=video, lost_us=source.lost_us + found.lost_us, scanned=True)


@dataclass(frozen=True)
class _ReducedPackets:
    """The packets that are left, how many there were, and the times of those that are gone, in microseconds from the first
    frame; ``lost_us`` is how much later the first frame is shown now."""

    packets: Packets
    original_count: int
    removed_us: tuple[int, ...]
    lost_us: int


def _report_damage(found: _ReducedPackets, complaints: str) -> None:
    """Log how many frames are damaged, or what the decoder says when it returned them all. Raise :class:`MediaError` when
    they are too many."""
    if len(found.removed_us) > MAX_DAMAGED_SHARE * found.original_count:
        raise MediaError(
            f"the file is damaged: {len(found.removed_us)} of {found.original_count} frames cannot be decoded, the first at "
            f"{found.removed_us[0] / 1e6:.2f} s",
            code=Code.DAMAGED,
        )
    if found.removed_us:
        log.warning(
            "%d of %d frames are damaged, the first at %.2f s; the frame before is shown in the place of each",
            *(len(found.removed_us), found.original_count, found.removed_us[0] / 1e6),
        )
    else:
        log.warning("the file is damaged; its frames are shown as far as they can be decoded: %s", complaints.strip())


def _scan_frames(source: MediaInfo, tools: MediaTools, runner: Runner) -> _ScanResult:
    """Decode a file from its begin to its end. Raises MediaError when it has no frame, or no decoder."""
    complaints: list[str] = []

    def note_line(line: bytes) -> bool:
        if len(complaints) < _MAX_COMPLAINTS:
            complaints.append(line.decode(errors="replace"))
        return False

    try:
        shown = runner.run_streaming(scan_command(tools, source), _read_times, timeout=SCAN_SECONDS, hear=note_line)
    except ToolError as error:
        if any(sign in str(error) for sign in _NO_DECODER_TEXTS):
            codec = require_video(source).codec_name
            raise MediaError(f"the codec {codec} is not supported by this build of ffmpeg", code=Code.NO_MEDIA) from error
        # Some decoders end the whole program where they are to be strict.
        if not source.strict:
            what = "no frame of the file can" if _NO_FRAME_TEXT in str(error) else "the file cannot"
            raise MediaError(f"{what} be decoded: {error}", code=Code.DAMAGED) from error
        return _ScanResult(array("q"), str(error))
    if not shown and not source.strict:
        raise MediaError(f"no frame of the file can be decoded: {''.join(complaints)}", code=Code.DAMAGED)
    return _ScanResult(array("q", sorted(shown)), "".join(complaints))


def _read_times(lines: Iterable[bytes]) -> array[int]:
    """Return the presentation times of the frames that are printed."""
    return array("q", (time for _, time in parse_frame_times(lines)))


def _reduce_packets(source: MediaInfo, shown: Sequence[int]) -> _ReducedPackets:
    """Return the packets of a file whose frames were decoded, by their times."""
    video = require_video(source)
    packets = video.packets
    times = [video.ticks_to_us(pts) for pts in packets.pts]
    order = sorted(range(len(times)), key=times.__getitem__)
    kept = [number for number, time in enumerate(times) if _is_among(to_ticks(time), shown)]
    left = set(order).difference(kept)
    gone = tuple(times[number] - times[order[0]] for number in order if number in left)
    # Frames that come out at other times than those of the file have times that the decoder knows better.
    chosen = (
        packets.select_packets(kept)
        if len(kept) == len(shown) and not video.lacks_times
        else _packets_as_decoded(shown, source)
    )
    reduced = replace(video, packets=chosen)
    _hold_to_end(chosen, times[order[0]] + video.length_us, reduced)
    return _ReducedPackets(chosen, len(times), gone, reduced.ticks_to_us(reduced.first_pts) - times[order[0]])


def _is_among(tick: int, shown: Sequence[int]) -> bool:
    """Whether a frame was decoded at a time, give or take what rounding does."""
    near = to_ticks(TIME_TOLERANCE_US) // 2
    place = bisect_left(shown, tick - near)
    return place < len(shown) and shown[place] <= tick + near


def _packets_as_decoded(shown: Sequence[int], source: MediaInfo) -> Packets:
    """Return packets made of decoded frames. Where decoding may begin is then unknown: it begins with the file."""
    scale = require_video(source).time_base
    # Two frames at one time are one: the latter is what is seen.
    pts = array("q", sorted({round(tick / (scale * TIMESCALE)) for tick in shown}))
    count = len(pts)
    return Packets(pts, pts, array("q", bytes(8 * count)), bytearray(count))


def _hold_to_end(packets: Packets, end_us: int, video: Video) -> None:
    """Show the last frame that is left until the end of the file, ``end_us`` in the time of the file."""
    last = max(range(len(packets.pts)), key=packets.pts.__getitem__)
    missing = end_us - video.ticks_to_us(packets.pts[last] + packets.durations[last])
    if missing > TIME_TOLERANCE_US:
        packets.durations[last] += int(missing / (video.time_base * 1_000_000))
