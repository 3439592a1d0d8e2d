"""Sources of every kind: the largest distance between video and audio in the result, frame by frame.

The largest distance of each case is printed in a table at the end of the run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest

from lab.media import make_screen
from muxer.media.analyze.arrival import MediaInput
from muxer.media.engine import MediaEngine, MuxedFile
from muxer.system.process import Runner
from tests.support import av_sync, media_kinds
from tests.support.media_kinds import AUDIO_KINDS, CALL_SECONDS, KINDS, SCREEN_SECONDS, SCREEN_STARTS, T0, run_ffmpeg
from tests.support.tiers import spread_variants
from tests.support.tools import tested_tools

Record = Callable[[str, object], None]
FRAME_SECONDS = 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kinds")


@pytest.fixture(scope="module")
def call(folder: Path) -> Path:
    media_kinds.make_call(folder / "call.wav")
    return folder / "call.wav"


@pytest.fixture(scope="module")
def audio(folder: Path, call: Path) -> Path:
    run_ffmpeg("-i", call, "-ar", "8000", "-b:a", "32k", folder / "call.mp3")
    return folder / "call.mp3"


@pytest.fixture(scope="module")
def bases(folder: Path) -> Callable[[int], list[Path]]:
    return cache(lambda fps: media_kinds.make_bases(folder, fps))


def mux_screens(audio: Path, screens: list[tuple[Path, float]], folder: Path) -> MuxedFile:
    engine = MediaEngine(tested_tools(), Runner(), tolerance=2.0, slice_ms=700, audio_codec="copy")
    inputs = [MediaInput(path, path.name, T0 + timedelta(seconds=begin)) for path, begin in screens]
    return engine.mux(MediaInput(audio, audio.name, T0), inputs, folder)


def expected_sources(fps: int, skips: float = 0.0) -> list[av_sync.ExpectedSource]:
    """Return the expected sources of two screens whose first ``skips`` seconds are omitted."""
    result = []
    for number, begin in enumerate(SCREEN_STARTS):
        instants = [begin + frame / fps for frame in range(round(skips * fps), round(SCREEN_SECONDS * fps))]
        end = begin + SCREEN_SECONDS
        result.append(av_sync.ExpectedSource(number + 1, instants, end, [(max(begin + skips, 0), min(end, CALL_SECONDS))]))
    return result


def check_timing(
    result: Path,
    seen: list[av_sync.ExpectedSource],
    seconds: float,
    frame: float,
    record: Record,
    name: str,
    channels: int = 1,
) -> None:
    """Measure the distance, record it, and compare it with the limit of one source frame."""
    video_error, audio_error = (
        av_sync.picture_error(result, T0, seconds, seen),
        av_sync.sound_error(result, T0, seconds, channels),
    )
    record("worst error", (name, video_error * 1000, audio_error * 1000, frame * 1000))
    assert video_error + audio_error <= frame
    assert all(abs(stream.seconds - seconds) <= FRAME_SECONDS for stream in av_sync.streams(result).values())


@pytest.mark.parametrize("name", spread_variants(KINDS, 14))
def test_video_and_audio_are_in_sync_for_screens_of_every_kind(
    tmp_path: Path, audio: Path, bases: Callable[[int], list[Path]], record_property: Record, name: str
) -> None:
    kind = KINDS[name]
    paths = media_kinds.make_screens(tmp_path, bases(kind.fps), kind)
    assert re.search(kind.proof, media_kinds.describe_file(paths[0]))
    result = mux_screens(
        audio, [(path, begin + kind.skips) for path, begin in zip(paths, SCREEN_STARTS, strict=True)], tmp_path
    )
    check_timing(result.path, expected_sources(kind.fps, kind.skips), CALL_SECONDS, 1 / kind.fps, record_property, name)


@pytest.mark.parametrize("name", spread_variants(AUDIO_KINDS, 5))
def test_video_and_audio_are_in_sync_for_calls_of_every_kind(
    tmp_path: Path, call: Path, bases: Callable[[int], list[Path]], record_property: Record, name: str
) -> None:
    kind = AUDIO_KINDS[name]
    audio = tmp_path / f"audio.{kind.ending}"
    run_ffmpeg("-i", call, *kind.options, audio)
    result = mux_screens(audio, list(zip(bases(10), SCREEN_STARTS, strict=True)), tmp_path)
    check_timing(result.path, expected_sources(10), CALL_SECONDS, FRAME_SECONDS, record_property, name, kind.channels)
    found = av_sync.streams(result.path)
    assert (found["video"].codec, found["audio"].codec, found["audio"].channels) == ("h264", kind.codec, kind.channels)


def test_video_and_audio_are_in_sync_for_still_screen_with_few_frames(tmp_path: Path, record_property: Record) -> None:
    audio, full, still = tmp_path / "call.mp3", tmp_path / "full.mp4", tmp_path / "still.mp4"
    media_kinds.make_audio(audio, T0, 45)
    begin, frames = -10.05, [0, 20, 40, 60]
    make_screen(full, T0 + timedelta(seconds=begin), 61, fps=1, size=media_kinds.SIZE)
    chosen = "+".join(f"eq(n,{frame})" for frame in frames)
    run_ffmpeg("-i", full, "-vf", f"select='{chosen}'", "-fps_mode", "passthrough", *media_kinds.PLAIN, still)
    result = mux_screens(audio, [(still, begin)], tmp_path)
    seen = av_sync.ExpectedSource(1, [begin + frame for frame in frames], begin + 61, [(0, 45)])
    check_timing(result.path, [seen], 45, FRAME_SECONDS, record_property, "still screen")
