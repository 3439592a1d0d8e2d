"""Holds a muxed file against its plan, as it lies on the disk.

What was copied is compared byte by byte, by a checksum. What was encoded is looked at. The times of all frames are those of
the plan. What follows each join is decoded, from the keyframe with which it begins: what stands before it was looked at
already, or is a copy. So the cost does not grow with the distance of keyframes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, repeat
from pathlib import Path
from zlib import crc32

from muxer.errors import Code, MediaError
from muxer.media.avc import Avc
from muxer.media.boxes import BoxError
from muxer.media.compose import TIMESCALE, Row, decoding_times, ticks
from muxer.media.cut import NEAR
from muxer.media.looks import is_alike, is_black, look_size, view_sources
from muxer.media.ordering import in_order, rises
from muxer.media.plan import Plan
from muxer.media.render import LOOKS, Piece, Tools, check_command, frames_in, slices
from muxer.media.tracks import Track, read_tracks
from muxer.media.write import write_movie
from muxer.process import Runner

# Lossy audio ends at a packet's border; no packet of a playable codec is longer.
AUDIO_PACKET = 150_000
# So many frames behind a join are decoded.
FRAMES_AFTER = 3
CHECK_SECONDS = 300.0
MICROSECONDS = 1_000_000
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Made:
    """A muxed file as it was planned: where it lies, the samples that were to be written, how the frames are coded, and the
    checksums of the video and audio samples as they were read from the sources."""

    path: Path
    plan: Plan
    row: Row
    avc: Avc
    checksums: tuple[int, int]


def check(made: Made, tools: Tools, runner: Runner) -> None:
    """Return when a muxed file is as planned and can be decoded.

    Raises :class:`MediaError` that says in what it differs, :class:`~muxer.errors.ToolError` when it cannot be decoded.
    """
    excerpts = _read_back(made)
    frames = _check_decoding(made, excerpts, tools, runner)
    _check_looks(made, frames, tools, runner)


@dataclass(frozen=True)
class _Excerpts:
    """The samples of the result that are decoded. ``looks`` and ``black`` are numbers of frames in the order in which they
    are shown there: those that are compared with frames of the sources, and the first one of padding, if there is some."""

    row: Row
    looks: tuple[int, ...]
    black: tuple[int, ...]


def _read_back(made: Made) -> _Excerpts:
    """Hold the tables and the samples of a muxed file against the plan; return the samples that are to be decoded. Of the
    tables nothing is kept while they are."""
    try:
        picture, sound = read_tracks(made.path)
    except (BoxError, ValueError) as error:
        raise _wrong(f"the muxed file cannot be read: {error}") from error
    shown = _shown(picture)
    _check_tables(made, picture, sound, shown)
    _check_samples(made, picture, sound)
    _check_pieces(made.plan, shown)
    return choose_excerpts(made, picture)


def _wrong(what: str) -> MediaError:
    """Return the error of a result that is not what was planned."""
    return MediaError(what, code=Code.NOT_VERIFIED)


def _shown(picture: Track) -> array[int]:
    """Return when the frames are shown, in order."""
    shifts = picture.shifts or repeat(0)
    return in_order(array("q", (one + shift - picture.skipped for one, shift in zip(picture.decoded, shifts, strict=False))))


def _check_tables(made: Made, picture: Track, sound: Track, shown: array[int]) -> None:
    target, planned = made.plan.target, made.plan.sources.sound
    size = tuple(int.from_bytes(picture.description[1][at : at + 2], "big") for at in (24, 26))
    if picture.description[0] != b"avc1" or size != (target.width, target.height):
        wanted = f"H.264 {target.width}x{target.height}"
        raise _wrong(f"the video is {picture.description[0]!r} {size} and not {wanted}")
    if picture.orientation != target.orientation:
        raise _wrong("the frames are turned in another way than planned")
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
    if abs(heard - planned.length_us) > AUDIO_PACKET:
        raise _wrong(f"the audio is {heard / 1e6:.3f} s long and not {planned.length_us / 1e6:.3f} s")
    if sound.description != planned.track.description or sound.durations != planned.track.durations:
        raise _wrong("the audio has another form, or other times, than the samples it was copied from")


def _check_samples(made: Made, picture: Track, sound: Track) -> None:
    """Raise when the bytes of the samples are not those that were read from the sources."""
    sizes_of_both = (made.row.sizes, made.plan.sources.sound.track.sizes)
    both = zip(("video", "audio"), (picture, sound), sizes_of_both, made.checksums, strict=True)
    for name, track, sizes, checksum in both:
        if track.sizes != sizes or _checksum(made.path, track) != checksum:
            raise _wrong(f"the {name} samples are not those of the sources")


def _checksum(path: Path, track: Track) -> int:
    """Return the checksum of the bytes of a track's samples, in order."""
    checksum, buffer = 0, memoryview(bytearray(_READ_BYTES))
    with path.open("rb", buffering=0) as file:
        for begin, end in _joined(track):
            file.seek(begin)
            while begin < end and (there := file.readinto(buffer[: min(end - begin, len(buffer))])):
                checksum = crc32(buffer[:there], checksum)
                begin += there
    return checksum


def _joined(track: Track) -> Iterator[tuple[int, int]]:
    """Yield where the samples of a track begin and end in the file, as one those that follow one another."""
    begin = end = track.offsets[0]
    for offset, size in zip(track.offsets, track.sizes, strict=True):
        if offset != end:
            yield begin, end
            begin = offset
        end = offset + size
    yield begin, end


