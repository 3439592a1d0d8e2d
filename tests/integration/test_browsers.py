"""Muxed files in real browsers: they play and seek, frames have the right time, the audio is complete."""

from __future__ import annotations

import base64
import io
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from lab.media import DecodedFrame, DecodedPip, make_audio, make_screen
from lab.readers import HEIGHT, RATE, WIDTH, find_pips, read_frame_codes
from muxer.media.analyze.arrival import MediaInput
from muxer.media.engine import MediaEngine
from muxer.system.process import Runner
from tests.support import browsers
from tests.support.tools import tested_tools

T0 = datetime(2026, 3, 1, 9, 0, 0, tzinfo=UTC)
SECONDS, FRAME = 8, 0.1
JOIN_TOLERANCE = FRAME / 2  # the distance from a join at which frames are checked
B_FRAMES, SPARSE = ("-bf", "3"), ("-bf", "3", "-g", "1000")


@dataclass(frozen=True)
class BrowserCase:
    """A call: its audio, and for each screen its offset, length and options; and the times at which the result is checked.

    ``then`` are the options of the second half of a joined audio file; ``late`` is the silence in seconds before the
    audio that its file does not declare.
    """

    audio: Mapping[str, Any]
    screens: Sequence[tuple[float, float, Mapping[str, Any]]]
    seeks: tuple[float, ...]
    play_from: float
    audio_codec: str = "copy"
    suffix: str = "mp3"
    then: Mapping[str, Any] | None = None
    late: float = 0.0

    def expected_agent(self, second: float) -> int | None:
        """Return the agent whose screen is shown at `second`, None for padding."""
        seen = [n for n, (offset, length, _) in enumerate(self.screens, 1) if offset <= second < offset + length]
        return seen[0] if seen else None


CASES = {
    "plain": BrowserCase({}, [(0, 8, {"extra": B_FRAMES})], (0.05, 2.33, 5.0, 6.71, 7.95), 1.3),
    "gaps": BrowserCase(
        {"codec": ("-c:a", "libopus", "-ar", "48000")},
        [(-0.7, 3.2, {"extra": SPARSE}), (4, 3, {"extra": B_FRAMES})],
        (1.33, 2.5 - JOIN_TOLERANCE, 2.5 + JOIN_TOLERANCE, 4 + JOIN_TOLERANCE, 7.9),
        3.2,
        suffix="ogg",
    ),
    "two-forms": BrowserCase({"rate": 44100}, [(0, 8, {})], (0.05, 5.0), 3.2, then={"rate": 48000, "channels": 1}),
    "wav": BrowserCase(
        {"rate": 16000, "codec": ("-c:a", "libmp3lame")}, [(0, 9, {})], (0.05, 5.0), 3.2, suffix="wav", late=1105 / 16000
    ),
    "unequal": BrowserCase(
        {"channels": 1},
        [(1, 3, {"size": (480, 270)}), (4, 4, {"size": (640, 480), "extra": ("-profile:v", "main")})],
        (0.5, 2.22, 4 - JOIN_TOLERANCE, 4 + JOIN_TOLERANCE, 7.75),
        3.2,
        audio_codec="aac",
    ),
}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, browsers.BrowserFilm]:
    films = {}
    for name, case in CASES.items():
        path = create_muxed(tmp_path_factory.mktemp(name), case)
        films[name] = browsers.BrowserFilm(path, case.seeks, case.play_from)
    return films


