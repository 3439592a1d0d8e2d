"""Compare a muxed file on the disk with its plan.

What was copied is compared by a checksum, what was encoded as frames, and the times of all frames with the plan. Only the
frames after each join are decoded, from their keyframe on.
"""

from __future__ import annotations

import contextlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, repeat
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from muxer.errors import Code, MediaError, ToolError
from muxer.media.ffmpeg import MediaTools, parse_frame_times
from muxer.media.frame_comparison import is_alike, is_black
from muxer.media.limits import decoding_seconds
from muxer.media.media_info import TIME_TOLERANCE_US
from muxer.media.mp4 import (
    MAX_PACKET_US,
    TIMESCALE,
    AvcConfig,
    BoxError,
    SampleTable,
    Track,
    decoding_times,
    is_increasing,
    join_extents,
    read_tracks,
    sorted_copy,
    to_ticks,
    write_movie,
)
from muxer.media.plan.commands import EXCERPT_TICKS, FRAME_FILE_SUFFIX
from muxer.media.plan.frame_checks import (
    FrameCheck,
    batch_frame_checks,
    comparison_size,
    excerpt_length,
    source_frame_commands,
    source_frame_path,
)
from muxer.media.plan.mux_plan import EXCERPTS, Plan
from muxer.media.plan.pieces import Piece, count_frames_in, padding_slices
from muxer.system import files
from muxer.system.process import Runner

# To decode the excerpts, which contain all frames of encoded pieces: in all, and more for each frame.
DECODE_CHECK_SECONDS, DECODE_SECONDS_PER_FRAME = 300.0, 0.1
MICROSECONDS_PER_SECOND = 1_000_000
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Expected:
    """A muxed file and what it must contain. `checksums` are those of the video and audio samples as read."""

    path: Path
    plan: Plan
    samples: SampleTable
    avc: AvcConfig
    checksums: tuple[int, int]


def verify_result(expected: Expected, tools: MediaTools, runner: Runner) -> None:
    """Verify that a muxed file is as planned and can be decoded. Raises MediaError or ToolError."""
    _check_decoding(expected, _read_back(expected), runner)
    _check_frames(expected, tools, runner)


def _read_back(expected: Expected) -> SampleTable:
    """Compare tables and samples with the plan. Returns the samples to decode; the tables are not kept in memory."""
    try:
        video, audio = read_tracks(expected.path)
    except (BoxError, ValueError) as error:
        raise _mismatch_error(f"the muxed file cannot be read: {error}") from error
    shown = presentation_times(video)
    _check_tables(expected, video, audio, shown)
    _check_samples(expected, video, audio)
    _check_pieces(expected.plan, shown)
    return choose_excerpt_samples(expected, video)


def _mismatch_error(difference: str) -> MediaError:
    return MediaError(difference, code=Code.NOT_VERIFIED)


def presentation_times(video: Track) -> array[int]:
    """Return when the frames of a track are shown, in ticks and in this order."""
    shifts = video.shifts or repeat(0)
    times = (time + shift - video.skipped for time, shift in zip(video.decode_times, shifts, strict=False))
    return sorted_copy(array("q", times))


def _check_tables(expected: Expected, video: Track, audio: Track, shown: array[int]) -> None:
    target, planned = expected.plan.target, expected.plan.sources.audio
    size = tuple(int.from_bytes(video.description[1][at : at + 2], "big") for at in (24, 26))
    if video.description[0] != b"avc1" or size != (target.width, target.height):
        wanted = f"H.264 {target.width}x{target.height}"
        raise _mismatch_error(f"the video is {video.description[0]!r} {size} and not {wanted}")
    if video.orientation != target.orientation:
        raise _mismatch_error("the orientation of the frames is not the planned one")
    if not is_increasing(shown):
        raise _mismatch_error("two frames are shown at the same time")
    if min(video.durations) <= 0 or min(audio.durations) < 0:
        raise _mismatch_error("the times of the samples do not increase")
    length = expected.samples.length
    video_ticks = video.total_ticks - video.skipped
    if shown[0] != 0 or video_ticks != length:
        actual = f"{video_ticks / TIMESCALE:.3f} s from {shown[0] / TIMESCALE:.3f} s"
        raise _mismatch_error(f"the video lasts {actual} and not {length / TIMESCALE:.3f} s")
    audio_us = (audio.total_ticks - audio.skipped) * MICROSECONDS_PER_SECOND // audio.timescale
    if abs(audio_us - planned.length_us) > MAX_PACKET_US:
        raise _mismatch_error(f"the audio is {audio_us / 1e6:.3f} s long and not {planned.length_us / 1e6:.3f} s")
    if audio.description != planned.track.description or audio.durations != planned.track.durations:
        raise _mismatch_error("the audio differs in its form or its times from its source")


