"""Comparison of a stored muxed file with a reference: files that plain ffmpeg changed in known ways."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from muxer.media.comparison import compare_muxed
from muxer.system.process import Runner
from tests.support.tools import tested_tools

QUIET = ("-nostdin", "-hide_banner", "-v", "error", "-y")
FAST = ("-movflags", "+faststart")
ENCODE = ("-c:v", "libx264", "-preset", "veryfast", "-bf", "0", "-g", "20", "-pix_fmt", "yuv420p")


def run_ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(["ffmpeg", *QUIET, *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "reference.mp4"
    screen, sound = "testsrc2=s=320x240:r=10:d=6", "sine=frequency=440:sample_rate=8000:d=6"
    run_ffmpeg("-f", "lavfi", "-i", screen, "-f", "lavfi", "-i", sound, *ENCODE, "-c:a", "aac", *FAST, path)
    return path


@pytest.fixture
def compare(reference: Path, tmp_path: Path) -> Callable[[Path], str]:
    tools = tested_tools()
    return lambda stored: "; ".join(compare_muxed(stored, reference, tmp_path, tools, Runner()))


def test_the_same_file_does_not_differ(compare: Callable[[Path], str], reference: Path, tmp_path: Path) -> None:
    shutil.copy(reference, tmp_path / "stored.mp4")
    assert compare(tmp_path / "stored.mp4") == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stored.mp4"]


def test_the_same_frames_by_another_encoder_do_not_differ(
    compare: Callable[[Path], str], reference: Path, tmp_path: Path
) -> None:
    stored = tmp_path / "stored.mp4"
    run_ffmpeg("-i", reference, *ENCODE, "-crf", "18", "-c:a", "aac", "-b:a", "96k", *FAST, stored)
    assert compare(stored) == ""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("-c", "copy"), "its index is behind the media"),
        (("-c", "copy", "-t", "3", *FAST), "frames instead of 60"),
        (("-vf", "hflip", *ENCODE, "-c:a", "copy", *FAST), "from 0.000 s on it shows other frames"),
        (
            ("-vf", "drawbox=enable='between(t,4,5)':x=100:y=60:w=120:h=120:t=fill", *ENCODE, "-c:a", "copy", *FAST),
            "from 4.000 s on it shows other frames",
        ),
        (("-c:v", "copy", "-af", "volume=enable='between(t,2,3)':volume=0", "-c:a", "aac", *FAST), "in second 2 its audio"),
        (("-c", "copy", "-an", *FAST), "it has 1 tracks"),
    ],
)
def test_changes_are_found_where_they_are(
    compare: Callable[[Path], str], reference: Path, tmp_path: Path, change: tuple[str, ...], expected: str
) -> None:
    stored = tmp_path / "stored.mp4"
    run_ffmpeg("-i", reference, *change, stored)
    assert expected in compare(stored)


def test_frames_at_other_times_are_found(compare: Callable[[Path], str], reference: Path, tmp_path: Path) -> None:
    stored = tmp_path / "stored.mp4"
    run_ffmpeg("-itsscale", "1.5", "-i", reference, "-c", "copy", *FAST, stored)
    assert "frame 2 is shown at 0.150 s instead of 0.100 s" in compare(stored)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_one_byte_of_the_media_is_found(
    compare: Callable[[Path], str], reference: Path, tmp_path: Path, place: float
) -> None:
    content = bytearray(reference.read_bytes())
    media = content.index(b"mdat") + 4
    content[media + int((len(content) - media) * place)] ^= 0x10
    (stored := tmp_path / "stored.mp4").write_bytes(content)
    assert "1 of " in (found := compare(stored)) and "other bytes than their source" in found, found


@pytest.mark.parametrize("length", [0, 10, 1000, -1, -1000])
def test_a_truncated_file_is_found(compare: Callable[[Path], str], reference: Path, tmp_path: Path, length: int) -> None:
    (stored := tmp_path / "stored.mp4").write_bytes(reference.read_bytes()[:length])
    assert compare(stored) != ""