def _check_pieces(plan: Plan, shown: Sequence[int]) -> None:
    """Raise when a piece of the result has not exactly the frames that were planned, at their times."""
    bounds = [*(bisect_left(shown, ticks(piece.begin)) for piece in plan.parts), len(shown)]
    near = ticks(NEAR)
    for piece, (first, last) in zip(plan.parts, pairwise(bounds), strict=True):
        wanted, found = planned_times(plan, piece), shown[first:last]
        where = f"{piece.begin / 1e6:.3f} to {piece.end / 1e6:.3f} s"
        if len(found) != len(wanted):
            raise _wrong(f"from {where} there are {len(found)} frames and not {len(wanted)}")
        if any(abs(one - ticks(another)) > near for one, another in zip(found, wanted, strict=True)):
            raise _wrong(f"from {where} frames are shown at other times than in the source")


def planned_times(plan: Plan, piece: Piece) -> Sequence[int]:
    """Return when the frames of a piece are shown in the result, in microseconds: those of the source, anchored to its
    place on the axis, or evenly spaced ones of padding."""
    rate = plan.target.rate
    if piece.clip is None or piece.cut is None:
        return [
            piece.begin + begin + round(number * MICROSECONDS / rate)
            for begin, end in slices(piece.end - piece.begin, plan.slice_frames, rate)
            for number in range(frames_in(end - begin, rate))
        ]
    moved = piece.begin - piece.cut.begin
    return [piece.begin, *(one + moved for one in plan.indices[piece.clip].shown_between(piece.cut.begin, piece.cut.end))]


def _check_decoding(made: Made, excerpts: _Excerpts, tools: Tools, runner: Runner) -> list[bytes]:
    """Decode the excerpts, and the end of the file itself; compare the times of all frames that come out. Returns the frames
    to compare, in the order in which they are shown."""
    path, size, row = made.path.with_name("excerpts.mp4"), look_size(made.plan.target), excerpts.row
    write_movie(path, row, made.avc, None, made.plan.sources.start)
    last = max(made.row.shown)
    begin = max(0, last * MICROSECONDS // TIMESCALE - NEAR)
    chosen = sorted({*excerpts.looks, *excerpts.black})
    command = check_command(tools, path, made.path, begin, chosen, size)
    frames = _frames(runner.run(command, timeout=CHECK_SECONDS, complaint="["))
    if sorted(frames.get(0, [])) != sorted(row.shown):
        decoded = len(frames.get(0, []))
        planned = f"{len(row.shown)} were planned"
        raise _wrong(f"around the joins {decoded} frames are decoded where {planned}, or at other times")
    if not any(abs(one + ticks(begin) - last) <= ticks(NEAR) for one in frames.get(1, [])):
        raise _wrong("the last frame is not where it was planned")
    if not frames.get(2):
        raise _wrong("there is no sound at the end")
    path.unlink()
    if not chosen:
        return []
    pixels = path.with_suffix(LOOKS).read_bytes()
    path.with_suffix(LOOKS).unlink()
    length = size[0] * size[1] * 3 // 2
    seen = dict(zip(chosen, (pixels[at : at + length] for at in range(0, len(pixels), length)), strict=True))
    if not all(is_black(seen[number], size) for number in excerpts.black):
        raise _wrong("the padding is not black")
    return [seen[number] for number in excerpts.looks]


def _check_looks(made: Made, frames: Sequence[bytes], tools: Tools, runner: Runner) -> None:
    """Raise when a frame of an encoded piece does not look like that of its source."""
    plan, size = made.plan, look_size(made.plan.target)
    left = list(zip(plan.looks, frames, strict=True))
    # A decoder that begins in the middle of a file may not find all that it needs: the second time it begins with the file.
    for seekable in (True, False):
        looks = [look for look, _ in left]
        folder = made.path.parent
        seen = view_sources(looks, plan.sources.read, plan.indices, plan.target, tools, runner, folder, seekable=seekable)
        left = [one for one, other in zip(left, seen, strict=True) if not is_alike(one[1], other, size)]
        if not left:
            return
    look = left[0][0]
    raise _wrong(f"the frame at {look.at / 1e6:.3f} s is not that of {plan.sources.names[look.clip]} at this time")


def choose_excerpts(made: Made, picture: Track) -> _Excerpts:
    """Return the samples to decode: what follows the joins, and the encoded pieces, one stretch after the other.

    ``picture`` is the video track as it was read from the muxed file.
    """
    ordered = in_order(made.row.shown)
    places = [bisect_left(ordered, ticks(piece.begin)) for piece in made.plan.parts]
    numbers: dict[int, None] = {}
    for piece, first, last in zip(made.plan.parts, places, [*places[1:], len(ordered)], strict=True):
        if not made.row.sync[first]:
            raise _wrong(f"what begins at {piece.begin / 1e6:.3f} s does not begin with a keyframe")
        numbers.update(dict.fromkeys(range(first, last if piece.reason else min(first + FRAMES_AFTER, last))))
    chosen = sorted(numbers)
    shown = _moved_together([made.row.shown[number] for number in chosen], chosen)
    row = replace(
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
    rank = {made.row.shown[number]: place for place, number in enumerate(sorted(chosen, key=made.row.shown.__getitem__))}
    padded = next((piece.begin for piece in made.plan.parts if piece.clip is None), None)
    looks = tuple(rank[ordered[_nearest(ordered, ticks(look.at))]] for look in made.plan.looks)
    return _Excerpts(row, looks, () if padded is None else (rank[ordered[_nearest(ordered, ticks(padded))]],))


def _nearest(ordered: Sequence[int], tick: int) -> int:
    """Return the place of the time that is nearest to another one."""
    place = bisect_left(ordered, tick)
    return min((one for one in (place - 1, place) if 0 <= one < len(ordered)), key=lambda one: abs(ordered[one] - tick))


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