def _check_samples(expected: Expected, video: Track, audio: Track) -> None:
    sizes_of_both = (expected.samples.sizes, expected.plan.sources.audio.track.sizes)
    both = zip(("video", "audio"), (video, audio), sizes_of_both, expected.checksums, strict=True)
    if list(video.sync or ()) != [number for number, key in enumerate(expected.samples.sync) if key]:
        raise _mismatch_error("the keyframes are not those of the sources")
    for name, track, sizes, checksum in both:
        if track.sizes != sizes or _sample_checksum(expected.path, track) != checksum:
            raise _mismatch_error(f"the {name} samples are not those of the sources")


def _sample_checksum(path: Path, track: Track) -> int:
    checksum, buffer = 0, memoryview(bytearray(_READ_BYTES))
    with path.open("rb", buffering=0) as file:
        for _, offset, length in join_extents(repeat(0), track.offsets, track.sizes):
            file.seek(offset)
            while length and (count := file.readinto(buffer[: min(length, len(buffer))])):
                checksum = crc32(buffer[:count], checksum)
                length -= count
    return checksum


def _check_pieces(plan: Plan, shown: Sequence[int]) -> None:
    """Raise MediaError when a piece does not have exactly the planned frames at their times."""
    bounds = [*(bisect_left(shown, to_ticks(piece.begin)) for piece in plan.parts), len(shown)]
    tolerance = to_ticks(TIME_TOLERANCE_US)
    for piece, (first, last) in zip(plan.parts, pairwise(bounds), strict=True):
        wanted, actual = planned_times(plan, piece), shown[first:last]
        where = f"{piece.begin / 1e6:.3f} to {piece.end / 1e6:.3f} s"
        if len(actual) != len(wanted):
            raise _mismatch_error(f"from {where} there are {len(actual)} frames instead of {len(wanted)}")
        if any(abs(time - to_ticks(planned)) > tolerance for time, planned in zip(actual, wanted, strict=True)):
            raise _mismatch_error(f"from {where} frames are shown at other times than in the source")


def planned_times(plan: Plan, piece: Piece) -> Sequence[int]:
    """Return when the frames of a piece are shown in the result, in microseconds."""
    rate = plan.target.rate
    if piece.clip is None or piece.cut is None:
        return [
            piece.begin + begin + round(number * MICROSECONDS_PER_SECOND / rate)
            for begin, end in padding_slices(piece.end - piece.begin, plan.slice_frames, rate)
            for number in range(count_frames_in(end - begin, rate))
        ]
    moved = piece.begin - piece.cut.begin
    return [piece.begin, *(time + moved for time in plan.indices[piece.clip].frames_between(piece.cut.begin, piece.cut.end))]


def _check_decoding(expected: Expected, table: SampleTable, runner: Runner) -> None:
    """Decode the excerpts, whose samples are `table`, and the end of the file; compare the times of all decoded frames."""
    path, plan = expected.path.with_name(EXCERPTS), expected.plan
    write_movie(path, table, expected.avc, None, plan.sources.start)
    frames: dict[int, list[int]] = {}
    timeout = DECODE_CHECK_SECONDS + DECODE_SECONDS_PER_FRAME * len(table.pts)
    for stream, time in parse_frame_times(runner.run(plan.check_command, timeout=timeout, complaint="[").splitlines()):
        frames.setdefault(stream, []).append(time)
    if sorted(frames.get(0, [])) != sorted(table.pts):
        decoded = len(frames.get(0, []))
        planned = f"{len(table.pts)} were planned"
        raise _mismatch_error(f"around the joins {decoded} frames are decoded where {planned}, or at other times")
    last = max(expected.samples.pts) - to_ticks(plan.check_from)
    if not any(abs(time - last) <= to_ticks(TIME_TOLERANCE_US) for time in frames.get(1, [])):
        raise _mismatch_error("the last frame is not where it was planned")
    if not (audio := frames.get(2)) or audio[-1] < last - to_ticks(MAX_PACKET_US):
        raise _mismatch_error("there is no audio at the end")
    files.remove_file(path)


