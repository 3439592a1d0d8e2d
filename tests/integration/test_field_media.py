"""Screen files of the field: what is seen in the result at every moment is what plain ffmpeg shows of the source."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from support import reference
from support.field import LENGTHS, REARRANGED, SCREENS
from support.kinds import SIZE, T0
from support.tools import tools

from muxer.lab.media import make_audio, make_screen
from muxer.media.engine import Engine, Input, Muxed
from muxer.process import Runner

SECONDS, SCREEN_SECONDS = 6.0, 4.0
# Where the screen begins on the call's axis: cut at its head; whole, with padding around it; cut at its tail.
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


def mux(folder: Path, audio: Path, *screens: tuple[Path, float], tolerance: float = 0.0) -> Muxed:
    engine = Engine(tools(), Runner(), tolerance=tolerance, slice_ms=700, audio_codec="copy")
    inputs = [Input(path, path.name, T0 + timedelta(seconds=begin)) for path, begin in screens]
    return engine.mux(Input(audio, audio.name, T0), inputs, folder)


def check(made: Muxed, path: Path, begin: float, name: str) -> None:
    """Compare a result with its only source."""
    # A damaged frame is not shown: it is replaced by the one before.
    strict = ("-err_detect", "explode") if name.startswith("damaged") else ()
    source = reference.film(path, reference.canvas_of(made.path), *strict)
    if name in REARRANGED:
        source = REARRANGED[name](reference.film(path.with_name("made-0.mp4"), reference.canvas_of(made.path)))
    [(_, start, length)] = made.timeline.screens
    # The last frame lasts as long as the file says, give or take a frame where it does not say so.
    assert abs(start / 1e6 + length / 1e6 - begin - LENGTHS.get(name, SCREEN_SECONDS)) <= 0.21
    shown = reference.Shown(source, begin - reference.clock_of(path, source)[0], start / 1e6, (start + length) / 1e6)
    # A gap that is shorter than a frame is no gap.
    gap = 1.0 if "frame a second" in name else 0.1
    assert reference.problems(reference.film(made.path), [shown], SECONDS, shortest_gap=gap) == []


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_of_the_field_is_seen_as_plain_ffmpeg_shows_it(tmp_path: Path, audio: Path, base: Path, name: str) -> None:
    path = SCREENS[name](tmp_path, base)
    for begin in BEGINS:
        job = tmp_path / str(begin)
        job.mkdir()
        check(mux(job, audio, (path, begin)), path, begin, name)