def create_muxed(folder: Path, case: BrowserCase) -> Path:
    audio = folder / f"call.{case.suffix}"
    make_audio(audio, T0, SECONDS / 2 if case.then else SECONDS, **case.audio)
    if case.then:
        make_audio(half := folder / "half.mp3", T0 + timedelta(seconds=SECONDS / 2), SECONDS / 2, **case.then)
        audio.write_bytes(audio.read_bytes() + half.read_bytes())
    screens = []
    for number, (offset, seconds, make) in enumerate(case.screens, 1):
        path, start = folder / f"screen-{number}.mp4", T0 + timedelta(seconds=offset)
        make_screen(path, start, seconds, agent_number=number, **make)
        screens.append(MediaInput(path, path.name, start))
    engine = MediaEngine(tested_tools(), Runner(), tolerance=2.0, slice_ms=5000, audio_codec=case.audio_codec)
    return engine.mux(MediaInput(audio, audio.name, T0), screens, folder).path


@dataclass(frozen=True)
class BrowserResult:
    """What a browser reported about one muxed file."""

    observed: Mapping[str, Any]

    @cached_property
    def seek_frames(self) -> list[DecodedFrame]:
        """The frame after each seek, in the order of the seeks."""
        shots = [(seek["second"], base64.b64decode(seek["picture"])) for seek in self.observed["seeks"]]
        return [DecodedFrame(second, *look) for second, grey in shots for look in read_frame_codes(io.BytesIO(grey))]

    @cached_property
    def channel_pips(self) -> list[list[DecodedPip]]:
        """The pips of each channel."""
        return [find_pips(array("h", base64.b64decode(channel))) for channel in self.observed["sound"]["channels"]]


@pytest.fixture(scope="module")
def watching(films: dict[str, browsers.BrowserFilm]) -> Iterator[dict[str, Future[browsers.BrowserReport]]]:
    """Play in all browsers at the same time, because most of it is waiting."""
    with ThreadPoolExecutor() as pool:
        yield {name: pool.submit(browsers.play_in_browser, name, films, (WIDTH, HEIGHT), RATE) for name in browsers.PROGRAMS}


@pytest.fixture(scope="module", params=sorted(browsers.PROGRAMS))
def report(request: pytest.FixtureRequest, watching: dict[str, Future[browsers.BrowserReport]]) -> browsers.BrowserReport:
    return watching[request.param].result()


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def seen(report: browsers.BrowserReport, case: str) -> BrowserResult:
    observed = report.films[case]
    assert "error" not in observed, observed["error"]
    return BrowserResult(observed)


def test_length_and_size_are_known_before_playback(seen: BrowserResult, case: str) -> None:
    sizes = [make.get("size", (640, 360)) for _, _, make in CASES[case].screens]
    assert tuple(seen.observed["size"]) == tuple(max(size[side] for size in sizes) for side in (0, 1))
    assert abs(seen.observed["duration"] - SECONDS - CASES[case].late) <= FRAME


def test_seek_shows_the_frame_of_its_time(seen: BrowserResult, case: str) -> None:
    assert [frame.pts for frame in seen.seek_frames] == list(CASES[case].seeks)
    for frame in seen.seek_frames:
        expected = CASES[case].expected_agent(frame.pts)
        assert frame.black == (expected is None), frame
        if expected is not None:
            assert frame.instant is not None and frame.agent == expected, frame
            error = frame.instant / 1000 - (T0.timestamp() + frame.pts) % (2**32 / 1000)
            assert abs(error) <= FRAME + 0.002, frame


def test_playback_continues_across_a_join(seen: BrowserResult) -> None:
    played = seen.observed["played"]
    assert played["error"] is None
    assert played["to"] >= played["from"] + 1.5 and played["frames"] > 0


def test_all_audio_channels_are_decoded_completely(seen: BrowserResult, case: str) -> None:
    assert len(seen.channel_pips) == CASES[case].audio.get("channels", 2)
    for pips in seen.channel_pips:
        assert [pip.second for pip in pips] == [(int(T0.timestamp()) + n) % 40 for n in range(SECONDS)]
        assert all(abs(pip.onset - n - CASES[case].late) <= 0.06 for n, pip in enumerate(pips)), pips


def test_files_are_requested_in_ranges(report: browsers.BrowserReport) -> None:
    assert 206 in report.states
