"""Paused spans, and screens inside others, with real ffmpeg: every frame of the result is decoded and read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.media import make_audio, make_screen
from lab.readers import read_frames
from muxer.errors import MediaError
from muxer.media.analyze.arrival import MediaInput
from muxer.media.engine import MediaEngine, MuxedFile
from muxer.system.process import Runner
from tests.support import av_sync
from tests.support.media import MediaCache
from tests.support.tiers import spread_variants
from tests.support.tools import tested_tools

T0 = datetime(2026, 3, 1, 9, 0, 0, tzinfo=UTC)
SECONDS = 20.0
FPS = 10
TICK_SECONDS = 1 / 90_000
Spans = Sequence[tuple[float, float | None]]

# Output options of the screen file, whether its frames can be copied.
SOURCES = {
    "copied": (("-bf", "0", "-g", "20"), "mp4"),
    "B-frames": (("-bf", "3", "-g", "40"), "mp4"),
    "one key frame": (("-bf", "0", "-g", "1000"), "mp4"),
    "re-encoded": (("-c:v", "libvpx", "-deadline", "realtime", "-b:v", "1M"), "webm"),
    "matroska": (("-bf", "2", "-g", "30"), "mkv"),
}
PAUSES: dict[str, Spans] = {
    "on frames": [(5, 8)],
    "between frames": [(5.033, 8.471)],
    "in microseconds": [(5.033017, 8.471239)],
    "short": [(5.01, 5.02), (7.05, 7.051)],
    "at both ends": [(0, 2.35), (17.25, None)],
    "many, close to each other": [(3, 4), (4.05, 5), (5.3, 6), (6.1, 6.2)],
    "all over the file": [(9, 9.5), (11.7, 30)],
}


@pytest.fixture(autouse=True)
def _media_are_made_once(shelf: MediaCache, monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (make_audio, make_screen):
        monkeypatch.setattr(sys.modules[__name__], make.__name__, shelf.cached_maker(make))


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    path = tmp_path / "audio.mp3"
    make_audio(path, T0, SECONDS)
    return path


def create_screen(
    folder: Path,
    offset: float,
    seconds: float,
    agent: int = 1,
    extra: Sequence[str] = SOURCES["copied"][0],
    ending: str = "mp4",
) -> MediaInput:
    path = folder / f"screen-{agent}.{ending}"
    start = T0 + timedelta(seconds=offset)
    make_screen(path, start, seconds, fps=FPS, size=(320, 180), agent_number=agent, extra=extra)
    return MediaInput(path, path.name, start)


def mux_paused(folder: Path, audio: Path, screens: Sequence[MediaInput], paused: Spans = (), **options: object) -> MuxedFile:
    settings = {"tolerance": 2.0, "slice_ms": 700, "audio_codec": "copy", **options}
    engine = MediaEngine(tested_tools(), Runner(), **settings)
    spans = tuple((round(begin * 1e6), None if end is None else round(end * 1e6)) for begin, end in paused)
    return engine.mux(MediaInput(audio, audio.name, T0, paused=spans), screens, folder)


def unpaused_spans(spans: Spans, begin: float, end: float) -> list[tuple[float, float]]:
    """Return the unpaused parts of a span, without those shorter than a frame that have no other frame next to them."""
    left, position = [], begin
    for first, last in [*spans, (end, None)]:
        if min(first, end) - position >= 1 / FPS - 1e-9:
            left.append((position, min(first, end)))
        position = max(position, SECONDS if last is None else last)
    return left


def expected_source(agent: int, begin: float, seconds: float, seen: Sequence[tuple[float, float]]) -> av_sync.ExpectedSource:
    instants = [begin + number / FPS for number in range(round(seconds * FPS))]
    return av_sync.ExpectedSource(agent, instants, begin + seconds, seen)


def check_frames(result: MuxedFile, sources: Sequence[av_sync.ExpectedSource], paused: Spans = ()) -> None:
    """Check that every frame is that of its source at that time, and black without a source, within the rounding of a
    source in whole milliseconds. While the recording was paused, all frames are black, within a tick."""
    assert av_sync.picture_error(result.path, T0, SECONDS, sources) <= 0.001
    assert av_sync.sound_error(result.path, T0, SECONDS) <= av_sync.PIP_TOLERANCE_SECONDS
    assert {kind: round(one.seconds, 1) for kind, one in av_sync.streams(result.path).items()} == {
        "video": 20.0,
        "audio": 20.0,
    }
    frames = read_frames(result.path)
    ends = [*(frame.pts for frame in frames[1:]), SECONDS]
    for begin, until in paused:
        end = SECONDS if until is None else min(until, SECONDS)
        seen = [(one.pts, last) for one, last in zip(frames, ends, strict=True) if not one.black]
        assert [one for one in seen if one[0] < end - TICK_SECONDS and one[1] > begin + TICK_SECONDS] == []


@pytest.mark.parametrize("pause", spread_variants(PAUSES, 8))
@pytest.mark.parametrize("kind", spread_variants(SOURCES, 4))
def test_the_video_is_black_exactly_while_the_recording_was_paused(
    tmp_path: Path, audio: Path, kind: str, pause: str
) -> None:
    spans = PAUSES[pause]
    result = mux_paused(tmp_path, audio, [create_screen(tmp_path, 0.5, 19, 1, *SOURCES[kind])], spans)
    check_frames(result, [expected_source(1, 0.5, 19, unpaused_spans(spans, 0.5, 19.5))], spans)
    spans_in_journal = result.timeline.journal_facts()["paused"]
    assert [(one["begin"], one["end"]) for one in spans_in_journal] == [
        (begin, min(end or SECONDS, SECONDS)) for begin, end in spans
    ]
    assert result.paused == round(sum(one["end"] - one["begin"] for one in spans_in_journal) * 1e6)
    assert result.padding >= result.paused


def test_current_frame_is_shown_after_resume(tmp_path: Path, audio: Path) -> None:
    result = mux_paused(tmp_path, audio, [create_screen(tmp_path, 0, 20)], [(5.033, 8.471)])
    first = next(frame for frame in read_frames(result.path) if frame.pts > 5.033 and not frame.black)
    assert abs(first.pts - 8.471) <= TICK_SECONDS
    assert first.instant == round((T0.timestamp() + 8.4) * 1000) % av_sync.INSTANT_MODULUS


@pytest.mark.parametrize("kind", spread_variants(["copied", "re-encoded"], 2))
def test_pauses_apply_to_every_screen_of_a_call(tmp_path: Path, audio: Path, kind: str) -> None:
    spans = [(4.5, 7.25), (12, 13.01)]
    screens = [create_screen(tmp_path, 0, 10, 1), create_screen(tmp_path, 10, 10, 2, *SOURCES[kind])]
    result = mux_paused(tmp_path, audio, screens, spans)
    check_frames(
        result,
        [expected_source(1, 0, 10, unpaused_spans(spans, 0, 10)), expected_source(2, 10, 10, unpaused_spans(spans, 10, 20))],
        spans,
    )


def test_call_paused_throughout_is_black(tmp_path: Path, audio: Path) -> None:
    result = mux_paused(tmp_path, audio, [create_screen(tmp_path, 0, 20)], [(0, None)])
    frames = read_frames(result.path)
    assert frames and all(frame.black for frame in frames)
    assert av_sync.sound_error(result.path, T0, SECONDS) <= av_sync.PIP_TOLERANCE_SECONDS
    assert result.paused == result.padding == result.length


def test_screen_shown_only_during_pause_is_not_shown(tmp_path: Path, audio: Path) -> None:
    screens = [create_screen(tmp_path, 0, 10, 1), create_screen(tmp_path, 12, 3, 2)]
    result = mux_paused(tmp_path, audio, screens, [(11, 16)])
    check_frames(result, [expected_source(1, 0, 10, [(0, 10)])], [(11, 16)])


def test_pauses_apply_when_everything_is_re_encoded(tmp_path: Path, audio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute, calls = MediaEngine.execute_plan, []

    def fail_once(self: MediaEngine, plan: object, folder: Path) -> MuxedFile:
        calls.append(plan)
        if len(calls) == 1:
            raise MediaError("made up")
        return execute(self, plan, folder)

    monkeypatch.setattr(MediaEngine, "execute_plan", fail_once)
    spans = [(5.033, 8.471)]
    result = mux_paused(tmp_path, audio, [create_screen(tmp_path, 0, 20)], spans)
    assert len(calls) == 2
    check_frames(result, [expected_source(1, 0, 20, unpaused_spans(spans, 0, 20))], spans)


NESTED = {
    "one": [(0, 20), (5, 3)],
    "two, one in the other": [(0, 20), (3, 12), (5, 4)],
    "one after the other": [(0, 20), (3, 4), (9.4, 4.3)],
    "later than its neighbour": [(1, 17), (4, 6), (7, 6)],
}
SHOWN_SPANS = {
    "one": [[(0, 5), (8, 20)], [(5, 8)]],
    "two, one in the other": [[(0, 3), (15, 20)], [(3, 5), (9, 15)], [(5, 9)]],
    "one after the other": [[(0, 3), (7, 9.4), (13.7, 20)], [(3, 7)], [(9.4, 13.7)]],
    "later than its neighbour": [[(1, 4), (13, 18)], [(4, 7)], [(7, 13)]],
}


@pytest.mark.parametrize("kind", spread_variants(["copied", "B-frames", "re-encoded"], 3))
@pytest.mark.parametrize("layout", spread_variants(NESTED, 4))
def test_screen_is_shown_again_where_an_inner_screen_ends(tmp_path: Path, audio: Path, layout: str, kind: str) -> None:
    parts = NESTED[layout]
    screens = [create_screen(tmp_path, *part, number, *SOURCES[kind]) for number, part in enumerate(parts, start=1)]  # type: ignore[call-arg]
    result = mux_paused(tmp_path, audio, screens)
    check_frames(
        result,
        [expected_source(number, *part, SHOWN_SPANS[layout][number - 1]) for number, part in enumerate(parts, start=1)],  # type: ignore[call-arg, index]
    )
    covered = {
        at
        for spans in SHOWN_SPANS[layout]  # type: ignore[attr-defined]
        for begin, end in spans
        for at in range(round(begin * 10), round(end * 10))
    }
    assert result.padding == round((SECONDS - len(covered) / 10) * 1e6)


def test_frames_match_plain_ffmpeg(tmp_path: Path, audio: Path) -> None:
    """The reference is created by ffmpeg alone: a black canvas with the screens over it, black while paused."""
    screens = [create_screen(tmp_path, 0, 20, 1), create_screen(tmp_path, 5, 6, 2)]
    result = mux_paused(tmp_path, audio, screens, [(3.05, 4), (9.5, 12.35)])
    reference = tmp_path / "reference.mp4"
    graph = (
        "[1:v]setpts=PTS+5/TB[late];[0:v][late]overlay=eof_action=pass,tpad=stop=1:stop_mode=clone,fps=200[both];"
        "[both]drawbox=color=black:t=fill:enable='between(t,3.05,3.999)+between(t,9.5,12.349)'"
    )
    inputs = [part for screen in screens for part in ("-i", str(screen.path))]
    subprocess.run(
        ["ffmpeg", "-v", "error", *inputs, "-filter_complex", graph, "-preset", "ultrafast", str(reference)], check=True
    )
    expected = sorted(read_frames(reference), key=lambda one: one.pts)
    for frame in read_frames(result.path):
        middle = frame.pts + 0.004
        seen = max((one for one in expected if one.pts <= middle), key=lambda one: one.pts)
        assert (frame.black, frame.instant, frame.agent) == (seen.black, seen.instant, seen.agent), frame.pts
