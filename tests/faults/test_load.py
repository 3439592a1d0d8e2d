"""A recording of four hours with two hundred screen files: time, memory, open files, and the time of every frame."""

from __future__ import annotations

import os
import random
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from lab.media import make_screen
from lab.readers import read_frames
from muxer.media.analyze.arrival import MediaInput
from muxer.media.engine import MediaEngine
from muxer.media.ffmpeg import MediaTools
from muxer.system.process import Runner
from tests.bench.processes import watch_memory
from tests.support.av_sync import INSTANT_MODULUS, streams
from tests.support.media_kinds import PLAIN, T0, run_ffmpeg

FILE_COUNT = 200
FILE_INTERVAL = 72
SECONDS = FILE_COUNT * FILE_INTERVAL
# Additional memory that this process and the media programs may use at a time. About 75 of it are used by ffmpeg; the
# muxed file has 40.
MAX_MEGABYTES = 125.0
OTHER_SETS = (*PLAIN, "-x264-params", "cqm=jvt:ref=4")


@contextmanager
def limit_open_files() -> Iterator[None]:
    """Limit this process to a few more open files than it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (held + 32, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def four_hours(tmp_path: Path) -> Path:
    """Return a folder with an audio file of four hours, a repeated minute, and screen files of two kinds."""
    minute = tmp_path / "minute.mp3"
    run_ffmpeg("-f", "lavfi", "-i", "sine=r=8000:d=60", "-ac", "1", "-c:a", "libmp3lame", "-b:a", "16k", minute)
    run_ffmpeg("-stream_loop", "-1", "-i", minute, "-t", SECONDS, "-c", "copy", tmp_path / "audio.mp3")
    for agent, options in ((1, PLAIN), (2, OTHER_SETS)):
        make_screen(tmp_path / f"{agent}.mp4", T0, FILE_INTERVAL, fps=1, size=(320, 180), agent_number=agent, extra=options)
    return tmp_path


def screen_starts() -> list[float]:
    """Return the start times of the screen files in seconds of the audio: with gaps between them, or overlapping."""
    chance = random.Random(4)
    return [number * FILE_INTERVAL + chance.randint(1000, 5000) / 1000 for number in range(FILE_COUNT)]


def expected_frames(starts: list[float]) -> list[tuple[float, int, int]]:
    """Return the expected frames: the second, the instant that the frame shows, the agent."""
    expected = []
    for number, (start, following) in enumerate(pairwise([*starts, float(SECONDS)])):
        for frame in range(FILE_INTERVAL):
            if start + frame < min(following, SECONDS) - 0.0005:
                expected.append((start + frame, round((T0.timestamp() + frame) * 1000) % INSTANT_MODULUS, number % 2 + 1))
    return expected


@pytest.mark.long
def test_four_hours_with_two_hundred_screen_files(four_hours: Path) -> None:
    starts, job = screen_starts(), four_hours / "job"
    job.mkdir()
    screens = []
    for number, start in enumerate(starts):
        path = job / f"screen-{number}"
        os.link(four_hours / f"{number % 2 + 1}.mp4", path)
        screens.append(MediaInput(path, path.name, T0 + timedelta(seconds=start)))
    engine = MediaEngine(MediaTools("ffmpeg", "ffprobe"), Runner(), tolerance=0.0, slice_ms=5000, audio_codec="copy")
    with watch_memory(os.getpid()) as idle:
        time.sleep(0.2)
    with limit_open_files(), watch_memory(os.getpid()) as peak:
        muxed = engine.mux(MediaInput(four_hours / "audio.mp3", "audio", T0), screens, job)
    assert peak.megabytes - idle.megabytes < MAX_MEGABYTES
    assert muxed.reasons == ()
    for stream in streams(muxed.path).values():
        assert stream.seconds == pytest.approx(SECONDS, abs=0.15)
    frames = read_frames(muxed.path)
    seen = [(frame.pts, frame.instant, frame.agent) for frame in frames if not frame.black]
    expected = expected_frames(starts)
    assert [one[1:] for one in seen] == [one[1:] for one in expected]
    assert max(abs(one[0] - other[0]) for one, other in zip(seen, expected, strict=True)) < 0.0001
    black = [frame.pts for frame in frames if frame.black]
    gaps = [start + FILE_INTERVAL for start, following in pairwise(starts) if following - start >= FILE_INTERVAL + 1]
    assert all(any(abs(one - begin) < 0.0001 for one in black) for begin in gaps)
    assert not any(start + 0.0005 < one < start + FILE_INTERVAL - 0.0005 for one in black for start in starts)
