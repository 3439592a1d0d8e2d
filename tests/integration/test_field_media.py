"""Screen files from the field: the result always shows the same as plain ffmpeg for the source."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from pathlib import Path

import pytest

from lab.media import make_audio, make_screen
from muxer.errors import MediaError
from muxer.media.analyze.arrival import MediaInput
from muxer.media.engine import MediaEngine, MuxedFile
from muxer.system.process import Runner
from tests.support import reference
from tests.support.field_media import (
    COPIED_DAMAGE,
    DAMAGED_AT,
    LENGTHS,
    REARRANGED,
    REFUSED,
    SCREENS,
    ffmpeg_steps,
    rotated_file,
)
from tests.support.media_kinds import PLAIN, SIZE, T0, run_ffmpeg
from tests.support.tiers import spread_variants
from tests.support.tools import tested_tools

SECONDS, SCREEN_SECONDS = 6.0, 4.0
# Start of the screen on the call's axis: cut at its head; complete, with padding around it; cut at its tail.
BEGINS = (-1.55, 0.35, 3.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("field")


@pytest.fixture(scope="module")
def audio(folder: Path) -> Path:
    make_audio(folder / "call.mp3", T0, SECONDS)
    return folder / "call.mp3"


@pytest.fixture(scope="module")
def base(folder: Path) -> Path:
    make_screen(folder / "base.mp4", T0, SCREEN_SECONDS, size=SIZE, extra=("-qp", "10", "-threads", "1"))
    return folder / "base.mp4"


def mux_screens(folder: Path, audio: Path, *screens: tuple[Path, float], tolerance: float = 0.0) -> MuxedFile:
    engine = MediaEngine(tested_tools(), Runner(), tolerance=tolerance, slice_ms=700, audio_codec="copy")
    inputs = [MediaInput(path, path.name, T0 + timedelta(seconds=begin)) for path, begin in screens]
    return engine.mux(MediaInput(audio, audio.name, T0), inputs, folder)


def check_result(result: MuxedFile, path: Path, begin: float, name: str) -> None:
    """Compare a result with its only source."""
    # A damaged frame is not shown: it is replaced by the one before. A copied one depends on the decoder, and so
    # do those after it. A decoder that reads ahead may meet damage after a piece and report it: nothing is copied then.
    copied = name == COPIED_DAMAGE and "everything is re-encoded" not in result.reasons
    strict = ("-err_detect", "explode") if "damaged" in name and not copied else ()
    if "joined" in name:
        # The frames in the order of ffmpeg, in a file with one clock.
        run_ffmpeg("-i", path, "-c:v", "ffv1", path.with_suffix(".mkv"))
        path = path.with_suffix(".mkv")
    source = reference.decode_film(path, reference.canvas_size(result.path), *strict)
    if name in REARRANGED:
        source = REARRANGED[name](reference.decode_film(path.with_name("step-0.mp4"), reference.canvas_size(result.path)))
    [(_, start, length)] = result.timeline.screens
    # The last frame has the duration in the file, or a tolerance of one frame without such a duration.
    assert abs(start / 1e6 + length / 1e6 - begin - LENGTHS.get(name, SCREEN_SECONDS)) <= 0.21
    shown = reference.ShownSource(
        source, begin - reference.packet_clock(path, source)[0], start / 1e6, (start + length) / 1e6
    )
    # A gap that is shorter than a frame is no gap.
    gap = 1.0 if "frame a second" in name else 0.1
    unjudged = [(begin + DAMAGED_AT, begin + SCREEN_SECONDS)] if copied else []
    found = reference.film_problems(
        reference.decode_film(result.path), [shown], SECONDS, shortest_gap=gap, unjudged=unjudged
    )
    assert found == []


@pytest.mark.parametrize("name", spread_variants(SCREENS, 20))
def test_field_screen_matches_plain_ffmpeg(tmp_path: Path, audio: Path, base: Path, name: str) -> None:
    path = SCREENS[name](tmp_path, base)
    for begin in BEGINS:
        job = tmp_path / str(begin)
        job.mkdir()
        check_result(mux_screens(job, audio, (path, begin)), path, begin, name)


@pytest.mark.parametrize("name", ["temporal layers", "parameter sets within the frames"])
def test_other_forms_of_h264_are_copied(tmp_path: Path, audio: Path, base: Path, name: str) -> None:
    result = mux_screens(tmp_path, audio, (SCREENS[name](tmp_path, base), 0.35))
    assert result.reasons == ()


@pytest.mark.parametrize("name", REFUSED)
def test_unusable_screen_is_refused_with_one_clear_message(tmp_path: Path, audio: Path, base: Path, name: str) -> None:
    recipe, message = REFUSED[name]
    path = recipe(tmp_path, base)
    with pytest.raises(MediaError) as refused:
        mux_screens(tmp_path, audio, (path, 0.35))
    assert str(refused.value).startswith(f"{path.name}: ") and message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_damage_is_reported_with_time_and_count(
    tmp_path: Path, audio: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = SCREENS["damaged VP9, three frames"](tmp_path, base)
    with caplog.at_level(logging.WARNING):
        mux_screens(tmp_path, audio, (path, 0.35))
    assert re.search(r"\d+ of 40 frames are damaged, the first at 0\.50 s", caplog.text)


TURNED_PAIRS = {
    "the same turn": ("90 degrees", "90 degrees"),
    "one turned": ("90 degrees", ""),
    "turned each way": ("90 degrees", "270 degrees"),
    "mirrored and turned": ("mirrored", "180 degrees"),
}


@pytest.mark.parametrize("name", spread_variants(TURNED_PAIRS, 2))
def test_screens_of_different_rotation_are_shown_upright(tmp_path: Path, audio: Path, base: Path, name: str) -> None:
    paths = []
    for number, turn in enumerate(TURNED_PAIRS[name]):
        place = tmp_path / str(number)
        place.mkdir()
        plain = ffmpeg_steps(("mp4", PLAIN))
        paths.append((rotated_file(plain, turn) if turn else plain)(place, base))
    begins = (-1.55, 3.2)
    result = mux_screens(tmp_path, audio, *zip(paths, begins, strict=True))
    canvas = reference.canvas_size(result.path)
    shown = [
        reference.ShownSource(reference.decode_film(path, canvas), begin, begin, begin + SCREEN_SECONDS)
        for path, begin in zip(paths, begins, strict=True)
    ]
    assert reference.film_problems(reference.decode_film(result.path), shown, SECONDS) == []
    # Copyable frames are copied: those of at least one file, when they fill the canvas.
    assert name == "one turned" or any(piece.reason is None and piece.clip is not None for piece in result.timeline.pieces)
