"""Incomplete sources: the muxer waits while they may grow, and then uses the available part."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from muxer.errors import Code, MediaError, MediaIncomplete
from muxer.media.analyze.arrival import Arrival, MediaInput
from muxer.media.engine import MediaEngine, MuxedFile
from muxer.system.process import Runner
from tests.support.tiers import spread_variants
from tests.support.tools import tested_tools

START = datetime(2024, 1, 2, 10, 0, 0, tzinfo=UTC)
SECONDS, RATE = 12, 10
H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "20"]
GROWS = (Arrival.GROWING, Arrival.COMPLETE)

# How a screen file with frames that get brighter every second is created, and its name.
SCREENS = {
    "front.mp4": [*H264, "-bf", "2", "-movflags", "faststart"],
    "no-reordering.mp4": [*H264, "-bf", "0", "-movflags", "faststart"],
    "fragments.mp4": [*H264, "-bf", "0", "-movflags", "frag_keyframe+empty_moov"],
    "plain.mkv": [*H264, "-bf", "0"],
    "vp8.webm": ["-c:v", "libvpx", "-deadline", "realtime", "-g", "20"],
    "plain.avi": ["-c:v", "mpeg4", "-g", "20", "-qscale:v", "3"],
    "vp9.mp4": ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "20", "-movflags", "faststart"],
    "mjpeg.mov": ["-c:v", "mjpeg", "-qscale:v", "5", "-movflags", "faststart"],
}
CALLS = {
    "call.mp3": ["-c:a", "libmp3lame"],
    "call.wav": [],
    "call.m4a": ["-c:a", "aac", "-movflags", "faststart"],
    "opus.mp4": ["-c:a", "libopus", "-movflags", "faststart"],
}


def run_ffmpeg(*arguments: object) -> bytes:
    return subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True, capture_output=True).stdout


def brightness_input(length: float = SECONDS) -> list[str]:
    """Return the ffmpeg input with a different brightness in each second: 32 + 16 * second."""
    levels = "geq=lum='32+16*floor(T)':cb=128:cr=128"
    return ["-f", "lavfi", "-i", f"color=s=160x120:r={RATE}:d={length},format=yuv420p,{levels}"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a complete file of every format."""
    folder = tmp_path_factory.mktemp("sources")
    for name, how in SCREENS.items():
        run_ffmpeg(*brightness_input(), *how, folder / name)
    run_ffmpeg("-i", folder / "front.mp4", "-c", "copy", folder / "end.mp4")
    for name, how in CALLS.items():
        run_ffmpeg("-f", "lavfi", "-i", f"sine=f=600:r=16000:d={SECONDS}", *how, folder / name)
    return folder


def create_input(path: Path, arrival: Arrival, length: float = SECONDS, shortfall: str = "") -> MediaInput:
    return MediaInput(path, path.name, START, START + timedelta(seconds=length), arrival, shortfall)


def truncate_file(whole: Path, folder: Path, part: float) -> Path:
    path = folder / whole.name
    content = whole.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    return path


def mux_sources(folder: Path, audio: MediaInput, *screens: MediaInput) -> MuxedFile:
    engine = MediaEngine(tested_tools(), Runner(), tolerance=2.0, slice_ms=5000, audio_codec="copy")
    (folder / "job").mkdir(exist_ok=True)
    return engine.mux(audio, screens, folder / "job")


