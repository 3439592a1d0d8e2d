"""The frames of media files, decoded by ffmpeg without code of this project: the reference for muxed files.

Frames are small images (yuv420p). The expected frame at a time follows from the frames of the sources and the rules of the
timeline: the latest source that covers a time shows its current frame; without a source the video is black.
"""

from __future__ import annotations

import re
import subprocess
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from operator import sub
from pathlib import Path

COMPARED_SIZE = (160, 90)
BLOCK, NEAR_BLACK = 5, 24
# The mean difference of a block: encoding causes less, the counters of the generated screens far more.
# A frame that is scaled in steps of two pixels may be shifted by one pixel.
MAX_DIFFERENCE = 48.0
# A time base of a millisecond and a rounded rate shift a frame by up to this time.
TIME_TOLERANCE_SECONDS = 0.003
# Decoders without presentation times return a frame later, by less than this.
MAX_DELAY_SECONDS = 0.25


@dataclass(frozen=True)
class ReferenceFilm:
    """The frames of a file with their presentation times in seconds."""

    times: tuple[float, ...]
    frames: tuple[bytes, ...]

    def frame_at(self, instant: float) -> bytes | None:
        """Return the frame shown at a time; None before the first one."""
        position = bisect_right(self.times, instant + 1e-6)
        return self.frames[position - 1] if position else None


@dataclass(frozen=True)
class ShownSource:
    """A source on the time axis of the call.

    It is shown from `begin` to `end`; its frames are shown `moved` seconds after their own times."""

    film: ReferenceFilm
    moved: float
    begin: float
    end: float


def decode_film(path: Path, canvas: tuple[int, int] | None = None, *options: str, program: str = "ffmpeg") -> ReferenceFilm:
    """Decode a file as a player does: rotated, with its own times.

    `canvas` is the size of the result into which the frames are fitted; None when the frames already have it."""
    fit = (
        ""
        if canvas is None
        else (
            f"scale={canvas[0]}:{canvas[1]}:force_original_aspect_ratio=decrease:force_divisible_by=2,"
            # Black borders are added in steps of two pixels.
            "format=yuv420p,"
            f"pad={canvas[0]}:{canvas[1]}:(ow-iw)/2:(oh-ih)/2,"
        )
    )
    width, height = COMPARED_SIZE
    aspect = "scale=iw*sar:ih,setsar=1," if canvas else ""
    filters = f"{aspect}{fit}scale={width}:{height}:flags=area,format=yuv420p,showinfo"
    # One thread decodes, so that the result for damaged files does not depend on the load of the machine.
    command = [program, "-nostdin", "-hide_banner", "-copyts", "-threads", "1", *options, "-i", str(path)]
    command += ["-map", "0:V:0", "-vf", filters]
    command += ["-fps_mode", "passthrough", "-f", "rawvideo", "-"]
    done = subprocess.run(command, capture_output=True, check=False)
    output_lines = done.stderr.decode(errors="replace").splitlines()
    lines = [line for line in output_lines if "showinfo" in line and "pts_time:" in line]
    times = [float(line.split("pts_time:")[1].split()[0]) for line in lines]
    length = width * height * 3 // 2
    frames = [done.stdout[at : at + length] for at in range(0, len(done.stdout), length)]
    assert len(times) == len(frames), done.stderr[-500:]
    return ReferenceFilm(tuple(times), tuple(frames))


