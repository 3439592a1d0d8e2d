"""Holds a muxed file against its plan, as it lies on the disk.

What was copied is compared byte by byte, by a checksum. What was encoded is looked at. The times of all frames are those of
the plan. What follows each join is decoded, from the keyframe with which it begins: what precedes it was compared
already, or is a copy. So the cost does not grow with the distance of keyframes.
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

DECODE_CHECK_SECONDS = 300.0
FRAME_CHECK_SECONDS = 600.0
MICROSECONDS_PER_SECOND = 1_000_000
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Expected:
    """A muxed file as it was planned: where it lies, the samples that were to be written, how the frames are coded, and the
    checksums of the video and audio samples as they were read from the sources."""

    path: Path
    plan: Plan
    samples: SampleTable
    avc: AvcConfig
    checksums: tuple[int, int]


def verify_result(made: Expected, tools: MediaTools, runner: Runner) -> None:
    """Return when a muxed file is as planned and can be decoded.

    Raises :class:`MediaError` that says in what it differs, :class:`~muxer.errors.ToolError` when it cannot be decoded.
    """
    _check_decoding(made, _read_back(made), runner)
    _check_frames(made, tools, runner)


def _read_back(made: Expected) -> SampleTable:
    """Hold the tables and the samples of a muxed file against the plan; return the samples that are to be decoded. Of the
    tables nothing is kept while they are."""
    try:
        picture, sound = read_tracks(made.path)
    except (BoxError, ValueError) as error:
        raise _mismatch_error(f"the muxed file cannot be read: {error}") from error
    shown = _presentation_times(picture)
    _check_tables(made, picture, sound, shown)
    _check_samples(made, picture, sound)
    _check_pieces(made.plan, shown)
    return choose_excerpt_samples(made, picture)


def _mismatch_error(what: str) -> MediaError:
    """Return the error of a result that is not what was planned."""
    return MediaError(what, code=Code.NOT_VERIFIED)


def _presentation_times(picture: Track) -> array[int]:
    """Return when the frames are shown, in order."""
    shifts = picture.shifts or repeat(0)
    return sorted_copy(
        array("q", (one + shift - picture.skipped for one, shift in zip(picture.decode_times, shifts, strict=False)))
    )


def _check_tables(made: Expected, picture: Track, sound: Track, shown: array[int]) -> None:
    target, planned = made.plan.target, made.plan.sources.audio
    size = tuple(int.from_bytes(picture.description[1][at : at + 2], "big") for at in (24, 26))
    if picture.description[0] != b"avc1" or size != (target.width, target.height):
        wanted = f"H.264 {target.width}x{target.height}"
        raise _mismatch_error(f"the video is {picture.description[0]!r} {size} and not {wanted}")
    if picture.orientation != target.orientation:
        raise _mismatch_error("the frames are turned in another way than planned")
    if not is_increasing(shown):
        raise _mismatch_error("two frames are shown at the same time")
    if min(picture.durations) <= 0 or min(sound.durations) < 0:
        raise _mismatch_error("the times of the samples do not increase")
    length = made.samples.length
    found = picture.total_ticks - picture.skipped
    if shown[0] != 0 or found != length:
        there = f"{found / TIMESCALE:.3f} s from {shown[0] / TIMESCALE:.3f} s"
        raise _mismatch_error(f"the video lasts {there} and not {length / TIMESCALE:.3f} s")
    heard = (sound.total_ticks - sound.skipped) * MICROSECONDS_PER_SECOND // sound.timescale
    if abs(heard - planned.length_us) > MAX_PACKET_US:
        raise _mismatch_error(f"the audio is {heard / 1e6:.3f} s long and not {planned.length_us / 1e6:.3f} s")
    if sound.description != planned.track.description or sound.durations != planned.track.durations:
        raise _mismatch_error("the audio has another form, or other times, than the samples it was copied from")


def _check_samples(made: Expected, picture: Track, sound: Track) -> None:
    """Raise when the bytes of the samples are not those that were read from the sources."""
    sizes_of_both = (made.samples.sizes, made.plan.sources.audio.track.sizes)
    both = zip(("video", "audio"), (picture, sound), sizes_of_both, made.checksums, strict=True)
    for name, track, sizes, checksum in both:
        if track.sizes != sizes or _sample_checksum(made.path, track) != checksum:
            raise _mismatch_error(f"the {name} samples are not those of the sources")


def _sample_checksum(path: Path, track: Track) -> int:
    """Return the checksum of the bytes of a track's samples, in order."""
    checksum, buffer = 0, memoryview(bytearray(_READ_BYTES))
    with path.open("rb", buffering=0) as file:
        for _, offset, length in join_extents(repeat(0), track.offsets, track.sizes):
            file.seek(offset)
            while length and (there := file.readinto(buffer[: min(length, len(buffer))])):
                checksum = crc32(buffer[:there], checksum)
                length -= there
    return checksum


