"""Calls in which each second has a distinct tone, so that a shift, a silence or a wrong rate is detected.

They are created and decoded by ffmpeg alone.
"""

from __future__ import annotations

import math
import subprocess
from array import array
from itertools import pairwise
from pathlib import Path

from tests.support.media_kinds import run_ffmpeg

FREQUENCIES = (500, 1700, 800, 2100, 1100, 2500)
SECONDS = len(FREQUENCIES)
TONE_LEVEL = 20 * math.log10(0.25 / math.sqrt(2))
SAMPLE_RATE = 8000
# The distance from the boundary of a second at which the tone is measured.
MARGIN_SECONDS = 0.08


def make_tones(path: Path, *options: object, first: int = 0, seconds: float = SECONDS, rate: int = 8000) -> Path:
    """Create a file with the tones from the second `first` on; `options` are ffmpeg's output options."""
    choice = "+".join(f"{tone}*eq(floor(t)+{first},{second})" for second, tone in enumerate(FREQUENCIES))
    source = f"aevalsrc='0.25*sin(2*PI*t*({choice}))':s={rate}:d={seconds}"
    run_ffmpeg("-f", "lavfi", "-i", source, *options, path)
    return path


def join_files(path: Path, *parts: bytes | Path) -> Path:
    """Write files and bytes one after the other."""
    path.write_bytes(b"".join(part.read_bytes() if isinstance(part, Path) else part for part in parts))
    return path


def decode_channel(path: Path, channel: int = 0, channels: int = 1) -> array[int]:
    """Return one channel of a file as ffmpeg decodes it, at 8 kHz."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(path), "-map", "0:a:0", "-ar", str(SAMPLE_RATE)]
    # More than two channels are not converted: with -ac, ffmpeg mixes them.
    command += [*(("-ac", str(channels)) if channels < 3 else ()), "-f", "s16le", "-"]
    samples = array("h", subprocess.run(command, capture_output=True, check=True).stdout)
    return samples[channel::channels]


def level_db(samples: array[int]) -> float:
    """Return a level in decibels below full scale."""
    square = sum(sample * sample for sample in samples) / max(1, len(samples)) / 32768**2
    return 10 * math.log10(square) if square > 1e-9 else -90.0


def tone_number(window: array[int]) -> int | None:
    """Return the number of the tone in the whole window, None for silence, -1 for anything else."""
    if level_db(window) < -45:
        return None
    rising = sum(before < 0 <= after for before, after in pairwise(window))
    tone = rising * SAMPLE_RATE / max(1, len(window))
    return next((number for number, one in enumerate(FREQUENCIES) if abs(tone - one) < 0.02 * one + 5), -1)


def tones_by_second(samples: array[int]) -> list[int | None]:
    """Return the tone of each second."""
    bounds = ((second + MARGIN_SECONDS, second + 1 - MARGIN_SECONDS) for second in range(round(len(samples) / SAMPLE_RATE)))
    return [tone_number(samples[round(begin * SAMPLE_RATE) : round(end * SAMPLE_RATE)]) for begin, end in bounds]


def tone_order(samples: array[int]) -> list[int]:
    """Return the tones in their order, whatever their start times."""
    step = SAMPLE_RATE // 8
    found = [tone_number(samples[begin : begin + step]) for begin in range(0, len(samples), step)]
    # At the boundary of two tones, a third one may be detected.
    clear = [one for one, after in pairwise(found) if one is not None and one >= 0 and one == after]
    return [one for one, before in zip(clear, [-1, *clear], strict=False) if one != before]
