"""Broken inputs: each has its own clear error that names the file."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from lab.media import make_screen
from lab.readers import read_pips
from muxer.errors import LocalResourceError, MediaError
from muxer.media.analyze.arrival import MediaInput
from muxer.media.engine import MediaEngine, MuxedFile
from muxer.media.mp4.tracks import read_tracks
from muxer.system.process import Runner
from tests.support import av_sync, media_kinds
from tests.support.fake_program import write_wrapper
from tests.support.media_kinds import SIZE, T0, run_ffmpeg
from tests.support.tiers import spread_variants
from tests.support.tools import tested_tools

SECONDS = 3.0
CUT_COUNT = 20
SCREEN_NAME = "the agent's file"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broken")


@pytest.fixture(scope="module")
def audio(folder: Path) -> Path:
    media_kinds.make_audio(folder / "call.mp3", T0, SECONDS)
    return folder / "call.mp3"


@pytest.fixture(scope="module")
def screen(folder: Path) -> Path:
    make_screen(folder / "screen.mp4", T0, SECONDS, size=SIZE, extra=("-g", "10"))
    return folder / "screen.mp4"


@pytest.fixture(scope="module")
def front(folder: Path, screen: Path) -> Path:
    run_ffmpeg("-i", screen, "-c", "copy", "-movflags", "+faststart", folder / "front.mp4")
    return folder / "front.mp4"


def mux_files(
    folder: Path, audio: Path, screen: Path, begin: float = 0, name: str = SCREEN_NAME, codec: str = "copy"
) -> MuxedFile:
    engine = MediaEngine(tested_tools(), Runner(), tolerance=2.0, slice_ms=5000, audio_codec=codec)
    return engine.mux(MediaInput(audio, "the call", T0), [MediaInput(screen, name, T0 + timedelta(seconds=begin))], folder)


def mux_error(folder: Path, audio: Path, screen: Path) -> str:
    with pytest.raises(MediaError) as caught:
        mux_files(folder, audio, screen)
    message = str(caught.value)
    assert message.startswith(f"{SCREEN_NAME}: ")
    return message.removeprefix(f"{SCREEN_NAME}: ")


@pytest.mark.parametrize("cut", range(CUT_COUNT))
def test_truncated_screen_with_index_at_end_is_reported(tmp_path: Path, audio: Path, screen: Path, cut: int) -> None:
    # After its tables an index contains only the name of the writing program: a file without it is complete.
    message = mux_error(tmp_path, audio, shorten_file(screen, tmp_path, cut, screen.read_bytes().index(b"udta") - 5))
    expected = (
        ("the file is empty",) if cut == 0 else ("the file is not a readable media file", "the file has no video stream")
    )
    assert message.startswith(expected)


@pytest.mark.parametrize("cut", range(CUT_COUNT))
def test_truncated_screen_with_index_in_front_is_reported(tmp_path: Path, audio: Path, front: Path, cut: int) -> None:
    path = shorten_file(front, tmp_path, cut, front.stat().st_size - 1)
    has_index = path.stat().st_size >= front.read_bytes().index(b"mdat")
    message = mux_error(tmp_path, audio, path)
    expected = "the file is truncated" if has_index else "the file is empty" if cut == 0 else "the file is no readable"
    assert message.startswith(expected)


def shorten_file(whole: Path, folder: Path, cut: int, most: int) -> Path:
    """Truncate a file at one of twenty positions, the last of them after byte ``most``."""
    path = folder / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: most * cut // (CUT_COUNT - 1)])
    return path


def no_frames(path: Path, screen: Path) -> None:
    """Write a file with a described track without frames."""
    run_ffmpeg("-i", screen, "-c", "copy", "-movflags", "empty_moov+frag_keyframe", path)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"moof") - 4])


def no_samples(path: Path, screen: Path) -> None:
    """Write a copyable file that ends before its first frame."""
    run_ffmpeg("-ss", "100", "-i", screen, "-c", "copy", path)


BREAKS: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "zero bytes": (lambda path, screen: path.write_bytes(b""), "the file is empty"),
    "HTML": (lambda path, screen: path.write_text("<html><body>404</body></html>" * 99), "not a readable media file"),
    "the wrong key": (
        lambda path, screen: path.write_bytes(random.Random(7).randbytes(screen.stat().st_size)),
        "not a readable media file",
    ),
    "zeros": (lambda path, screen: path.write_bytes(bytes(50_000)), "not a readable media file"),
    "no frames": (no_frames, "no video stream"),
    "no samples": (no_samples, "no video stream"),
    "audio only": (lambda path, screen: run_ffmpeg("-f", "lavfi", "-i", "sine=d=2", path), "no video stream"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_file_that_is_not_a_screen_is_reported(tmp_path: Path, audio: Path, screen: Path, name: str) -> None:
    make, message = BREAKS[name]
    path = tmp_path / "broken.mp4"
    make(path, screen)
    assert message in mux_error(tmp_path, audio, path)


AUDIO_BREAKS = {
    "zero bytes": "the file is empty",
    "HTML": "not a readable media file",
    "the wrong key": "not a readable media file",
}


@pytest.mark.parametrize("name", AUDIO_BREAKS)
def test_a_file_that_is_not_a_call_is_reported(tmp_path: Path, screen: Path, name: str) -> None:
    path = tmp_path / "broken.mp3"
    BREAKS[name][0](path, screen)
    with pytest.raises(MediaError, match=f"the call: .*{AUDIO_BREAKS[name]}"):
        mux_files(tmp_path, path, screen)


def test_video_in_place_of_the_call_is_reported(tmp_path: Path, screen: Path) -> None:
    with pytest.raises(MediaError, match="the call: the file has no audio stream"):
        mux_files(tmp_path, screen, screen)


def test_the_available_part_of_a_truncated_call_is_used(tmp_path: Path, audio: Path, screen: Path) -> None:
    path = tmp_path / "cut.mp3"
    path.write_bytes(audio.read_bytes()[: audio.stat().st_size * 2 // 3])
    result = mux_files(tmp_path, path, screen)
    assert abs(result.length - 2_000_000) < 200_000
    assert (
        av_sync.file_problems(result.path, T0, result.length / 1e6 // 1, [av_sync.ExpectedScreen(0, 9, 1)], frame=1.0) == []
    )


@pytest.mark.parametrize("codec", ["copy", "aac"])
@pytest.mark.parametrize("filling", spread_variants([b"damaged", bytes(1)], 2))
def test_audio_after_damage_keeps_its_presentation_time(
    tmp_path: Path, screen: Path, caplog: pytest.LogCaptureFixture, filling: bytes, codec: str
) -> None:
    call, path = tmp_path / "call.mp3", tmp_path / "damaged.mp3"
    media_kinds.make_audio(call, T0, 6)
    content = bytearray(call.read_bytes())
    # From 1.3 s to 2.7 s: the pip of second 2 is lost.
    begin, end = (round(len(content) * part) for part in (1.3 / 6, 2.7 / 6))
    content[begin:end] = (filling * (end - begin))[: end - begin]
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        result = mux_files(tmp_path, path, screen, codec=codec)
    assert "the audio is damaged, places: 1, the first at 1.30 s; about 1.51 s of silence" in caplog.text
    assert result.reasons == ("the audio is damaged",)
    onsets = [pip.onset for pip in read_pips(result.path)]
    assert [round(onset) for onset in onsets] == [0, 1, 3, 4, 5]
    assert max(abs(onset - round(onset)) for onset in onsets) < 0.1
    assert abs(result.length - 6_000_000) < 80_000


@pytest.mark.parametrize("gone", ["the call", SCREEN_NAME])
def test_deleted_source_is_reported(tmp_path: Path, audio: Path, screen: Path, gone: str) -> None:
    nowhere = tmp_path / "nowhere"
    media = (nowhere, screen) if gone == "the call" else (audio, nowhere)
    with pytest.raises(LocalResourceError, match=f"{gone} was removed from the temporary folder"):
        mux_files(tmp_path, *media)


def test_a_call_without_readable_audio_is_reported(tmp_path: Path, audio: Path, screen: Path) -> None:
    path = tmp_path / "lost.mp3"
    path.write_bytes(audio.read_bytes()[:300] + bytes(audio.stat().st_size))
    with pytest.raises(MediaError, match="the call: "):
        mux_files(tmp_path, path, screen)


def damage_samples(screen: Path, path: Path, samples: range) -> None:
    """Overwrite the content of some samples."""
    content = bytearray(screen.read_bytes())
    [track] = read_tracks(screen)
    for number in samples:
        begin, size = track.offsets[number] + 5, track.sizes[number] - 5
        content[begin : begin + size] = random.Random(number).randbytes(size)
    path.write_bytes(content)


def test_frames_damaged_at_a_join_are_re_encoded_once_and_then_fail(
    tmp_path: Path, audio: Path, screen: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "damaged.mp4"
    damage_samples(screen, path, range(30))
    with caplog.at_level(logging.WARNING), pytest.raises(MediaError, match=rf"^{SCREEN_NAME}: "):
        mux_files(tmp_path, audio, path)
    assert caplog.text.count("muxing again with everything re-encoded") == 1


def test_a_decoder_that_reports_one_frame_without_end_is_stopped(
    tmp_path: Path, audio: Path, screen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ffmpeg does so from 7.1 on with this file."""
    monkeypatch.setattr("muxer.media.analyze.decode_scan.MAX_COMPLAINTS_WITHOUT_FRAME", 1000)
    report = "while :; do echo damaged >&2; done"
    endless = write_wrapper(tmp_path / "ffmpeg", tested_tools().ffmpeg, "*explode*framecrc*", report)
    path = tmp_path / "damaged.mp4"
    damage_samples(screen, path, range(30))
    tools = replace(tested_tools(), ffmpeg=str(endless))
    engine = MediaEngine(tools, Runner(), tolerance=2.0, slice_ms=5000, audio_codec="copy")
    with pytest.raises(MediaError, match=rf"^{SCREEN_NAME}: "):
        engine.mux(MediaInput(audio, "the call", T0), [MediaInput(path, SCREEN_NAME, T0)], tmp_path)


def test_damage_far_from_any_join_is_copied(tmp_path: Path, audio: Path, screen: Path) -> None:
    path = tmp_path / "damaged.mp4"
    damage_samples(screen, path, range(15, 17))
    assert mux_files(tmp_path, audio, path).reasons == ()


def test_a_long_file_has_more_time_to_be_decoded(
    tmp_path: Path, audio: Path, screen: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("muxer.media.limits.DECODE_SECONDS", 0.0)  # Only what the number of frames gives.
    monkeypatch.setattr("muxer.media.limits.MIN_DECODED_PER_SECOND", 0.1)
    path = tmp_path / "damaged.mp4"
    damage_samples(screen, path, range(1, 2))
    muxed = mux_files(tmp_path, audio, path, begin=0.25)
    assert muxed.reasons and "1 of 30 frames are damaged" in caplog.text
