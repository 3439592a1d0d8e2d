"""Holds a muxed file against its plan, as it lies on the disk: its tables, then the pictures around each join, decoded."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise, repeat
from pathlib import Path

from muxer.errors import Code, MediaError
from muxer.media.avc import Avc
from muxer.media.boxes import BoxError
from muxer.media.compose import TIMESCALE, Row, decoding_times, ticks
from muxer.media.cut import NEAR
from muxer.media.ordering import in_order, rises
from muxer.media.plain import Sound
from muxer.media.render import Piece, Target, Tools, check_command
from muxer.media.tracks import Track, read_tracks
from muxer.media.write import write_movie
from muxer.process import Runner

# Lossy audio ends at a packet's border; no packet of a playable codec is longer.
AUDIO_PACKET = 150_000
# So many frames behind a join are decoded with it.
FRAMES_AFTER = 3
CHECK_SECONDS = 300.0
MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class Made:
    """A muxed file as it was planned: where it lies, its parameters, its pieces, and the samples that were to be written."""

    path: Path
    target: Target
    avc: Avc
    parts: Sequence[Piece]
    row: Row
    sound: Sound
    start: datetime


def check(made: Made, tools: Tools, runner: Runner) -> None:
    """Given a muxed file, return when it is as planned and its joins can be decoded.

    Raise :class:`MediaError` that says in what it differs, :class:`~muxer.errors.ToolError` when it cannot be decoded.
    """
    _check_decoding(made, _read_back(made), tools, runner)


def _read_back(made: Made) -> Row:
    """Hold the tables of a muxed file against the plan; return the samples that are to be decoded. Of the tables nothing is
    kept while they are."""
    try:
        picture, sound = read_tracks(made.path)
    except (BoxError, ValueError) as error:
        raise _wrong(f"the muxed file cannot be read: {error}") from error
    shown = _shown(picture)
    _check_tables(made, picture, sound, shown)
    _check_pieces(made.parts, shown)
    return excerpt(made, picture)


def _wrong(what: str) -> MediaError:
    """Return the error of a result that is not what was planned."""
    return MediaError(what, code=Code.NOT_VERIFIED)


def _shown(picture: Track) -> array[int]:
    """Return when the frames are shown, in order."""
    shifts = picture.shifts or repeat(0)
    return in_order(array("q", (one + shift - picture.skipped for one, shift in zip(picture.decoded, shifts, strict=False))))


def _check_tables(made: Made, picture: Track, sound: Track, shown: array[int]) -> None:
    size = tuple(int.from_bytes(picture.description[1][at : at + 2], "big") for at in (24, 26))
    if picture.description[0] != b"avc1" or size != (made.target.width, made.target.height):
        wanted = f"H.264 {made.target.width}x{made.target.height}"
        raise _wrong(f"the video is {picture.description[0]!r} {size} and not {wanted}")
    if not rises(shown):
        raise _wrong("two frames are shown at the same time")
    if min(picture.durations) <= 0 or min(sound.durations) < 0:
        raise _wrong("the times of the samples do not increase")
    length = made.row.length
    found = picture.length - picture.skipped
    if shown[0] != 0 or found != length:
        there = f"{found / TIMESCALE:.3f} s from {shown[0] / TIMESCALE:.3f} s"
        raise _wrong(f"the video lasts {there} and not {length / TIMESCALE:.3f} s")
    heard = (sound.length - sound.skipped) * MICROSECONDS // sound.timescale
    if abs(heard - made.sound.length_us) > AUDIO_PACKET:
        raise _wrong(f"the audio is {heard / 1e6:.3f} s long and not {made.sound.length_us / 1e6:.3f} s")


def _check_pieces(parts: Sequence[Piece], shown: Sequence[int]) -> None:
    """Raise when a piece of the result has not exactly the frames that were planned."""
    bounds = [*(bisect_left(shown, ticks(piece.begin)) for piece in parts), len(shown)]
    for piece, (first, last) in zip(parts, pairwise(bounds), strict=True):
        if last - first != piece.frames:
            where = f"{piece.begin / 1e6:.3f} to {piece.end / 1e6:.3f} s"
            raise _wrong(f"from {where} there are {last - first} frames and not {piece.frames}")


def _check_decoding(made: Made, row: Row, tools: Tools, runner: Runner) -> None:
    """Decode the pictures around each join from excerpts, and the end from the file itself; compare the times of all
    frames that come out."""
    excerpts = made.path.with_name("excerpts.mp4")
    write_movie(excerpts, row, made.avc, None, made.start)
    last = max(made.row.shown)
    begin = max(0, last * MICROSECONDS // TIMESCALE - NEAR)
    command = check_command(tools, excerpts, made.path, begin)
    frames = _frames(runner.run(command, timeout=CHECK_SECONDS, complaint="["))
    excerpts.unlink()
    if sorted(frames.get(0, [])) != sorted(row.shown):
        decoded = len(frames.get(0, []))
        planned = f"{len(row.shown)} were planned"
        raise _wrong(f"around the joins {decoded} frames are decoded where {planned}, or at other times")
    if not any(abs(one + ticks(begin) - last) <= ticks(NEAR) for one in frames.get(1, [])):
        raise _wrong("the last frame is not seen where it was planned")
    if not frames.get(2):
        raise _wrong("there is no sound at the end")


def excerpt(made: Made, picture: Track) -> Row:
    """Given a muxed file and its video track as it was read from it, return the samples around its start and its joins,
    each from the key frame before it on, one stretch after the other."""
    ordered = in_order(made.row.shown)
    joins = [bisect_left(ordered, ticks(piece.begin)) for piece in made.parts]
    numbers: dict[int, None] = {}
    for join in joins:
        key = max(join - 1, 0)
        while key and not made.row.sync[key]:
            key -= 1
        numbers.update(dict.fromkeys(range(key, min(join + FRAMES_AFTER, len(ordered)))))
    chosen = sorted(numbers)
    shown = _moved_together([made.row.shown[number] for number in chosen], chosen)
    return replace(
        made.row,
        files=(made.path,),
        prefixes=(b"",),
        shown=shown,
        decoded=decoding_times(shown),
        sync=bytearray(made.row.sync[number] for number in chosen),
        file=array("I", [0]) * len(chosen),
        offsets=array("q", (picture.offsets[number] for number in chosen)),
        sizes=array("I", (picture.sizes[number] for number in chosen)),
        before=array("I", [0]) * len(chosen),
        length=max(shown) + TIMESCALE,
    )


def _moved_together(shown: Sequence[int], chosen: Sequence[int]) -> array[int]:
    """Return the times of chosen samples so that the first is at zero, and a second lies between those that did not follow
    one another."""
    made = array("q")
    begin, free = 0, 0
    for position, moment in enumerate(shown):
        if position and chosen[position] != chosen[position - 1] + 1:
            begin = position
        if position == begin:
            base = free - min(_stretch(shown, chosen, begin))
        made.append(moment + base)
        free = max(free, made[-1] + TIMESCALE)
    return made


def _stretch(shown: Sequence[int], chosen: Sequence[int], begin: int) -> Sequence[int]:
    """Return the times of the samples that follow one another from ``begin`` on."""
    end = begin + 1
    while end < len(chosen) and chosen[end] == chosen[end - 1] + 1:
        end += 1
    return shown[begin:end]


def _frames(printed: bytes) -> dict[int, list[int]]:
    """Given what the check printed, return the times of the frames of each stream."""
    frames: dict[int, list[int]] = {}
    for line in printed.decode(errors="replace").splitlines():
        if line and not line.startswith("#"):
            stream, _dts, pts = (int(field) for field in line.split(",")[:3])
            frames.setdefault(stream, []).append(pts)
    return frames
