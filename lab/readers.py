"""Reads what drawing and sounds have written: the instants in frames and pips of a file, and when a player shows them."""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import mul
from pathlib import Path
from typing import IO

from lab.errors import LabError
from lab.timecode import PIP_CODES, PIP_SECONDS, pip_frequency, read_strip
from lab.tools import QUIET_OPTIONS, run_program

WIDTH, HEIGHT = 320, 180
FRAME_BYTES = WIDTH * HEIGHT
MAX_BLACK_LUMA = 40
DARK_BYTES = bytes(range(MAX_BLACK_LUMA))
RATE, BLOCK = 8000, 16
WHOLE_FRAME = (0, 0, WIDTH, HEIGHT)
FrameBox = tuple[int, int, int, int]
FrameReading = tuple[int | None, int | None, bool]


@dataclass(frozen=True)
class DecodedFrame:
    """A decoded frame: when a player shows it, its instant code and agent number (None: unreadable), whether it is black."""

    pts: float
    instant: int | None
    agent: int | None
    black: bool


@dataclass(frozen=True)
class DecodedPip:
    """A pip: when a player plays it, and the whole second it stands for, modulo 40."""

    onset: float
    second: int


def read_frames(path: Path | str, ffmpeg: str = "ffmpeg") -> list[DecodedFrame]:
    """Return all frames of a file in the order shown. Raises LabError if ffmpeg cannot read it.

    Times count from the earliest start of all streams. A frame may have been scaled, and may have a black border.
    """
    filters = f"scale={WIDTH}:{HEIGHT}:flags=area,format=gray,showinfo"
    source = ["-hide_banner", "-nostdin", "-nostats", "-v", "info", "-i", str(path), "-map", "0:v:0"]
    sink = ["-vf", filters, "-fps_mode", "passthrough", "-f", "rawvideo", "pipe:1"]
    readings, report = _decode_video([ffmpeg, *source, *sink])
    return [DecodedFrame(pts, *reading) for pts, reading in zip(_showinfo_times(report), readings, strict=True)]


def _decode_video(arguments: Sequence[str]) -> tuple[list[FrameReading], str]:
    """Run ffmpeg. Returns the codes of its frames and its report, which is a file, or two pipes could block."""
    with tempfile.TemporaryFile() as errors:
        try:
            program = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL)
        except OSError as error:
            raise LabError(f"{arguments[0]} cannot be run: {error.strerror}") from error
        with program:
            readings = list(read_frame_codes(program.stdout)) if program.stdout else []
        errors.seek(0)
        report = errors.read().decode(errors="replace")
    if program.returncode:
        raise LabError(f"ffmpeg failed: {report.strip()[-500:]}")
    return readings, report


def _showinfo_times(report: str) -> list[float]:
    """Return the time stamps that showinfo printed; in ticks, because its seconds have only six digits."""
    base = re.search(r"showinfo.*config in time_base: (\d+)/(\d+)", report)
    if base is None:
        return []
    tick = int(base[1]) / int(base[2])
    return [int(ticks) * tick for ticks in re.findall(r"showinfo.*\bn: *\d+ pts: *(-?\d+) ", report)]


def read_frame_codes(stream: IO[bytes]) -> Iterator[FrameReading]:
    """Yield instant code, agent number (None: unreadable) and whether it is black, for each grey frame of `stream`."""
    box = WHOLE_FRAME
    while len(frame := stream.read(FRAME_BYTES)) == FRAME_BYTES:
        if not frame.translate(None, DARK_BYTES):
            yield None, None, True
            continue
        code = _decode_strip(frame, box)
        if code is None:
            box = _lit_area(frame)
            code = _decode_strip(frame, box)
        yield *(code or (None, None)), False


def _decode_strip(frame: bytes, box: FrameBox) -> tuple[int, int] | None:
    left, top, width, height = box

    def luma_at(x: float, y: float) -> float:
        place = int(top + y * height) * WIDTH + int(left + x * width)
        return frame[place]

    return read_strip(luma_at)


