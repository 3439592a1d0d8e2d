"""Sources whose times or shapes only ffmpeg reads right: pauses in streams with a clock, negative durations, turns."""

from __future__ import annotations

import struct
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from muxer.media.analyze.audio_decode import decode_audio
from muxer.media.analyze.copyable import read_copyable_screen
from muxer.media.engine import MediaEngine, MediaInput, MuxedFile
from muxer.media.mp4 import BoxError, read_tracks
from muxer.system.process import Runner
from tests.support.tools import tested_tools

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
QUIET = ("-nostdin", "-hide_banner", "-v", "error", "-y")
ENCODE = ("-c:v", "libx264", "-preset", "veryfast", "-bf", "0", "-g", "20", "-pix_fmt", "yuv420p")
SCREEN = ("-f", "lavfi", "-i", "testsrc2=s=320x240:r=10:d=4")
PAUSE = 12


def run_ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(["ffmpeg", *QUIET, *map(str, arguments)], check=True)


def mux(audio: Path, screen: Path, folder: Path) -> MuxedFile:
    engine = MediaEngine(tested_tools(), Runner(), tolerance=2.0, slice_ms=5000, audio_codec="copy")
    (work := folder / "work").mkdir()
    return engine.mux(MediaInput(audio, audio.name, BEGIN), [MediaInput(screen, screen.name, BEGIN)], work)


@pytest.fixture
def screen(tmp_path: Path) -> Path:
    run_ffmpeg(*SCREEN, *ENCODE, "-movflags", "+faststart", path := tmp_path / "screen.mp4")
    return path


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    run_ffmpeg("-f", "lavfi", "-i", "sine=f=440:r=8000:d=22", "-c:a", "libmp3lame", path := tmp_path / "audio.mp3")
    return path


@pytest.mark.machine_ffmpeg
@pytest.mark.parametrize("kind", ["ogg", "ts", "mpg", "mkv", "flv"])
def test_a_pause_in_the_audio_is_heard_as_long_as_it_was(tmp_path: Path, kind: str) -> None:
    codec = {"ogg": "libopus", "mpg": "mp2"}.get(kind, "aac")
    rate = 44100 if kind in ("mpg", "flv") else 48000
    later = f"asetpts='PTS+gte(T,2)*{PAUSE}/TB'"
    path = tmp_path / f"audio.{kind}"
    run_ffmpeg("-f", "lavfi", "-i", f"sine=f=440:r={rate}:d=4", "-af", later, "-c:a", codec, path)
    decoded = decode_audio(tested_tools(), Runner(), path)
    assert [round(gap.length_us / 1e6) for gap in decoded.gaps] == [PAUSE]
    assert 1.9e6 < decoded.gaps[0].at_us < 2.3e6


@pytest.mark.machine_ffmpeg
def test_a_pause_before_a_clock_that_starts_over_is_shown(tmp_path: Path, audio: Path) -> None:
    first, second, joined = (tmp_path / name for name in ("first.ts", "second.ts", "joined.ts"))
    later = f"setpts='PTS+gt(T,2)*{PAUSE}/TB'"
    run_ffmpeg(*SCREEN, "-vf", later, "-fps_mode", "passthrough", *ENCODE, "-muxdelay", "0", first)
    run_ffmpeg(*SCREEN, *ENCODE, "-muxdelay", "0", second)
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    pieces = mux(audio, joined, tmp_path).timeline.pieces
    shown = [piece for piece in pieces if piece.clip is not None]
    assert 4 + PAUSE + 4 - 0.5 < sum(piece.end - piece.begin for piece in shown) / 1e6 < 4 + PAUSE + 4 + 0.5


def replace_in_box(path: Path, kind: bytes, at: int, value: bytes, output: Path) -> Path:
    content = bytearray(path.read_bytes())
    place = content.index(kind) + 4 + at
    content[place : place + len(value)] = value
    output.write_bytes(content)
    return output


def test_a_negative_duration_is_left_to_ffmpeg(tmp_path: Path, screen: Path) -> None:
    # The only run of durations, with 40 samples.
    changed = replace_in_box(screen, b"stts", 12, struct.pack(">I", (1 << 32) - 5), tmp_path / "changed.mp4")
    with pytest.raises(BoxError, match="negative"):
        read_tracks(changed)
    assert read_copyable_screen(changed) is None


def test_a_movie_that_is_turned_as_a_whole_is_shown_turned(tmp_path: Path, screen: Path, audio: Path) -> None:
    quarter = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 240 << 16, 0, 0x40000000)
    turned = replace_in_box(screen, b"mvhd", 36, quarter, tmp_path / "turned.mp4")
    assert read_copyable_screen(turned) is None
    result = mux(audio, turned, tmp_path).path
    probe = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "stream_side_data=rotation", "-of", "csv"]
    rotations = [
        subprocess.run([*probe, path], capture_output=True, text=True, check=True).stdout for path in (turned, result)
    ]
    assert "90" in rotations[0] and rotations[0].split(",")[-1] == rotations[1].split(",")[-1]


@pytest.mark.parametrize(("width", "is_copied"), [(640, False), (321, True), (320, True)])
def test_frames_that_are_shown_in_another_shape_are_not_copied(
    tmp_path: Path, screen: Path, audio: Path, width: int, is_copied: bool
) -> None:
    content = screen.read_bytes()
    without = content.replace(b"pasp", b"free")  # a box that says that pixels are square
    (plain := tmp_path / "plain.mp4").write_bytes(without)
    shaped = replace_in_box(plain, b"tkhd", 76, struct.pack(">I", width << 16), tmp_path / "shaped.mp4")
    assert (read_copyable_screen(shaped) is not None) is is_copied
    if not is_copied:
        result = mux(audio, shaped, tmp_path).path
        probe = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "stream=width,height", "-of", "csv=p=0"]
        assert subprocess.run([*probe, result], capture_output=True, text=True, check=True).stdout.strip() == "640,240"
