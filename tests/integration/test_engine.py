"""The media engine with real ffmpeg: video and audio are in sync in every layout, and broken inputs are reported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from lab.media import make_audio, make_screen
from muxer.errors import MediaError, MetadataError
from muxer.media.analyze.arrival import MediaInput
from muxer.media.analyze.probe import probe_file
from muxer.media.engine import MediaEngine, MuxedFile
from muxer.media.media_info import require_video
from muxer.media.mp4.samples import SampleTable
from muxer.media.sample_spans import SampleSpan, build_sample_table
from muxer.system.process import Runner
from tests.support import av_sync
from tests.support.media import MediaCache
from tests.support.tiers import spread_variants
from tests.support.tools import tested_tools

T0 = datetime(2026, 3, 1, 9, 0, 0, tzinfo=UTC)
CALL_SECONDS = 20.0
WITH_B_FRAMES = ("-bf", "3", "-g", "40")
WITHOUT_B_FRAMES = ("-bf", "0", "-g", "40")
SPARSE_KEYS = ("-bf", "0", "-g", "1000")

# offset of each screen file from the audio's start, and its length
LAYOUTS = {
    "whole": [(0, 20)],
    "begins before, ends after": [(-3, 27)],
    "begins late, ends early": [(4, 10)],
    "gaps everywhere": [(2, 4), (8, 5), (16, 3)],
    "rounding overlap": [(0, 8.9), (8, 12)],
    "truncated overlap": [(0, 14), (9, 11)],
    "nested": [(0, 20), (5, 3)],
    "begins hours of frames before": [(-30, 45)],
    "back to back": [(0, 10), (10, 10)],
}
ENCODINGS = {"b-frames": WITH_B_FRAMES, "no b-frames": WITHOUT_B_FRAMES, "sparse key frames": SPARSE_KEYS}
HARD_ENCODINGS = ("b-frames", "sparse key frames")


def create_engine(**options: object) -> MediaEngine:
    settings = {"tolerance": 2.0, "slice_ms": 5000, "audio_codec": "copy", **options}
    return MediaEngine(tested_tools(), Runner(), **settings)


@pytest.fixture(autouse=True)
def _media_are_made_once(shelf: MediaCache, monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (make_audio, make_screen):
        monkeypatch.setattr(sys.modules[__name__], make.__name__, shelf.cached_maker(make))


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    path = tmp_path / "audio.mp3"
    make_audio(path, T0, CALL_SECONDS)
    return path


def create_screen(
    folder: Path, number: int, offset: float, seconds: float, extra: Sequence[str] = WITHOUT_B_FRAMES, **more: object
) -> MediaInput:
    """Create a screen file. It is small unless a test sets ``size``."""
    path = folder / f"screen-{number}.mp4"
    start = T0 + timedelta(seconds=offset)
    make_screen(path, start, seconds, extra=extra, **{"size": (320, 180), **more})
    return MediaInput(path, path.name, start)


def expected_screens(layout: Sequence[tuple[float, float]], tolerance: float = 2.0) -> list[av_sync.ExpectedScreen]:
    """Return the expected screens of a layout: later files cover earlier ones, which are shown again where the later
    ones end (section 3 of the behaviour)."""
    placed: list[tuple[float, float]] = []
    for offset, seconds in sorted(layout):
        ends = [end for begin, end in placed if begin <= offset < end and end - offset <= tolerance]
        begin = max([float(offset), *ends])
        placed.append((begin, begin + seconds))
    borders = sorted({0.0, CALL_SECONDS, *(min(max(at, 0.0), CALL_SECONDS) for one in placed for at in one)})
    covered = (pair for pair in pairwise(borders) if any(begin <= pair[0] < end for begin, end in placed))
    return [av_sync.ExpectedScreen(begin, end, 1) for begin, end in covered]


def mux_sources(folder: Path, audio: Path, screens: Sequence[MediaInput], **options: object) -> MuxedFile:
    return create_engine(**options).mux(MediaInput(audio, audio.name, T0), screens, folder)


@pytest.mark.parametrize("encoding", HARD_ENCODINGS)
@pytest.mark.parametrize("layout", spread_variants(LAYOUTS, 6))
def test_video_and_audio_are_in_sync_in_every_layout(tmp_path: Path, audio: Path, layout: str, encoding: str) -> None:
    parts = LAYOUTS[layout]
    screens = [create_screen(tmp_path, n, offset, seconds, ENCODINGS[encoding]) for n, (offset, seconds) in enumerate(parts)]
    result = mux_sources(tmp_path, audio, screens)
    shift = 1.0 if layout == "rounding overlap" else 0.1
    expected = expected_screens(parts)
    if layout == "rounding overlap":
        assert av_sync.file_problems(result.path, T0, CALL_SECONDS, expected, frame=shift) == []
    else:
        assert av_sync.file_problems(result.path, T0, CALL_SECONDS, expected) == []
    assert result.padding == round(1e6 * (CALL_SECONDS - sum(one.end - one.begin for one in expected)))


def test_equal_complete_clips_are_copied_frame_by_frame(tmp_path: Path, audio: Path) -> None:
    for name, extra in ENCODINGS.items():
        folder = tmp_path / name
        folder.mkdir()
        result = mux_sources(folder, audio, [create_screen(folder, 0, 0, CALL_SECONDS, extra)])
        assert result.reasons == ()
        assert slice_packets(result.path) == slice_packets(folder / "screen-0.mp4")


def slice_packets(path: Path) -> list[str]:
    """Return the sizes and times of the video packets that are slices, without parameter sets."""
    command = [
        "ffprobe",
        "-v",
        "error",
        "-select_streams",
        "v:0",
        "-show_entries",
        "packet=pts_time,flags",
        "-of",
        "csv",
        str(path),
    ]
    return sorted(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_only_necessary_parts_are_re_encoded(tmp_path: Path, audio: Path) -> None:
    screens = [create_screen(tmp_path, 0, -1, 30, WITHOUT_B_FRAMES)]
    result = mux_sources(tmp_path, audio, screens)
    assert result.reasons == ("starts between keyframes",)
    assert not list(tmp_path.glob("padding*"))
    assert probe_file(tmp_path / "encoded-0.mp4", "ffprobe", Runner()).video.length_us < 4_000_000


@pytest.mark.parametrize(
    "kinds",
    spread_variants(
        [
            [{"size": (640, 360)}, {"size": (800, 600)}],
            [{"size": (640, 360)}, {"extra": ("-vf", "scale=641:361", "-pix_fmt", "yuv444p")}],
            [{"extra": WITHOUT_B_FRAMES}, {"extra": ("-c:v", "mpeg4", "-q:v", "2")}],
            [{"extra": WITHOUT_B_FRAMES}, {"extra": ("-video_track_timescale", "1000")}],
            [{"extra": WITHOUT_B_FRAMES}, {"fps": 5}],
            [{"extra": ("-profile:v", "baseline")}, {"extra": ("-profile:v", "high")}],
        ],
        3,
    ),
    ids=["size", "odd size and yuv444", "codec", "time base", "frame rate", "profile"],
)
def test_unequal_clips_are_placed_on_one_canvas(tmp_path: Path, audio: Path, kinds: list[dict[str, object]]) -> None:
    layout = [(0, 9), (11, 9)]
    screens = [create_screen(tmp_path, n, *layout[n], **{"extra": WITHOUT_B_FRAMES, **kind}) for n, kind in enumerate(kinds)]
    result = mux_sources(tmp_path, audio, screens)
    frame = 0.2 if any(kind.get("fps") == 5 for kind in kinds) else 0.1
    assert av_sync.file_problems(result.path, T0, CALL_SECONDS, expected_screens(layout), frame=frame) == []
    video = require_video(probe_file(result.path, "ffprobe", Runner()))
    assert video.codec_name == "h264" and video.entry["pix_fmt"] == "yuv420p"
    sizes = [require_video(probe_file(screen.path, "ffprobe", Runner())).display_size for screen in screens]
    assert video.display_size == tuple((max(size[i] for size in sizes) + 1) // 2 * 2 for i in (0, 1))


@pytest.mark.long
def test_slice_length_does_not_change_the_frames(tmp_path: Path, audio: Path) -> None:
    for slice_ms in (1, 333, 5000, 60_000):
        folder = tmp_path / str(slice_ms)
        folder.mkdir()
        result = mux_sources(folder, audio, [create_screen(folder, 0, 7, 6)], slice_ms=slice_ms)
        assert av_sync.file_problems(result.path, T0, CALL_SECONDS, [av_sync.ExpectedScreen(7, 13, 1)]) == []


def test_still_screen_with_few_frames_keeps_its_duration(tmp_path: Path, audio: Path) -> None:
    full = create_screen(tmp_path, 0, 0, 30)
    still = tmp_path / "still.mp4"
    keep = "select='eq(n,0)+eq(n,70)+eq(n,299)'"
    command = ["ffmpeg", "-v", "error", "-i", full.path, "-vf", keep, "-fps_mode", "passthrough", "-bf", "0", still]
    subprocess.run(command, check=True)
    result = mux_sources(tmp_path, audio, [MediaInput(still, "still.mp4", T0)])
    video = require_video(probe_file(result.path, "ffprobe", Runner()))
    assert abs(video.length_us - CALL_SECONDS * 1e6) <= 110_000
    assert [round(video.ticks_to_us(pts) / 1e6, 1) for pts in video.packets.pts][:2] == [0.0, 7.0]


@pytest.mark.parametrize(
    ("suffix", "arguments", "codec"),
    spread_variants(
        [
            ("mp3", ("-ar", "44100", "-ac", "1", "-c:a", "libmp3lame"), "mp3"),
            ("wav", ("-c:a", "pcm_s16le"), "aac"),
            ("wav", ("-c:a", "pcm_mulaw"), "aac"),
            ("ogg", ("-ar", "48000", "-c:a", "libopus"), "opus"),
        ],
        2,
    ),
)
def test_the_audio_keeps_its_channels_and_plays(
    tmp_path: Path, audio: Path, suffix: str, arguments: tuple[str, ...], codec: str
) -> None:
    other = tmp_path / f"other.{suffix}"
    subprocess.run(["ffmpeg", "-v", "error", "-i", audio, *arguments, other], check=True)
    result = mux_sources(tmp_path, other, [create_screen(tmp_path, 0, 0, CALL_SECONDS)])
    before, after = probe_file(other, "ffprobe", Runner()).audio, probe_file(result.path, "ffprobe", Runner()).audio
    assert before and after and after.codec_name == codec
    assert after.entry["channels"] == before.entry["channels"]
    assert av_sync.file_problems(result.path, T0, CALL_SECONDS, [av_sync.ExpectedScreen(0, CALL_SECONDS, 1)]) == []


@pytest.mark.long
def test_audio_codec_aac_re_encodes_the_audio(tmp_path: Path, audio: Path) -> None:
    result = mux_sources(tmp_path, audio, [create_screen(tmp_path, 0, 0, CALL_SECONDS)], audio_codec="aac")
    sound = probe_file(result.path, "ffprobe", Runner()).audio
    assert sound and sound.codec_name == "aac" and sound.entry["channels"] == "2"
    assert av_sync.file_problems(result.path, T0, CALL_SECONDS, [av_sync.ExpectedScreen(0, CALL_SECONDS, 1)]) == []


def test_result_starts_with_index_and_has_creation_time(tmp_path: Path, audio: Path) -> None:
    result = mux_sources(tmp_path, audio, [create_screen(tmp_path, 0, 0, CALL_SECONDS)])
    content = result.path.read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")
    command = ["ffprobe", "-v", "error", "-show_entries", "format_tags=creation_time", "-of", "csv=p=0", str(result.path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("2026-03-01T09:00:00")


def test_only_video_of_screen_with_audio_is_used(tmp_path: Path, audio: Path) -> None:
    silent = create_screen(tmp_path, 0, 2, 10)
    loud = tmp_path / "loud.mp4"
    command = ["ffmpeg", "-v", "error", "-i", silent.path, "-f", "lavfi", "-i", "sine", "-shortest", "-c:v", "copy", loud]
    subprocess.run(command, check=True)
    result = mux_sources(tmp_path, audio, [MediaInput(loud, "loud.mp4", silent.start)])
    assert av_sync.file_problems(result.path, T0, CALL_SECONDS, [av_sync.ExpectedScreen(2, 12, 1)]) == []


def create_broken(folder: Path, kind: str) -> Path:
    whole, path = folder / "whole.mp4", folder / "broken.mp4"
    make_screen(whole, T0, 20)
    content = whole.read_bytes()
    if kind == "truncated with index":
        front = folder / "front.mp4"
        subprocess.run(["ffmpeg", "-v", "error", "-i", whole, "-c", "copy", "-movflags", "faststart", front], check=True)
        content = front.read_bytes()
        path.write_bytes(content[: len(content) * 2 // 3])
    elif kind == "truncated":
        path.write_bytes(content[: len(content) * 2 // 3])
    elif kind == "audio only":
        subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine", "-t", "5", path], check=True)
    else:
        path.write_bytes({"empty": b"", "html": b"<html>404</html>" * 100, "noise": bytes(range(256)) * 500}[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "is empty"),
        ("html", "not a readable media file"),
        ("noise", "not a readable media file|no video"),
        ("truncated", "not a readable media file"),
        ("truncated with index", "truncated"),
        ("audio only", "no video stream"),
    ],
)
def test_each_broken_screen_has_its_own_clear_error(tmp_path: Path, audio: Path, kind: str, message: str) -> None:
    with pytest.raises(MediaError, match=rf"agent's file.*({message})"):
        mux_sources(tmp_path, audio, [MediaInput(create_broken(tmp_path, kind), "agent's file", T0)])


@pytest.mark.parametrize("kind", ["empty", "html", "noise"])
def test_an_audio_file_without_audio_is_reported(tmp_path: Path, kind: str) -> None:
    with pytest.raises(MediaError, match=r"broken\.mp4"):
        mux_sources(tmp_path, create_broken(tmp_path, kind), [create_screen(tmp_path, 0, 0, 5)])


def test_a_screen_in_place_of_the_audio_is_reported(tmp_path: Path) -> None:
    only = create_screen(tmp_path, 0, 0, 5)
    with pytest.raises(MediaError, match="no audio stream"):
        mux_sources(tmp_path, only.path, [only])


def test_screens_that_never_overlap_are_reported(tmp_path: Path, audio: Path) -> None:
    with pytest.raises(MetadataError, match="overlaps"):
        mux_sources(tmp_path, audio, [create_screen(tmp_path, 0, 100, 5), create_screen(tmp_path, 1, -50, 5)])


def test_a_wrong_copy_is_replaced_by_re_encoding(
    tmp_path: Path, audio: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def drop_last_frames(
        runs: Sequence[SampleSpan], length: int
    ) -> SampleTable:  # a copy that silently loses its last frames
        copied = [run for run in runs if run.source.path.name.startswith("screen")]
        kept = [replace(run, last=run.last - 5) if copied and run is copied[-1] else run for run in runs]
        return build_sample_table(kept, length)

    monkeypatch.setattr("muxer.media.engine.build_sample_table", drop_last_frames)
    layout = [(0, 9), (11, 9)]
    result = mux_sources(tmp_path, audio, [create_screen(tmp_path, n, *one) for n, one in enumerate(layout)])
    assert "muxing again" in caplog.text
    assert result.reasons == ("everything is re-encoded",)
    assert av_sync.file_problems(result.path, T0, CALL_SECONDS, expected_screens(layout)) == []


def test_a_file_shorter_than_its_metadata_is_reported(tmp_path: Path, audio: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = create_screen(tmp_path, 0, 0, 10)
    promised = T0 + timedelta(seconds=60)
    create_engine().mux(
        MediaInput(audio, "call.mp3", T0, promised), [MediaInput(one.path, "agent.mp4", T0, promised)], tmp_path
    )
    assert "call.mp3 lasts 20.0 s, but 60.0 s by its metadata" in caplog.text
    assert "agent.mp4 lasts 10.0 s, but 60.0 s by its metadata" in caplog.text


@pytest.mark.parametrize("length", spread_variants([5.002, 5.001125, 5.0495], 3))
def test_end_close_to_a_frame_is_counted_consistently(tmp_path: Path, length: float) -> None:
    sound = tmp_path / "sound.wav"
    make_audio(sound, T0, 6, codec=["-c:a", "pcm_s16le", "-t", str(length)])
    for offset in (0.0, 0.101, 1.0):
        folder = tmp_path / str(offset)
        folder.mkdir()
        result = create_engine().mux(MediaInput(sound, "sound.wav", T0), [create_screen(folder, 0, offset, 3)], folder)
        assert result.reasons == ("pcm_s16le audio does not play in browsers",)


def test_irregular_joins_are_no_reason_to_re_encode(tmp_path: Path, audio: Path) -> None:
    for slice_ms in (37, 333):
        folder = tmp_path / str(slice_ms)
        folder.mkdir()
        result = mux_sources(folder, audio, [create_screen(folder, 0, 7.777, 4)], slice_ms=slice_ms)
        assert result.reasons == ()


def test_padding_behind_a_screen_of_other_parameter_sets_is_no_reason_to_re_encode(tmp_path: Path, audio: Path) -> None:
    # The padding has no B-frames, so frames have other fields there: read by the sets of the screen, they are invalid.
    result = mux_sources(tmp_path, audio, [create_screen(tmp_path, 0, 2, 12, WITH_B_FRAMES)])
    assert result.reasons == ()


def test_many_screens_at_fractions_of_a_second_are_copied(tmp_path: Path, audio: Path) -> None:
    screens = [create_screen(tmp_path, n, n * 1.013, 0.7) for n in range(18)]
    result = mux_sources(tmp_path, audio, screens)
    assert result.reasons == ()
    assert result.padding > 5_000_000


def test_loader_warnings_on_stderr_are_no_failure(tmp_path: Path, audio: Path) -> None:
    noisy = tmp_path / "ffmpeg"
    noise = "echo libcrypto.so.3: no version information available >&2"
    noisy.write_text(f'#!/bin/sh\n{noise}\nexec {tested_tools().ffmpeg} "$@"\n')
    noisy.chmod(0o755)
    one = MediaEngine(replace(tested_tools(), ffmpeg=str(noisy)), Runner(), tolerance=2.0, slice_ms=5000, audio_codec="copy")
    result = one.mux(MediaInput(audio, "audio", T0), [create_screen(tmp_path, 0, 2, 9)], tmp_path)
    assert result.reasons == ()
