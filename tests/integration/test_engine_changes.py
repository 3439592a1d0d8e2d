"""Files that change: frames that change within the file, edit lists, streams that start late."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from lab.media import make_audio, make_screen, read_pips
from muxer.media.analyze.arrival import MediaInput
from muxer.media.analyze.probe import probe_file
from muxer.media.engine import MediaEngine, MuxedFile
from muxer.media.media_info import require_video
from muxer.media.plan.mux_plan import MIN_SLICE_US
from muxer.system.process import Runner
from tests.support import av_sync, media_kinds
from tests.support.media_kinds import PLAIN, T0, run_ffmpeg
from tests.support.tools import tested_tools

SIZES = ((320, 180), (480, 270))
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "20")
# The start of the screen, the length of each of its parts, and the length of the call.
BEGIN, PART, SECONDS = -1.55, 2.0, 2.0


def make_parts(folder: Path, ending: str, *options: str) -> list[Path]:
    """Create the two parts of a screen recording; the second is larger."""
    result = []
    for number, size in enumerate(SIZES):
        base, part = folder / f"base-{number}.mp4", folder / f"part-{number}.{ending}"
        make_screen(base, T0 + timedelta(seconds=BEGIN + number * PART), PART, size=size, extra=("-qp", "10"))
        run_ffmpeg("-i", base, *options, part)
        result.append(part)
    return result


def mux_screen(
    folder: Path,
    path: Path,
    begin: float = BEGIN,
    audio: Path | None = None,
    slice_ms: int = 1000,
    stop: float | None = None,
) -> MuxedFile:
    if audio is None:
        audio = folder / "call.mp3"
        make_audio(audio, T0, SECONDS)
    engine = MediaEngine(tested_tools(), Runner(), tolerance=2.0, slice_ms=slice_ms, audio_codec="copy")
    end = None if stop is None else T0 + timedelta(seconds=stop)
    return engine.mux(
        MediaInput(audio, audio.name, T0), [MediaInput(path, path.name, T0 + timedelta(seconds=begin), end)], folder
    )


def check_muxed(result: MuxedFile) -> None:
    assert av_sync.file_problems(result.path, T0, SECONDS, [av_sync.ExpectedScreen(BEGIN, BEGIN + 2 * PART, 1)]) == []


@pytest.mark.long
def test_vp9_screen_is_cut_where_its_size_changes(tmp_path: Path) -> None:
    parts, path = make_parts(tmp_path, "webm", *VP9), tmp_path / "screen.webm"
    (tmp_path / "list").write_text("".join(f"file {part}\n" for part in parts))
    run_ffmpeg("-f", "concat", "-safe", "0", "-i", tmp_path / "list", "-c", "copy", path)
    check_muxed(mux_screen(tmp_path, path))


def join_streams(parts: Sequence[Path], path: Path) -> Path:
    """Join several raw H.264 streams into one."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_a_screen_whose_parameter_sets_change_is_not_copied(tmp_path: Path) -> None:
    raw = join_streams(make_parts(tmp_path, "h264", *PLAIN, "-g", "10"), tmp_path / "raw.h264")
    run_ffmpeg("-framerate", "10", "-i", raw, "-c", "copy", tmp_path / "screen.mp4")
    result = mux_screen(tmp_path, tmp_path / "screen.mp4")
    assert result.reasons == ("h264 yuv420p cannot be copied",)
    check_muxed(result)


@pytest.fixture
def screen(tmp_path: Path) -> Path:
    """Return a copyable screen of four seconds with a keyframe every second, which starts with the call."""
    path = tmp_path / "screen.mp4"
    make_screen(path, T0, 4.0, size=SIZES[0], extra=("-g", "10"))
    return path


@pytest.mark.parametrize(("shown", "skipped"), [(1500, 0.0), (3000, 1.0), (2650, 1.35)])
def test_edit_list_that_omits_frames_is_no_truncation(tmp_path: Path, screen: Path, shown: int, skipped: float) -> None:
    data = bytearray(screen.read_bytes())
    at, times = data.index(b"elst") + 12, data.index(b"mdhd") + 16
    timescale = int.from_bytes(data[times : times + 4], "big")
    data[at : at + 8] = struct.pack(">II", shown, round(skipped * timescale))
    screen.write_bytes(data)
    result = mux_screen(tmp_path, screen, skipped)
    assert (
        av_sync.file_problems(result.path, T0, SECONDS, [av_sync.ExpectedScreen(skipped, skipped + shown / 1000, 1)]) == []
    )


@pytest.mark.long
def test_screen_with_non_square_pixels_keeps_its_aspect_ratio(tmp_path: Path, screen: Path) -> None:
    for name, options in {
        "sets": (*PLAIN, "-vf", "scale=160:180,setsar=2"),
        "container": (*PLAIN, "-vf", "scale=160:180,setsar=2", "-bsf:v", "h264_metadata=sample_aspect_ratio=1"),
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        run_ffmpeg("-i", screen, *options, folder / "oblong.mp4")
        found = require_video(probe_file(mux_screen(folder, folder / "oblong.mp4", 0).path, "ffprobe", Runner()))
        assert (found.entry["width"], found.entry["height"], found.pixel_aspect) == ("320", "180", 1), name


def test_video_start_offset_is_kept(tmp_path: Path, screen: Path) -> None:
    late = tmp_path / "late.mp4"
    # The frames of the first second are omitted.
    run_ffmpeg("-i", screen, "-f", "lavfi", "-i", "sine=d=4", "-vf", "trim=start=1", *PLAIN, late)
    result = mux_screen(tmp_path, late, 0)
    assert av_sync.file_problems(result.path, T0, SECONDS, [av_sync.ExpectedScreen(1, 4, 1)]) == []


@pytest.mark.parametrize("begin", [0, 1], ids=["a pause of the recorder", "cut from a longer recording"])
@pytest.mark.parametrize(
    "codec",
    [
        PLAIN,
        pytest.param(("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"), marks=pytest.mark.long),
    ],
)
def test_empty_edit_counts_where_the_metadata_allow_it(
    tmp_path: Path, screen: Path, codec: Sequence[str], begin: int
) -> None:
    path = tmp_path / "empty.mp4"
    # The frames of the first second are omitted; the file states that it is empty then.
    run_ffmpeg("-i", screen, "-vf", "trim=start=1", *codec, path)
    assert "start_time=1.0" in media_kinds.describe_file(path)
    result = mux_screen(tmp_path, path, begin, stop=4)
    assert av_sync.file_problems(result.path, T0, SECONDS, [av_sync.ExpectedScreen(1, 4, 1)]) == []


def test_audio_start_offset_is_kept(tmp_path: Path, screen: Path) -> None:
    sound, late = tmp_path / "sound.wav", tmp_path / "late.mp4"
    make_audio(sound, T0, SECONDS, codec=("-c:a", "pcm_s16le"))
    run_ffmpeg("-i", screen, "-itsoffset", "1", "-i", sound, "-c:v", "copy", "-c:a", "aac", late)
    result = mux_screen(tmp_path, screen, 0, audio=late)
    assert result.reasons == ("the audio has gaps",)
    assert [round(pip.onset, 1) for pip in read_pips(result.path)] == [1.0, 2.0]


def test_padding_slice_is_as_long_as_its_recording_needs(tmp_path: Path, screen: Path) -> None:
    mux_screen(tmp_path, screen, 1, slice_ms=3_600_000)
    padding = require_video(probe_file(tmp_path / "padding.mp4", "ffprobe", Runner()))
    assert padding.length_us == MIN_SLICE_US
