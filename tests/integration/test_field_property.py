"""Random calls of kinds from the field, each compared at every time with plain ffmpeg.

A fixed set of seeds runs always; ``FIELD_SEEDS=1000`` runs as many (``FIELD_FIRST`` is the first of them).
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from lab.media import make_audio, make_screen
from muxer.media.analyze.arrival import MediaInput
from muxer.media.engine import MediaEngine
from muxer.system.process import Runner
from tests.support import reference
from tests.support.av_sync import streams
from tests.support.field_media import (
    HEVC,
    MPEG4,
    ROTATIONS,
    VP9,
    EditEntry,
    Recipe,
    damaged_file,
    edited_file,
    ffmpeg_steps,
    rotated_file,
)
from tests.support.media_kinds import B_FRAMES, COPY, PLAIN, T0
from tests.support.tiers import spread_variants
from tests.support.tools import tested_tools

pytestmark = pytest.mark.machine_ffmpeg

SEEDS, FIRST = int(os.environ.get("FIELD_SEEDS", "12")), int(os.environ.get("FIELD_FIRST", "0"))
SECONDS, SCREEN_SECONDS = 5.0, 3.0
# Frames shown for less than this may be omitted (engine.MAX_FILLED_US).
SHORT_SECONDS = 0.1
# The time at which an edit list may hold a frame.
HOLD_AT_SECONDS = 1.0
CODECS = {
    "H.264": (PLAIN, ("mp4", "mov", "mkv", "ts", "avi", "flv")),
    "H.264, B-frames": (B_FRAMES, ("mp4", "mov", "mkv", "ts", "flv")),
    "H.264, fragmented": ((*B_FRAMES, "-movflags", "frag_keyframe+empty_moov"), ("mp4",)),
    "H.264, yuv444": ((*PLAIN, "-pix_fmt", "yuv444p"), ("mp4", "mkv")),
    "H.265": (HEVC, ("mp4", "mkv")),
    "VP9": (VP9, ("webm", "mkv")),
    "VP8": (("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-g", "15"), ("webm",)),
    "MPEG-4": (MPEG4, ("avi", "mp4", "mkv")),
    "Motion JPEG": (("-c:v", "mjpeg", "-q:v", "3"), ("avi", "mov")),
    "PNG": (("-c:v", "png"), ("mov", "mkv")),
}
# Frames a second; those of a base are ten.
RATES = ("10", "5", "1", "25", "15/2")
SIZES = ((320, 180), (240, 180), (322, 182))


@dataclass(frozen=True)
class DrawnScreen:
    """A randomly drawn screen file: how it is created, its start, the length of its frames, whether it is damaged, and
    for how long an edit list holds the frame before :data:`HOLD_AT_SECONDS`."""

    recipe: Recipe
    begin: float
    frame: float
    is_damaged: bool
    hold: float
    text: str


def draw_screen(dice: random.Random) -> DrawnScreen:
    codec = dice.choice([*CODECS])
    encoding, endings = CODECS[codec]
    ending, rate = dice.choice(endings), dice.choice(RATES)
    width, height = dice.choice(SIZES)
    few = ("select='not(between(n,8,14))*not(between(n,20,22))',",) if dice.random() < 0.25 else ("",)
    options = ("-vf", f"{few[0]}scale={width}:{height}", "-r", rate, *encoding)
    words = [codec, ending, rate, f"{width}x{height}", *("few frames" for one in few if one)]
    commands: list[tuple[str, tuple[str, ...]]] = [(ending, options)]
    if dice.random() < 0.2:
        offset = dice.choice(("0.7", "1.5", "6"))
        commands = [(ending, (*options, "-output_ts_offset", offset))]
        words.append(f"begins at {offset}")
    is_plain = ending in ("mp4", "mov") and len(words) < 6 and codec != "H.264, fragmented"
    if dice.random() < 0.2 and rate in ("10", "25"):
        commands.append((f"cut.{ending}", (*COPY, "-copyinkf", "-ss", "0.45")))
        words.append("no first keyframe")
        is_plain = False
    elif is_plain and dice.random() < 0.3:
        commands.append((f"tagged.{ending}", (*COPY, "-timecode", "10:00:00:00")))
        words.append("time code")
    recipe, hold = ffmpeg_steps(*commands), 0.0
    if len(commands) == 1 and codec == "H.264" and ending in ("mp4", "mov") and len(words) == 4 and dice.random() < 0.5:
        hold = dice.choice((0.3, 0.5, 1.1))
        recipe = edited_file(recipe, EditEntry(HOLD_AT_SECONDS, 0), EditEntry(hold, None), EditEntry(10, HOLD_AT_SECONDS))
        words.append(f"held for {hold}")
    elif ending in ("mp4", "mov") and dice.random() < 0.3:
        turn = dice.choice([*ROTATIONS])
        recipe = rotated_file(recipe, turn)
        words.append(turn)
    is_damaged = dice.random() < 0.15 and rate in ("10", "25") and codec in ("VP9", "H.265", "PNG", "Motion JPEG")
    if is_damaged:
        recipe = damaged_file(recipe, dice.randrange(3, 20), skip=200 if codec == "Motion JPEG" else 12)
        words.append("damaged")
    begin = round(dice.uniform(-2, 4.5), 3)
    top, _, bottom = rate.partition("/")
    return DrawnScreen(recipe, begin, int(bottom or 1) / int(top), is_damaged, hold, f"{', '.join(words)}, at {begin}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("property")


@pytest.fixture(scope="module")
def audio(folder: Path) -> Path:
    make_audio(folder / "call.mp3", T0, SECONDS)
    return folder / "call.mp3"


@pytest.fixture(scope="module")
def bases(folder: Path) -> list[Path]:
    paths = [folder / f"base-{number}.mp4" for number in range(3)]
    for number, path in enumerate(paths):
        start = T0 + timedelta(seconds=100 * number)
        extra = ("-qp", "10", "-threads", "1")
        make_screen(path, start, SCREEN_SECONDS, size=(320, 180), agent_number=number + 1, extra=extra)
    return paths


@pytest.mark.parametrize("seed", spread_variants(range(FIRST, FIRST + SEEDS), 12))
def test_random_call_matches_plain_ffmpeg(tmp_path: Path, audio: Path, bases: list[Path], seed: int) -> None:
    dice = random.Random(seed)
    drawn = [draw_screen(dice) for _ in range(dice.choice((1, 1, 2, 2, 3)))]
    # At least one screen shows something within the call.
    drawn[0] = DrawnScreen(drawn[0].recipe, dice.uniform(-1.5, 3), *tuple(vars(drawn[0]).values())[2:])
    print(*(one.text for one in drawn), sep="\n")
    paths, inputs = [], []
    for number, one in enumerate(drawn):
        place = tmp_path / str(number)
        place.mkdir()
        paths.append(one.recipe(place, bases[number]))
        inputs.append(MediaInput(paths[-1], f"screen {number}", T0 + timedelta(seconds=one.begin)))
    if not all(reference.decode_film(path).times for path in paths):
        pytest.skip("a file without any keyframe: there is nothing to see")
    job = tmp_path / "job"
    job.mkdir()
    engine = MediaEngine(tested_tools(), Runner(), tolerance=0.0, slice_ms=700, audio_codec="copy")
    muxed = engine.mux(MediaInput(audio, audio.name, T0), inputs, job)
    result = reference.decode_film(muxed.path)
    shown, unjudged = [], []
    for one, path in zip(drawn, paths, strict=True):
        strict = ("-err_detect", "explode") if one.is_damaged else ()
        # ffmpeg handles an edit list with a pause differently: the reference is the file without it.
        path = path.with_name(path.name.removeprefix("edited-")) if one.hold else path
        film = reference.decode_film(path, reference.canvas_size(muxed.path), *strict)
        first, key, last = reference.packet_clock(path, film)
        film = reference.hold_frame(film, HOLD_AT_SECONDS, one.hold)
        # Not every file contains the duration of the last frame.
        end = one.begin + last - first + one.frame + one.hold
        unjudged += [(end - 1.1 * one.frame, end + 1.1), (one.begin - max(one.frame, SHORT_SECONDS), one.begin + 0.002)]
        if (late := max(film.times[0], key) - first) > 0.001:
            # Decoders differ in which frames around the first keyframe they show.
            unjudged.append((one.begin, one.begin + late + 4 * one.frame))
        shown.append(reference.ShownSource(film, one.begin - first, one.begin, end))
    assert (
        reference.film_problems(result, shown, SECONDS, shortest_gap=max(one.frame for one in drawn), unjudged=unjudged)
        == []
    )
    lengths = streams(muxed.path)
    assert all(abs(stream.seconds - SECONDS) <= 0.15 for stream in lengths.values())
