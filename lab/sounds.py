"""Generated call audio: two people who talk in turns, and pips that encode the time."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from operator import add
from pathlib import Path

from lab.timecode import PIP_CODES, PIP_SECONDS, pip_frequency
from lab.tools import QUIET_OPTIONS, feed_program

MP3_OPTIONS = ("-c:a", "libmp3lame", "-b:a", "32k")
PIP_LEVEL, VOICE_LEVEL = 14_000, 5_000
HUSH_SECONDS = 0.06
VOICES = {"agent": (118, 11), "customer": (196, 23)}


def make_audio(
    path: Path,
    start: datetime,
    seconds: float,
    *,
    rate: int = 8000,
    channels: int = 2,
    codec: Sequence[str] = MP3_OPTIONS,
    ffmpeg: str = "ffmpeg",
) -> None:
    """Write the audio of a call that starts at `start` (with time zone) and lasts `seconds`.

    The agent is left, the customer right; with one channel, both are mixed. All channels have a pip of 200 ms at each whole
    second (see timecode). `codec` are ffmpeg output options. Raises LabError if ffmpeg fails.
    """
    count = round(seconds * rate)
    voices = [_create_conversation(name, count, rate) for name in VOICES]
    if channels == 1:
        voices = [array("h", map(add, *voices))]
    for voice in voices:
        _add_pips(voice, start.timestamp(), rate)
    source = ["-f", "s16le", "-ar", str(rate), "-ac", str(len(voices)), "-i", "pipe:0"]
    feed_program([ffmpeg, *QUIET_OPTIONS, "-y", *source, *codec, str(path)], [_interleave_channels(voices).tobytes()])


def _interleave_channels(voices: list[array[int]]) -> array[int]:
    mixed = array("h", bytes(2 * len(voices) * len(voices[0])))
    for number, voice in enumerate(voices):
        mixed[number :: len(voices)] = voice
    return mixed


def _create_conversation(name: str, count: int, rate: int) -> array[int]:
    """Return one speaker: turns of two to four seconds, silence while the other one speaks."""
    syllables, chance, turns = _create_syllables(name, rate), random.Random(name), random.Random("turns")
    samples = array("h")
    speaking = name == "agent"
    while len(samples) < count:
        end = len(samples) + int(turns.uniform(2, 4) * rate)
        while speaking and len(samples) < end:
            samples.extend(chance.choice(syllables))
            samples.extend(array("h", bytes(2 * int(chance.choice((0.01, 0.03, 0.2)) * rate))))
        del samples[end:]
        samples.extend(array("h", bytes(2 * (end - len(samples)))))
        speaking = not speaking
    return samples[:count]


@lru_cache(maxsize=16)
def _create_syllables(name: str, rate: int) -> list[array[int]]:
    pitch, seed = VOICES[name]
    chance = random.Random(seed)
    return [_create_syllable(pitch * chance.uniform(0.85, 1.2), chance, rate) for _ in range(16)]


def _create_syllable(pitch: float, chance: random.Random, rate: int) -> array[int]:
    """Return a swelling tone with overtones that are strong near two formants, like a vowel."""
    count = int(chance.uniform(0.12, 0.28) * rate)
    formants = chance.uniform(300, 800), chance.uniform(900, 2200)
    tones = [number * pitch for number in range(1, 14) if number * pitch < rate * 0.45]
    weights = [sum(1 / (1 + ((tone - formant) / 150) ** 2) for formant in formants) + 0.05 for tone in tones]
    pairs = [(2 * math.pi * tone / rate, weight / sum(weights)) for tone, weight in zip(tones, weights, strict=True)]
    swell = [VOICE_LEVEL * math.sin(math.pi * index / count) ** 0.7 for index in range(count)]
    return array("h", (int(swell[i] * sum(w * math.sin(step * i) for step, w in pairs)) for i in range(count)))


def _add_pips(samples: array[int], start: float, rate: int) -> None:
    """Put the pips over a channel, with a short silence around each, so that its edges are clear."""
    for second in range(math.floor(start) - 1, math.ceil(start + len(samples) / rate) + 1):
        begin = round((second - start) * rate)
        hush = round(HUSH_SECONDS * rate)
        tone = _create_pip(second % PIP_CODES, rate)
        _overlay_samples(samples, begin - hush, array("h", bytes(2 * (len(tone) + 2 * hush))))
        _overlay_samples(samples, begin, tone)


def _overlay_samples(samples: array[int], begin: int, piece: array[int]) -> None:
    piece = piece[max(0, -begin) :]
    begin = max(0, begin)
    room = max(0, len(samples) - begin)
    samples[begin : begin + len(piece)] = piece[:room]


@lru_cache(maxsize=PIP_CODES * 4)
def _create_pip(code: int, rate: int) -> array[int]:
    step, count, ramp = 2 * math.pi * pip_frequency(code) / rate, round(PIP_SECONDS * rate), 0.002 * rate
    edge = [min(1.0, (index + 1) / ramp, (count - index) / ramp) for index in range(count)]
    return array("h", (int(PIP_LEVEL * edge[index] * math.sin(step * index)) for index in range(count)))