def _lit_area(frame: bytes) -> FrameBox:
    """Return the part of a frame inside its black border."""
    rows = [y for y in range(HEIGHT) if frame[y * WIDTH : (y + 1) * WIDTH].translate(None, DARK_BYTES)]
    columns = [x for x in range(WIDTH) if frame[x::WIDTH].translate(None, DARK_BYTES)]
    return columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1


def read_pips(path: Path | str, channel: int = 0, ffmpeg: str = "ffmpeg") -> list[DecodedPip]:
    """Return the pips of one channel of a file, when a player plays them; times count as in read_frames.

    A pip is a pure tone of 200 ms on one of the frequencies. Raises LabError if the file cannot be decoded.
    """
    filters = f"aresample=async=1:first_pts=0,pan=mono|c0=c{channel}"
    arguments = [
        ffmpeg,
        *QUIET_OPTIONS,
        "-i",
        str(path),
        "-map",
        "0:a:0",
        "-af",
        filters,
        "-ar",
        str(RATE),
        "-f",
        "s16le",
        "-",
    ]
    return find_pips(array("h", run_program(arguments)))


def find_pips(samples: array[int]) -> list[DecodedPip]:
    """Return the pips in the samples of one channel at `RATE`; onsets count from the first sample."""
    energies = [_mean_energy(samples[begin : begin + BLOCK]) for begin in range(0, len(samples) - BLOCK + 1, BLOCK)]
    return list(_decode_pips(samples, energies))


def _decode_pips(samples: array[int], energies: list[float]) -> Iterator[DecodedPip]:
    likely = 0
    for begin, end in _loud_runs(energies):
        pip = _decode_pip(samples, begin * BLOCK, end * BLOCK, likely)
        if pip:
            likely = pip.second + 1
            yield pip


def _mean_energy(samples: Sequence[int]) -> float:
    return float(sum(map(mul, samples, samples))) / max(1, len(samples))


def _loud_runs(energies: list[float]) -> Iterator[tuple[int, int]]:
    """Yield the spans (first block, block after) that are as loud as a pip and about as long."""
    loud = _pip_energy(energies) / 4
    min_blocks, max_blocks = (PIP_SECONDS - 0.03) * RATE / BLOCK, (PIP_SECONDS + 0.06) * RATE / BLOCK
    begin = None
    for index, energy in enumerate([*energies, 0.0]):
        if begin is None and energy > loud > 0:
            begin = index
        elif begin is not None and energy <= loud:
            if min_blocks <= index - begin <= max_blocks:
                yield begin, index
            begin = None


def _pip_energy(energies: list[float]) -> float:
    """Return how loud a pip is in this file: pips are its loudest part and fill a fifth of it."""
    return sorted(energies)[int(len(energies) * 0.93)] if energies else 0.0


def _decode_pip(samples: array[int], begin: int, end: int, likely: int) -> DecodedPip | None:
    """Return the pip in a loud span, or None if it is not a pure tone; the `likely` code is tried first.

    Only one code can have more than half of the power: over 150 ms, the frequencies are whole periods apart.
    """
    middle, half = (begin + end) // 2, RATE * 3 // 40
    tone = samples[max(0, middle - half) : middle + half]
    min_power = 0.6 * _mean_energy(tone)
    codes = ((likely + step) % PIP_CODES for step in range(PIP_CODES))
    pure = next((code for code in codes if _tone_power(tone, code) > min_power), None)
    return None if pure is None else DecodedPip(begin / RATE, pure)


def _tone_power(tone: array[int], code: int) -> float:
    """Return the power of a tone at the frequency of a pip by Goertzel's filter: all of it for a pure tone."""
    cosine, sine = _pip_wave(code)
    real, imaginary = float(sum(map(mul, tone, cosine))), float(sum(map(mul, tone, sine)))
    return 2 * (real**2 + imaginary**2) / max(1, len(tone)) ** 2


@lru_cache(maxsize=PIP_CODES)
def _pip_wave(code: int) -> tuple[list[float], list[float]]:
    step = 2 * math.pi * pip_frequency(code) / RATE
    return [math.cos(step * i) for i in range(RATE // 4)], [math.sin(step * i) for i in range(RATE // 4)]
