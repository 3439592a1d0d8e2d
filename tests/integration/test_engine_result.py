"""The muxed file, the number of programs it needs, and the padding slices that are kept for other recordings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta, timezone
from pathlib import Path
from typing import IO, Any, TypeVar

import pytest

from lab.media import make_screen
from muxer.media.analyze.arrival import MediaInput
from muxer.media.engine import MediaEngine, MuxedFile
from muxer.media.padding_cache import MAX_SLICES, PaddingCache
from muxer.system.process import Runner
from tests.support import av_sync, media_kinds
from tests.support.media_kinds import CALL_SECONDS, SIZE, T0, run_ffmpeg, run_program
from tests.support.tiers import spread_variants
from tests.support.tools import tested_tools

T = TypeVar("T")


class CountingRunner(Runner):
    """A runner that records the programs that it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: list[list[str]] = []

    def run_streaming(
        self,
        command: Sequence[str | Path],
        consume: Callable[[IO[bytes]], T],
        **options: Any,
    ) -> T:
        self.commands.append([str(part) for part in command])
        return super().run_streaming(command, consume, **options)

    @property
    def command_kinds(self) -> list[str]:
        """The purpose of each program."""
        return [_command_kind(command) for command in self.commands]


def _command_kind(command: Sequence[str]) -> str:
    if command[0].endswith("ffprobe"):
        return "probe"
    if "framecrc" in command:
        return "check"
    if "0:a:0" in command:
        return "decode" if "s16le" in command else "sound"
    if "rawvideo" in command:
        return "look"
    return "padding" if "lavfi" in command else "encode" if "libx264" in command else "other"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("result")


@pytest.fixture(scope="module")
def audio(folder: Path) -> Path:
    media_kinds.make_audio(folder / "call.mp3", T0, CALL_SECONDS)
    return folder / "call.mp3"


@pytest.fixture(scope="module")
def screen(folder: Path) -> Path:
    """Return a copyable screen file of four seconds that starts a second after the audio."""
    make_screen(folder / "screen.mp4", T0 + timedelta(seconds=1), 4, size=SIZE)
    return folder / "screen.mp4"


def mux_files(
    folder: Path,
    audio: Path,
    screens: Sequence[tuple[Path, float]],
    *,
    runner: Runner | None = None,
    paddings: PaddingCache | None = None,
    audio_codec: str = "copy",
) -> MuxedFile:
    folder.mkdir(exist_ok=True)
    engine = MediaEngine(
        tested_tools(),
        runner or Runner(),
        tolerance=2.0,
        slice_ms=5000,
        audio_codec=audio_codec,
        paddings=paddings,
    )
    inputs = [MediaInput(path, path.name, T0 + timedelta(seconds=begin)) for path, begin in screens]
    return engine.mux(MediaInput(audio, audio.name, T0), inputs, folder)


def is_in_sync(result: MuxedFile, *seen: tuple[float, float]) -> bool:
    expected = [av_sync.ExpectedScreen(begin, end, 1) for begin, end in seen]
    assert av_sync.file_problems(result.path, T0, CALL_SECONDS, expected) == []
    return True


# The result


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("codec", ["copy", "aac"])
def test_the_result_has_one_video_and_one_audio_track_with_the_call_s_channels(
    tmp_path: Path, screen: Path, codec: str, channels: int
) -> None:
    audio = tmp_path / "call.mp3"
    media_kinds.make_audio(audio, T0, CALL_SECONDS, channels=channels)
    result = mux_files(tmp_path, audio, [(screen, 1)], audio_codec=codec)
    streams = av_sync.streams(result.path)
    assert {kind: stream.codec for kind, stream in streams.items()} == {
        "video": "h264",
        "audio": {"copy": "mp3", "aac": "aac"}[codec],
    }
    assert streams["audio"].channels == channels
    assert result.reasons == ()
    assert is_in_sync(result, (1, 5))


def test_index_is_in_front_and_creation_time_is_that_of_the_audio(tmp_path: Path, audio: Path, screen: Path) -> None:
    engine = MediaEngine(tested_tools(), Runner(), tolerance=2.0, slice_ms=5000, audio_codec="copy")
    start = T0.astimezone(timezone(timedelta(hours=-5, minutes=-30)))
    result = engine.mux(MediaInput(audio, "call", start), [MediaInput(screen, "screen", T0)], tmp_path)
    content = result.path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert [content.count(kind) for kind in (b"moov", b"mdat")] == [1, 1]
    tags = run_program("ffprobe", "-v", "error", "-show_entries", "format_tags=creation_time", "-of", "csv=p=0", result.path)
    assert tags.startswith("2026-03-01T09:00:00")


def test_the_copied_audio_is_that_of_the_call_sample_by_sample(tmp_path: Path, audio: Path, screen: Path) -> None:
    result = mux_files(tmp_path, audio, [(screen, 0)])

    def decode_samples(path: Path) -> bytes:
        run_ffmpeg("-i", path, "-map", "0:a", "-f", "s16le", tmp_path / "samples")
        return (tmp_path / "samples").read_bytes()

    before, after = decode_samples(audio), decode_samples(result.path)
    # ffmpeg also plays the rest of the last packet, which the edit list cuts off.
    assert after.startswith(before)
    assert len(after) - len(before) < 4 * 576