def canvas_size(path: Path) -> tuple[int, int]:
    """Return the display size of a result."""
    command = ["ffmpeg", "-nostdin", "-i", path, "-frames:v", "1", "-vf", "showinfo", "-f", "null", "-"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    size = re.search(r" s:(\d+)x(\d+) ", output)
    assert size
    return int(size[1]), int(size[2])


def packet_clock(path: Path, film: ReferenceFilm) -> tuple[float, float, float]:
    """Return the times of the first visible packet, the first keyframe and the last packet, on the clock of the file.

    The first visible packet need not be decodable."""
    entries = ("-select_streams", "V:0", "-show_entries", "packet=pts_time,dts_time,flags", "-of", "csv=p=0")
    command = ["ffprobe", "-v", "error", *entries, str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    shown, decoded, flags = zip(*(line.split(",")[:3] for line in lines if "D" not in line.split(",")[2]), strict=True)
    key = next((number for number, one in enumerate(flags) if "K" in one), 0)
    if "N/A" not in shown:
        return min(map(float, shown)), float(shown[key]), max(map(float, shown))
    # Packets before the first frame are the delay of the decoder, unless they are many: then they are not decodable.
    times = [float(item) for item in decoded if item != "N/A"]
    begin = film.times[0] if not times or film.times[0] - min(times) < MAX_DELAY_SECONDS else min(times)
    return begin, begin, film.times[-1]


def luma_difference(one: bytes, other: bytes) -> float:
    """Return the mean luma difference of two frames in the block where it is largest."""
    width, height = COMPARED_SIZE
    worst = 0.0
    for top in range(0, height, BLOCK):
        spans = [slice(row * width, (row + 1) * width) for row in range(top, top + BLOCK)]
        columns = [sum(values) for values in zip(*(map(abs, map(sub, one[s], other[s])) for s in spans), strict=True)]
        worst = max(worst, *(sum(columns[left : left + BLOCK]) / BLOCK**2 for left in range(0, width, BLOCK)))
    return worst


def is_black(small_frame: bytes) -> bool:
    return max(small_frame[: COMPARED_SIZE[0] * COMPARED_SIZE[1]]) <= NEAR_BLACK


def hold_frame(film: ReferenceFilm, at: float, seconds: float, *, including: bool = False) -> ReferenceFilm:
    """Return a film that pauses for `seconds` before the frame at a time, or after it when `including`."""
    times = [time + seconds * (time > at + 1e-6 or (not including and time > at - 1e-6)) for time in film.times]
    return ReferenceFilm(tuple(times), film.frames)


def film_problems(
    result: ReferenceFilm,
    sources: Sequence[ShownSource],
    length: float,
    *,
    near: float = TIME_TOLERANCE_SECONDS,
    step: float = 0.05,
    shortest_gap: float = 0.0,
    unjudged: Sequence[tuple[float, float]] = (),
) -> list[str]:
    """Return the differences between a result and its sources.

    They are compared every `step` seconds and right next to each change. Not compared are times nearer to a change than
    `near`, gaps shorter than `shortest_gap`, and the spans `unjudged`."""
    unjudged = [*unjudged, *_short_gaps(sources, length, shortest_gap)]
    changes = {edge for item in sources for edge in (item.begin, item.end)} | {0.0, length}
    changes |= {time + source.moved for source in sources for time in source.film.times}
    ordered = sorted(changes)
    instants = {round(number * step, 6) for number in range(int(length / step))}
    instants |= {change + sign * (near + 0.001) for change in changes for sign in (-1, 1)}
    found = []
    for instant in sorted(one for one in instants if 0 <= one < length):
        position = bisect_right(ordered, instant)
        nearest = min(abs(instant - one) for one in ordered[max(0, position - 1) : position + 1])
        if nearest <= near or any(begin <= instant < end for begin, end in unjudged):
            continue
        found += _problems_at(result, sources, instant)
    return found


def _short_gaps(sources: Sequence[ShownSource], length: float, shortest: float) -> list[tuple[float, float]]:
    """Return the gaps between sources that are shorter than `shortest` seconds."""
    gaps, position = [], 0.0
    for begin, end in sorted(
        (source.begin, source.end) for source in (*sources, ShownSource(ReferenceFilm((), ()), 0, length, length))
    ):
        if 0 < begin - position < shortest:
            gaps.append((position, begin))
        position = max(position, end)
    return gaps


def _problems_at(result: ReferenceFilm, sources: Sequence[ShownSource], instant: float) -> list[str]:
    seen = result.frame_at(instant)
    if seen is None:
        return [f"{instant:.3f} s: nothing is shown"]
    covering = [
        source for source in sources if source.begin <= instant < source.end and source.film.frame_at(instant - source.moved)
    ]
    wanted = None
    if covering:
        latest = max(covering, key=lambda item: item.moved + item.film.times[0])
        wanted = latest.film.frame_at(instant - latest.moved)
    if wanted is None:
        return [] if is_black(seen) else [f"{instant:.3f} s: not black"]
    apart = luma_difference(seen, wanted)
    return [] if apart <= MAX_DIFFERENCE else [f"{instant:.3f} s: another frame ({apart:.0f})"]