def _check_pieces(plan: Plan, shown: Sequence[int]) -> None:
    """Raise when a piece of the result has not exactly the frames that were planned, at their times."""
    bounds = [*(bisect_left(shown, to_ticks(piece.begin)) for piece in plan.parts), len(shown)]
    near = to_ticks(TIME_TOLERANCE_US)
    for piece, (first, last) in zip(plan.parts, pairwise(bounds), strict=True):
        wanted, found = planned_times(plan, piece), shown[first:last]
        where = f"{piece.begin / 1e6:.3f} to {piece.end / 1e6:.3f} s"
        if len(found) != len(wanted):
            raise _mismatch_error(f"from {where} there are {len(found)} frames and not {len(wanted)}")
        if any(abs(one - to_ticks(another)) > near for one, another in zip(found, wanted, strict=True)):
            raise _mismatch_error(f"from {where} frames are shown at other times than in the source")


def planned_times(plan: Plan, piece: Piece) -> Sequence[int]:
    """Return when the frames of a piece are shown in the result, in microseconds: those of the source, anchored to its
    place on the axis, or evenly spaced ones of padding."""
    rate = plan.target.rate
    if piece.clip is None or piece.cut is None:
        return [
            piece.begin + begin + round(number * MICROSECONDS_PER_SECOND / rate)
            for begin, end in padding_slices(piece.end - piece.begin, plan.slice_frames, rate)
            for number in range(count_frames_in(end - begin, rate))
        ]
    moved = piece.begin - piece.cut.begin
    return [piece.begin, *(one + moved for one in plan.indices[piece.clip].frames_between(piece.cut.begin, piece.cut.end))]


def _check_decoding(made: Expected, row: SampleTable, runner: Runner) -> None:
    """Decode the excerpts, whose samples are ``row``, and the end of the file itself; compare the times of all frames that
    come out."""
    path, plan = made.path.with_name(EXCERPTS), made.plan
    write_movie(path, row, made.avc, None, plan.sources.start)
    frames: dict[int, list[int]] = {}
    for stream, time in parse_frame_times(
        runner.run(plan.check_command, timeout=DECODE_CHECK_SECONDS, complaint="[").splitlines()
    ):
        frames.setdefault(stream, []).append(time)
    if sorted(frames.get(0, [])) != sorted(row.pts):
        decoded = len(frames.get(0, []))
        planned = f"{len(row.pts)} were planned"
        raise _mismatch_error(f"around the joins {decoded} frames are decoded where {planned}, or at other times")
    last = max(made.samples.pts)
    if not any(abs(one + to_ticks(plan.check_from) - last) <= to_ticks(TIME_TOLERANCE_US) for one in frames.get(1, [])):
        raise _mismatch_error("the last frame is not where it was planned")
    if not frames.get(2):
        raise _mismatch_error("there is no sound at the end")
    files.remove_file(path)