# Processes


@pytest.mark.parametrize(("ending", "programs"), [("mp3", ["check"]), ("flac", ["probe", "decode", "sound", "check"])])
def test_a_copyable_recording_takes_one_program_for_the_check_and_three_for_audio_other_than_mp3(
    tmp_path: Path, audio: Path, screen: Path, ending: str, programs: list[str]
) -> None:
    long, call, runner = tmp_path / "long.mp4", tmp_path / f"call.{ending}", CountingRunner()
    make_screen(long, T0, CALL_SECONDS, size=SIZE)
    run_ffmpeg("-i", audio, call)
    result = mux_files(tmp_path / "job", call, [(long, 0)], runner=runner)
    assert runner.command_kinds == programs
    assert is_in_sync(result, (0, CALL_SECONDS))


def test_a_kept_padding_slice_takes_no_program(tmp_path: Path, audio: Path, screen: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    first, second = CountingRunner(), CountingRunner()
    mux_files(tmp_path / "one", audio, [(screen, 1)], runner=first, paddings=PaddingCache(kept))
    result = mux_files(tmp_path / "two", audio, [(screen, 1)], runner=second, paddings=PaddingCache(kept))
    assert first.command_kinds == ["padding", "check"]
    assert second.command_kinds == ["check"]
    assert is_in_sync(result, (1, 5))


def test_only_a_head_between_keyframes_is_encoded(tmp_path: Path, audio: Path, screen: Path) -> None:
    runner = CountingRunner()
    mux_files(tmp_path / "job", audio, [(screen, -1)], runner=runner)
    assert sorted(runner.command_kinds) == ["check", "encode", "look", "padding"]


def test_a_source_that_is_not_copyable_is_probed_once(tmp_path: Path, audio: Path, screen: Path) -> None:
    other, runner = tmp_path / "other.mkv", CountingRunner()
    run_ffmpeg("-i", screen, "-c", "copy", other)
    mux_files(tmp_path / "job", audio, [(other, 0)], runner=runner)
    assert runner.command_kinds.count("probe") == 1


# Padding slices


def test_recordings_of_equal_parameters_share_a_slice_and_others_do_not(tmp_path: Path, audio: Path, screen: Path) -> None:
    kept, large = tmp_path / "kept", tmp_path / "large.mp4"
    kept.mkdir()
    make_screen(large, T0, 4, size=(640, 360))
    for number, path in enumerate((screen, screen, large)):
        mux_files(tmp_path / str(number), audio, [(path, 1)], paddings=PaddingCache(kept))
    assert len(list(kept.iterdir())) == 2


def test_only_the_most_recently_used_slices_are_kept(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    paddings, result = PaddingCache(kept), []
    for number in range(MAX_SLICES + 10):
        paddings.get_or_create("first", tmp_path / "first.mp4", lambda path: path.write_text("first"))
        paddings.get_or_create(str(number), tmp_path / "slice.mp4", lambda path: result.append(path.write_text("other")))
    assert len(list(kept.iterdir())) == MAX_SLICES
    assert len(result) == MAX_SLICES + 10
    paddings.get_or_create("first", tmp_path / "again.mp4", lambda path: pytest.fail("it is kept"))
    assert (tmp_path / "again.mp4").read_text() == "first"


def _overwrite_bytes(content: bytes, begin: int, end: int) -> bytes:
    return content[:begin] + b"\x11" * (end - begin) + content[end:]


BREAKS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "noise": lambda content: bytes(range(256)) * 20,
    "frames overwritten": lambda content: _overwrite_bytes(content, 48, content.index(b"moov") - 4),
}


@pytest.mark.parametrize("how", spread_variants(BREAKS, 2))
def test_broken_kept_slice_is_re_encoded(tmp_path: Path, audio: Path, screen: Path, how: str) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    mux_files(tmp_path / "one", audio, [(screen, 1)], paddings=PaddingCache(kept))
    [slice_] = kept.iterdir()
    whole = slice_.read_bytes()
    slice_.write_bytes(BREAKS[how](whole))
    result = mux_files(tmp_path / "two", audio, [(screen, 1)], paddings=PaddingCache(kept))
    assert is_in_sync(result, (1, 5))
    assert result.reasons == (("everything is re-encoded",) if how == "frames overwritten" else ())
    mux_files(tmp_path / "three", audio, [(screen, 1)], paddings=PaddingCache(kept))
    assert slice_.read_bytes() == whole


def test_incomplete_files_of_a_hard_kill_are_removed(tmp_path: Path) -> None:
    (tmp_path / "x.job.new").write_bytes(b"half")
    (tmp_path / "x.mp4").write_bytes(b"whole")
    PaddingCache(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]


def test_two_threads_share_slices(tmp_path: Path, audio: Path, screen: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    paddings, barrier = PaddingCache(kept), threading.Barrier(2)

    def run_job(number: int) -> MuxedFile:
        barrier.wait(60)
        return mux_files(tmp_path / str(number), audio, [(screen, 1)], paddings=paddings)

    with ThreadPoolExecutor(2) as pool:
        result = list(pool.map(run_job, range(2)))
    assert all(is_in_sync(one, (1, 5)) for one in result)
    assert [path.suffix for path in kept.iterdir()] == [".mp4"]