def _check_frames(expected: Expected, tools: MediaTools, runner: Runner) -> None:
    """Raise MediaError when padding is not black, or a frame of an encoded piece differs from that of its source."""
    plan, folder, size = expected.plan, expected.path.parent, comparison_size(expected.plan.target)
    if not plan.frame_checks:
        return
    pixels = expected.path.with_name(EXCERPTS).with_suffix(FRAME_FILE_SUFFIX)
    with pixels.open("rb") as file:
        excerpts = _ExcerptFrames(file, plan.frame_checks, size)
        for check in plan.frame_checks:
            if check.clip is None and not is_black(excerpts.read_frame(check), size):
                raise _mismatch_error(f"the padding at {check.at / 1e6:.3f} s is not black")
        unequal = [check for check in plan.frame_checks if check.clip is not None]
        timeout = decoding_seconds(sum(len(video.packets.pts) for video in plan.sources.visible_videos.values()))
        commands: Iterable[Sequence[str]] = plan.frame_commands
        # A decoder that starts in the middle of a file may lack data: the second time it starts at the beginning.
        for _ in range(2):
            batches = zip(batch_frame_checks(unequal), commands, strict=True)
            unequal = [
                check
                for batch, command in batches
                for check in _find_different(batch, command, excerpts, folder, runner, timeout)
            ]
            screens = plan.sources.screens
            commands = source_frame_commands(unequal, screens, plan.indices, plan.target, tools, folder, seekable=False)
        if unequal:
            name = plan.sources.names[unequal[0].clip or 0]
            raise _mismatch_error(f"the frame at {unequal[0].at / 1e6:.3f} s is not that of {name} at this time")
    files.remove_file(pixels)


class _ExcerptFrames:
    """The frames of the excerpts that are compared; one is read at a time."""

    def __init__(self, file: BinaryIO, checks: Sequence[FrameCheck], size: tuple[int, int]) -> None:
        self.size = size
        self._file = file
        self._length = size[0] * size[1] * 3 // 2
        self._numbers = {check: number for number, check in enumerate(checks)}

    def read_frame(self, check: FrameCheck) -> bytes:
        self._file.seek(self._numbers[check] * self._length)
        return self._file.read(self._length)


def _find_different(
    checks: Sequence[FrameCheck],
    command: Sequence[str],
    excerpts: _ExcerptFrames,
    folder: Path,
    runner: Runner,
    timeout: float,
) -> list[FrameCheck]:
    """Write the frames of the sources with `command`, within `timeout` seconds. Returns the checks whose frames differ."""
    with contextlib.suppress(ToolError):
        runner.run(command, timeout=timeout)
    return [one for one in checks if not is_alike(excerpts.read_frame(one), _take_source_frame(folder, one), excerpts.size)]


def _take_source_frame(folder: Path, check: FrameCheck) -> bytes:
    """Read and remove the file of a source frame; empty when there is none."""
    path = source_frame_path(folder, check.number)
    with contextlib.suppress(FileNotFoundError):
        frame = path.read_bytes()
        files.remove_file(path)
        return frame
    return b""


def choose_excerpt_samples(expected: Expected, video: Track) -> SampleTable:
    """Return the samples to decode, one span after the other: those after the joins, and the encoded pieces."""
    ordered = sorted_copy(expected.samples.pts)
    chosen: list[int] = []
    for piece in expected.plan.parts:
        first = bisect_left(ordered, to_ticks(piece.begin))
        if not expected.samples.sync[first]:
            raise _mismatch_error(f"the piece at {piece.begin / 1e6:.3f} s does not start with a keyframe")
        chosen += range(first, first + excerpt_length(piece))
    shown = _evenly_spaced([expected.samples.pts[number] for number in chosen])
    return replace(
        expected.samples,
        files=(expected.path,),
        prefixes=(b"",),
        pts=shown,
        dts=decoding_times(shown),
        sync=bytearray(expected.samples.sync[number] for number in chosen),
        file=array("I", [0]) * len(chosen),
        offsets=array("q", (video.offsets[number] for number in chosen)),
        sizes=array("I", (video.sizes[number] for number in chosen)),
        prefix=array("I", [0]) * len(chosen),
        length=len(chosen) * EXCERPT_TICKS,
    )


def _evenly_spaced(shown: Sequence[int]) -> array[int]:
    """Replace the times of frames by multiples of EXCERPT_TICKS from 0 on, in the same order."""
    times = array("q", shown)
    for rank, number in enumerate(sorted(range(len(shown)), key=shown.__getitem__)):
        times[number] = rank * EXCERPT_TICKS
    return times
