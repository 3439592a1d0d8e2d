"""Comparison of a stored muxed file with a reference: files that plain ffmpeg changed in known ways."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.media import make_audio, make_screen
from muxer.errors import MediaError, ToolError
from muxer.media.comparison import MAX_ERROR_LENGTH, compare_muxed, describe_error
from muxer.media.engine import MediaEngine, MediaInput
from muxer.media.mp4 import BoxError, compare_indexes
from muxer.system.process import Runner
from tests.support.tiers import spread_variants
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
    return lambda stored: "; ".join(compare_muxed(stored, reference, tmp_path, tools, Runner()).differences)


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


BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


def mux_call(folder: Path, *encoding: str) -> Path:
    """Mux 6 seconds of audio and 4 of screen, encoded once more with the options `encoding`, if any."""
    audio, screen, made = (folder / name for name in ("audio.mp3", "screen.mp4", "made.mp4"))
    make_audio(audio, BEGIN, 6)
    make_screen(made if encoding else screen, BEGIN, 4)
    if encoding:
        run_ffmpeg("-i", made, *ENCODE, *encoding, *FAST, screen)
    engine = MediaEngine(tested_tools(), Runner(), tolerance=0.0, slice_ms=700, audio_codec="copy")
    inputs = [MediaInput(screen, screen.name, BEGIN + timedelta(seconds=1))]
    return engine.mux(MediaInput(audio, audio.name, BEGIN), inputs, folder).path


@pytest.fixture(scope="module")
def muxed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mux_call(tmp_path_factory.mktemp("muxed"))


# Boxes of a track, and places in them; of the file, or of the video only.
TRACK_PLACES = [
    *(("tkhd", at) for at in (3, 23, 31, 37, 41, 43, 59, 75, 79, 80, 84)),
    *(("elst", at) for at in (14, 22, 25)),
    *(("mdhd", at) for at in (22, 30)),
    *(("stsd", at) for at in (27, 40, 41)),
    *(("dref", at) for at in (7, 19)),
    *(("hdlr", at) for at in (11, 24)),
    *(("stts", 10), ("stts", 14), ("stsc", 14), ("stsz", 14), ("stco", 14), ("stco", -2)),
]
OTHER_PLACES = [*(("mvhd", at) for at in (27, 30, 39, 72)), *(("ftyp", at) for at in (0, 7, 9)), ("stss", 11)]
CHANGES = [*((0, *one) for one in (*TRACK_PLACES, *OTHER_PLACES)), *((1, *one) for one in TRACK_PLACES)]


def is_written(kind: str, track: int) -> bool:
    """Whether the muxer writes a box of this kind without a value of a source."""
    return kind in ("ftyp", "mvhd", "hdlr", "dref", "stsc", "stco") or (kind, track) in (("mdhd", 0), ("tkhd", 1))


class TestIndex:
    """A changed byte in the index of a muxed file."""

    @pytest.mark.parametrize(("track", "kind", "place"), spread_variants(CHANGES, 10))
    def test_each_changed_byte_is_found(self, muxed: Path, tmp_path: Path, kind: str, place: int, track: int) -> None:
        content = bytearray(muxed.read_bytes())
        begin = content.find(kind.encode(), content.find(b"trak", content.find(b"trak") + 4) if track else 0)
        assert begin > 0
        content[begin + 4 + place if place >= 0 else begin + place + 4] ^= 0x04
        (stored := tmp_path / "stored.mp4").write_bytes(content)
        found = compare_muxed(stored, muxed, tmp_path, tested_tools(), Runner())
        assert found.differences
        assert found.proves_damage or not is_written(kind, track), found
        if not is_written(kind, track):
            # The same difference, but in the file that is made of the sources now: one of them may have been changed.
            with suppress(BoxError, MediaError, ToolError):
                swapped = compare_muxed(muxed, stored, tmp_path, tested_tools(), Runner())
                assert not swapped.proves_damage, swapped

    def test_offsets_of_eight_bytes_may_be_shifted_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("muxer.media.mp4.writer._MAX_32_BIT_SIZE", 0)
        content = (path := mux_call(tmp_path)).read_bytes()
        at = content.index(b"mdat") - 4
        assert b"co64" in content[:at]
        shifted = tmp_path / "shifted.mp4"
        shifted.write_bytes(_shift_offsets(bytearray(content[:at])) + (8).to_bytes(4, "big") + b"free" + content[at:])
        assert compare_indexes(shifted, path) == []
        (other := tmp_path / "other.mp4").write_bytes(content.replace(b"co64", b"co65", 1))
        assert compare_indexes(other, path) != []

    def test_times_of_creation_and_a_shift_of_all_offsets_are_no_difference(self, muxed: Path, tmp_path: Path) -> None:
        content = bytearray(muxed.read_bytes())
        for kind in (b"mvhd", b"tkhd", b"mdhd"):
            at = content.index(kind) + 8
            content[at : at + 16] = bytes(16)
        (stored := tmp_path / "stored.mp4").write_bytes(content)
        assert compare_indexes(stored, muxed) == []
        shifted = tmp_path / "shifted.mp4"
        at = content.index(b"mdat") - 4
        shifted.write_bytes(_shift_offsets(content[:at]) + (8).to_bytes(4, "big") + b"free" + content[at:])
        assert compare_muxed(shifted, muxed, tmp_path, tested_tools(), Runner()).differences == ()

    def test_times_that_were_rounded_differently_are_no_difference(self, muxed: Path, tmp_path: Path) -> None:
        content = bytearray(muxed.read_bytes())
        for kind, place in ((b"mvhd", 31), (b"tkhd", 35), (b"mdhd", 31), (b"elst", 15), (b"stts", 15)):
            content[content.index(kind) + 4 + place] ^= 1
        (stored := tmp_path / "stored.mp4").write_bytes(content)
        assert compare_muxed(stored, muxed, tmp_path, tested_tools(), Runner()).differences == ()

    def test_a_file_of_another_program_is_compared_by_what_it_shows(self, muxed: Path, tmp_path: Path) -> None:
        stored = tmp_path / "stored.mp4"
        for options in ((), ("-bitexact",)):
            run_ffmpeg("-i", muxed, "-c:v", "copy", "-c:a", "aac", *options, *FAST, stored)
            assert compare_indexes(stored, muxed) == []

    @pytest.mark.parametrize("options", [("-crf", "30"), ("-g", "7")])
    def test_the_same_frames_by_another_build_are_no_difference(
        self, muxed: Path, tmp_path: Path, options: tuple[str, ...]
    ) -> None:
        """Sizes, sync samples and the description of the video are those of another encoder."""
        (folder := tmp_path / "other").mkdir()
        stored = mux_call(folder, *options)
        assert compare_indexes(stored, muxed) == []


def _shift_offsets(index: bytearray) -> bytearray:
    for kind, width in ((b"stco", 4), (b"co64", 8)):
        at = index.find(kind)
        while at >= 0:
            count = int.from_bytes(index[at + 8 : at + 12], "big")
            for place in range(at + 12, at + 12 + width * count, width):
                number = int.from_bytes(index[place : place + width], "big") + 8
                index[place : place + width] = number.to_bytes(width, "big")
            at = index.find(kind, at + 4)
    return index


def test_errors_are_short_and_the_same_in_each_run(tmp_path: Path) -> None:
    text = f"[h264 @ 0x55d0c0ffee00] {tmp_path}/stored.mp4: {'x' * 300}\nmore"
    shown = describe_error(ToolError(text), tmp_path)
    assert shown.startswith("[h264] stored.mp4: xxx") and len(shown) == MAX_ERROR_LENGTH and "more" not in shown