def seconds_seen(path: Path) -> list[int | None]:
    """Decode with plain ffmpeg; return for the middle of each second which second of the source is shown, None for black."""
    raw = run_ffmpeg("-i", path, "-map", "0:v:0", "-vf", f"fps={RATE},scale=16:12,format=gray", "-f", "rawvideo", "pipe:1")
    size = 16 * 12
    middles = [raw[number * size : (number + 1) * size] for number in range(RATE // 2, len(raw) // size, RATE)]
    levels = [sum(frame) / size for frame in middles]
    # Limited range is stretched to full range when it becomes gray.
    return [None if level < 8 else round((level / 255 * 219 + 16 - 32) / 16) for level in levels]


def audible_seconds(path: Path) -> list[bool]:
    """Decode with plain ffmpeg; return for each second whether anything is heard."""
    raw = run_ffmpeg("-i", path, "-map", "0:a:0", "-ac", "1", "-ar", "8000", "-f", "s8", "pipe:1")
    return [any(4 < one < 252 for one in raw[number : number + 8000]) for number in range(0, len(raw) - 4000, 8000)]


@pytest.mark.parametrize("arrival", GROWS)
@pytest.mark.parametrize("part", spread_variants([0.0005, 0.0, 0.02, 0.3, 0.6, 0.97], 6))
@pytest.mark.parametrize("name", [*SCREENS, "end.mp4"])
def test_a_truncated_screen_that_may_grow_is_awaited(
    sources: Path, tmp_path: Path, name: str, part: float, arrival: Arrival
) -> None:
    path = truncate_file(sources / name, tmp_path, part)
    with pytest.raises(MediaIncomplete, match=f"^{name}: the file is not complete yet") as caught:
        mux_sources(tmp_path, create_input(sources / "call.mp3", arrival), create_input(path, arrival))
    assert caught.value.source == name and caught.value.code == "MUX-222"


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("part", spread_variants([0.0, 0.02, 0.5, 0.8], 2))
def test_truncated_call_that_may_grow_is_awaited(sources: Path, tmp_path: Path, name: str, part: float) -> None:
    path = truncate_file(sources / name, tmp_path, part)
    with pytest.raises(MediaIncomplete, match=f"^{name}: the file is not complete yet"):
        mux_sources(tmp_path, create_input(path, Arrival.GROWING), create_input(sources / "front.mp4", Arrival.GROWING))


@pytest.mark.parametrize("arrival", Arrival)
@pytest.mark.parametrize("name", spread_variants([*SCREENS, "end.mp4"], 4))
def test_complete_screen_is_muxed_completely(sources: Path, tmp_path: Path, name: str, arrival: Arrival) -> None:
    done = mux_sources(tmp_path, create_input(sources / "call.mp3", arrival), create_input(sources / name, arrival))
    assert seconds_seen(done.path) == list(range(SECONDS))
    assert done.missing == ()


@pytest.mark.parametrize("name", SCREENS)
def test_the_available_part_of_a_screen_that_no_longer_grows_is_shown(
    sources: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = truncate_file(sources / name, tmp_path, 0.6)
    done = mux_sources(tmp_path, create_input(sources / "call.mp3", Arrival.SETTLED), create_input(path, Arrival.SETTLED))
    seen = seconds_seen(done.path)
    there = len(seconds_seen(path))
    assert 2 <= there < SECONDS
    assert seen[: there - 1] == list(range(there - 1))
    assert seen[there + 1 :] == [None] * (SECONDS - there - 1)
    (missing,) = done.missing
    assert missing.startswith(f"{name}: it is truncated")
    assert [record.levelname for record in caplog.records if f"{name} is incomplete" in record.message] == ["WARNING"]


def test_start_offset_is_kept_in_available_part(sources: Path, tmp_path: Path) -> None:
    late = tmp_path / "late.mp4"
    run_ffmpeg("-itsoffset", "3", "-i", sources / "no-reordering.mp4", "-c", "copy", "-movflags", "faststart", late)
    (folder := tmp_path / "cut").mkdir()
    path = truncate_file(late, folder, 0.7)
    whole = mux_sources(
        tmp_path, create_input(sources / "call.mp3", Arrival.SETTLED), create_input(late, Arrival.SETTLED, 15)
    )
    expected = seconds_seen(whole.path)
    done = mux_sources(
        tmp_path, create_input(sources / "call.mp3", Arrival.SETTLED), create_input(path, Arrival.SETTLED, 15)
    )
    assert expected[:6] == [None, None, None, 0, 1, 2]
    assert seconds_seen(done.path)[:6] == expected[:6]


@pytest.mark.parametrize("name", CALLS)
def test_the_available_part_of_a_call_that_no_longer_grows_is_used(sources: Path, tmp_path: Path, name: str) -> None:
    path = truncate_file(sources / name, tmp_path, 0.5)
    done = mux_sources(tmp_path, create_input(path, Arrival.SETTLED), create_input(sources / "front.mp4", Arrival.SETTLED))
    assert 5_000_000 < done.length < 7_000_000
    assert all(audible_seconds(done.path)) and len(audible_seconds(done.path)) >= 5
    assert done.missing[0].startswith(f"{name}: ") and "but 12.0 s by its metadata" in done.missing[0]


@pytest.mark.parametrize("part", [0.0, 0.5, 0.9])
def test_a_file_without_its_index_cannot_be_used(sources: Path, tmp_path: Path, part: float) -> None:
    path = truncate_file(sources / "end.mp4", tmp_path, part)
    with pytest.raises(MediaError) as caught:
        mux_sources(tmp_path, create_input(sources / "call.mp3", Arrival.SETTLED), create_input(path, Arrival.SETTLED))
    assert caught.value.code is (Code.TRUNCATED if part else Code.EMPTY_FILE)


def test_expected_size_proves_the_file_complete(sources: Path, tmp_path: Path) -> None:
    call, screen = (
        create_input(sources / "call.mp3", Arrival.COMPLETE, 30),
        create_input(sources / "front.mp4", Arrival.COMPLETE, 30),
    )
    assert mux_sources(tmp_path, call, screen).length > 11_900_000
    with pytest.raises(MediaIncomplete, match=r"call\.mp3: .* lasts 12\.0 s, but 30\.0 s by its metadata"):
        mux_sources(tmp_path, replace(call, arrival=Arrival.GROWING), screen)


def test_structure_proves_the_file_complete(sources: Path, tmp_path: Path) -> None:
    call = create_input(sources / "call.mp3", Arrival.GROWING)
    for name in ("front.mp4", "fragments.mp4", "plain.mkv", "plain.avi"):
        assert mux_sources(tmp_path, call, create_input(sources / name, Arrival.GROWING, 60)).length > 11_900_000


def test_short_live_file_is_awaited(sources: Path, tmp_path: Path) -> None:
    live = tmp_path / "live.mkv"
    live.write_bytes(run_ffmpeg("-i", sources / "plain.mkv", "-c", "copy", "-f", "matroska", "-live", "1", "pipe:1"))
    call = create_input(sources / "call.mp3", Arrival.GROWING)
    assert mux_sources(tmp_path, call, create_input(live, Arrival.GROWING)).missing == ()
    with pytest.raises(MediaIncomplete):
        mux_sources(tmp_path, call, create_input(live, Arrival.GROWING, 60))
    assert "live.mkv: lasts" in mux_sources(tmp_path, call, create_input(live, Arrival.SETTLED, 60)).missing[0]


def test_file_with_missing_bytes_is_awaited_and_then_used(sources: Path, tmp_path: Path) -> None:
    call, lacks = create_input(sources / "call.mp3", Arrival.GROWING), "9 of 10 bytes are there"
    screen = create_input(sources / "front.mp4", Arrival.GROWING, shortfall=lacks)
    with pytest.raises(MediaIncomplete, match=lacks):
        mux_sources(tmp_path, call, screen)
    assert mux_sources(tmp_path, call, replace(screen, arrival=Arrival.SETTLED)).missing == (f"front.mp4: {lacks}",)


def test_file_without_media_is_an_error_although_it_may_grow(sources: Path, tmp_path: Path) -> None:
    (path := tmp_path / "page.mp4").write_bytes(b"<html>not found</html>" * 100)
    for arrival in Arrival:
        with pytest.raises(MediaError, match="not a readable media file"):
            mux_sources(tmp_path, create_input(sources / "call.mp3", arrival), create_input(path, arrival))