def _check_frames(made: Expected, tools: MediaTools, runner: Runner) -> None:
    """Raise when padding is not black, or a frame of an encoded piece does not look like that of its source."""
    plan, folder, size = made.plan, made.path.parent, comparison_size(made.plan.target)
    if not plan.frame_checks:
        return
    pixels = made.path.with_name(EXCERPTS).with_suffix(FRAME_FILE_SUFFIX)
    with pixels.open("rb") as file:
        views = _ExcerptFrames(file, plan.frame_checks, size)
        for look in plan.frame_checks:
            if look.clip is None and not is_black(views.read_frame(look), size):
                raise _mismatch_error(f"the padding at {look.at / 1e6:.3f} s is not black")
        left = [look for look in plan.frame_checks if look.clip is not None]
        commands: Iterable[Sequence[str]] = plan.frame_commands
        # A decoder that begins in the middle of a file may lack what it needs: the second time it begins with the file.
        for _ in range(2):
            batches = zip(batch_frame_checks(left), commands, strict=True)
            left = [look for batch, command in batches for look in _find_different(batch, command, views, folder, runner)]
            commands = source_frame_commands(
                left, plan.sources.screens, plan.indices, plan.target, tools, folder, seekable=False
            )
        if left:
            name = plan.sources.names[left[0].clip or 0]
            raise _mismatch_error(f"the frame at {left[0].at / 1e6:.3f} s is not that of {name} at this time")
    files.remove_file(pixels)


class _ExcerptFrames:
    """The frames of the excerpts that are compared; one of them is read at a time."""

    def __init__(self, file: BinaryIO, looks: Sequence[FrameCheck], size: tuple[int, int]) -> None:
        """``file`` holds the frames of the ``looks`` in this order, as yuv420p of ``size``."""
        self.size = size
        self._file = file
        self._length = size[0] * size[1] * 3 // 2
        self._places = {look: number for number, look in enumerate(looks)}

    def read_frame(self, look: FrameCheck) -> bytes:
        """Return the frame of a look; less than a whole one when it was not decoded."""
        self._file.seek(self._places[look] * self._length)
        return self._file.read(self._length)


def _find_different(
    looks: Sequence[FrameCheck], command: Sequence[str], views: _ExcerptFrames, folder: Path, runner: Runner
) -> list[FrameCheck]:
    """Write the frames of the sources by a command, and return those looks that differ."""
    with contextlib.suppress(ToolError):
        runner.run(command, timeout=FRAME_CHECK_SECONDS)
    return [look for look in looks if not is_alike(views.read_frame(look), _take_source_frame(folder, look), views.size)]


def _take_source_frame(folder: Path, look: FrameCheck) -> bytes:
    """Return the frame of a source that was looked at, empty when there is none, and remove its file."""
    path = source_frame_path(folder, look.number)
    with contextlib.suppress(FileNotFoundError):
        frame = path.read_bytes()
        files.remove_file(path)
        return frame
    return b""


def choose_excerpt_samples(made: Expected, picture: Track) -> SampleTable:
    """Return the samples to decode: what follows the joins, and the encoded pieces, one stretch after the other.

    ``picture`` is the video track as it was read from the muxed file.
    """
    ordered = sorted_copy(made.samples.pts)
    chosen: list[int] = []
    for piece in made.plan.parts:
        first = bisect_left(ordered, to_ticks(piece.begin))
        if not made.samples.sync[first]:
            raise _mismatch_error(f"what begins at {piece.begin / 1e6:.3f} s does not begin with a keyframe")
        chosen += range(first, first + excerpt_length(piece))
    shown = _evenly_spaced([made.samples.pts[number] for number in chosen])
    return replace(
        made.samples,
        files=(made.path,),
        prefixes=(b"",),
        pts=shown,
        dts=decoding_times(shown),
        sync=bytearray(made.samples.sync[number] for number in chosen),
        file=array("I", [0]) * len(chosen),
        offsets=array("q", (picture.offsets[number] for number in chosen)),
        sizes=array("I", (picture.sizes[number] for number in chosen)),
        prefix=array("I", [0]) * len(chosen),
        length=len(chosen) * EXCERPT_TICKS,
    )


def _evenly_spaced(shown: Sequence[int]) -> array[int]:
    """Return other times for frames, in the same order: multiples of `EXCERPT_TICKS`, from zero on."""
    made = array("q", shown)
    for rank, number in enumerate(sorted(range(len(shown)), key=shown.__getitem__)):
        made[number] = rank * EXCERPT_TICKS
    return made
