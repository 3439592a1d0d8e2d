"""The verification of a muxed file detects errors: each test breaks one thing in a correct result."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.media import make_audio, make_screen
from muxer.errors import MediaError
from muxer.media import engine as engine_module
from muxer.media import verify
from muxer.media.analyze.arrival import MediaInput
from muxer.media.engine import MediaEngine, MuxedFile
from muxer.media.ffmpeg import MediaTools, parse_frame_times
from muxer.media.mp4.samples import SampleTable
from muxer.media.mp4.tracks import read_tracks
from muxer.media.sample_spans import SampleSpan, build_sample_table
from muxer.system.process import Runner
from tests.support.field_media import damaged_file, ffmpeg_steps
from tests.support.media_kinds import B_FRAMES, PLAIN, SIZE, T0
from tests.support.tiers import spread_variants
from tests.support.tools import tested_tools

SECONDS = 6.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("verification")


@pytest.fixture(scope="module")
def audio(folder: Path) -> Path:
    make_audio(folder / "call.mp3", T0, SECONDS)
    return folder / "call.mp3"


@pytest.fixture(scope="module")
def screen(folder: Path) -> Path:
    make_screen(folder / "base.mp4", T0, 5, size=SIZE, extra=("-qp", "10", "-threads", "1"))
    return ffmpeg_steps(("mp4", PLAIN))(folder, folder / "base.mp4")


def mux_files(folder: Path, audio: Path, *screens: tuple[Path, float]) -> MuxedFile:
    engine = MediaEngine(tested_tools(), Runner(), tolerance=0.0, slice_ms=700, audio_codec="copy")
    inputs = [MediaInput(path, path.name, T0 + timedelta(seconds=begin)) for path, begin in screens]
    return engine.mux(MediaInput(audio, audio.name, T0), inputs, folder)


@pytest.fixture
def muxed(folder: Path, audio: Path, screen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> verify.Expected:
    """Return a result with an encoded head, a copied middle and padding, as the engine passes it to the check."""
    seen: list[verify.Expected] = []
    real = verify.verify_result

    def check_and_record(one: verify.Expected, tools: MediaTools, runner: Runner) -> None:
        seen.append(one)
        real(one, tools, runner)

    monkeypatch.setattr(engine_module.verify, "verify_result", check_and_record)  # type: ignore[attr-defined]
    mux_files(tmp_path, audio, (screen, -1.55))
    [muxed] = seen
    assert [piece.reason is None for piece in muxed.plan.parts] == [False, True, True]
    return muxed


def check_error(muxed: verify.Expected) -> str:
    with pytest.raises(MediaError) as caught:
        verify.verify_result(muxed, tested_tools(), Runner())
    return str(caught.value)


def test_correct_result_passes(muxed: verify.Expected) -> None:
    verify.verify_result(muxed, tested_tools(), Runner())


@pytest.mark.parametrize("kind", [0, 1], ids=["video", "audio"])
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_one_changed_byte_of_a_sample_is_detected(muxed: verify.Expected, kind: int, place: float) -> None:
    track = read_tracks(muxed.path)[kind]
    number = int(place * len(track.sizes))
    content = bytearray(muxed.path.read_bytes())
    content[track.offsets[number] + track.sizes[number] - 1] ^= 1
    muxed.path.write_bytes(content)
    assert "samples are not those of the sources" in check_error(muxed)


def test_two_swapped_samples_are_detected(muxed: verify.Expected) -> None:
    track = read_tracks(muxed.path)[0]
    content = bytearray(muxed.path.read_bytes())
    ends = [offset + size for offset, size in zip(track.offsets, track.sizes, strict=True)]
    first = next(number for number in range(10, 40) if ends[number] == track.offsets[number + 1])
    begin, middle, end = track.offsets[first], ends[first], ends[first + 1]
    content[begin:end] = content[middle:end] + content[begin:middle]
    muxed.path.write_bytes(content)
    assert "samples are not those of the sources" in check_error(muxed)


def test_a_lost_keyframe_is_detected(muxed: verify.Expected) -> None:
    content = bytearray(muxed.path.read_bytes())
    last_entry = (at := content.index(b"stss")) + 12 + 4 * (int.from_bytes(content[at + 8 : at + 12], "big") - 1)
    content[last_entry + 3] += 1
    muxed.path.write_bytes(content)
    assert "keyframes are not those of the sources" in check_error(muxed)


def shift_copied(runs: Sequence[SampleSpan], length: int) -> SampleTable:
    """Return a copy whose frames are all shown one frame late."""
    moved = [replace(run, at=run.at + 100_000) if run.source.path.name.startswith("step") else run for run in runs]
    return build_sample_table(moved, length)


def drop_last(runs: Sequence[SampleSpan], length: int) -> SampleTable:
    """Return a copy without its last frame."""
    copied = [run for run in runs if run.source.path.name.startswith("step")]
    return build_sample_table([replace(run, last=run.last - 1) if run in copied[-1:] else run for run in runs], length)


def drop_second(runs: Sequence[SampleSpan], length: int) -> SampleTable:
    """Return an encoded piece without its second frame: the later frames are one frame early."""
    row = build_sample_table(runs, length)
    kept = [number for number in range(len(row.pts)) if number != 1]
    columns = {name: getattr(row, name) for name in ("pts", "dts", "file", "offsets", "sizes", "prefix")}
    chosen = {name: type(values)(values.typecode, (values[one] for one in kept)) for name, values in columns.items()}
    return replace(row, sync=bytearray(row.sync[one] for one in kept), **chosen)


@pytest.mark.parametrize("wrong", [shift_copied, drop_last, drop_second])
def test_frames_at_other_times_are_detected(
    tmp_path: Path,
    audio: Path,
    screen: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wrong: Callable[[Sequence[SampleSpan], int], SampleTable],
) -> None:
    monkeypatch.setattr(engine_module, "build_sample_table", wrong)
    with caplog.at_level(logging.WARNING), pytest.raises(MediaError) if wrong is drop_second else nullcontext():
        mux_files(tmp_path, audio, (screen, -1.55))
    assert "muxing again" in caplog.text


class AlteringRunner(Runner):
    """A runner that replaces a text in encoding commands."""

    def __init__(self, old: str, new: str) -> None:
        super().__init__()
        self._change = (old, new)

    def run_streaming(self, command: Sequence[str | Path], *arguments: object, **options: object) -> object:  # type: ignore[override]
        if "libx264" in command and "lavfi" not in command:
            command = [str(part).replace(*self._change) for part in command]
        return super().run_streaming(command, *arguments, **options)


ENCODED_WRONG = {
    # A wrong seek: the content is a frame late, with the planned number of frames at the planned times.
    "shifted by one frame": ("PTS-", "PTS-0.1/TB-"),
    "another frame first": ("trim=start=1.499000", "trim=start=1.599000"),
    "mirrored": ("setsar=1", "setsar=1,hflip"),
    "colours turned": ("setsar=1", "setsar=1,hue=h=120"),
    "too dark": ("setsar=1", "setsar=1,lutyuv=y=val*0.7"),
    "moved by some lines": ("setsar=1", "setsar=1,crop=320:172:0:8,pad=320:180"),
}


@pytest.mark.parametrize("name", spread_variants(ENCODED_WRONG, 2))
def test_a_piece_encoded_from_other_frames_is_detected(
    tmp_path: Path, audio: Path, screen: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    engine = MediaEngine(
        tested_tools(), AlteringRunner(*ENCODED_WRONG[name]), tolerance=0.0, slice_ms=700, audio_codec="copy"
    )
    with caplog.at_level(logging.WARNING), pytest.raises(MediaError):
        engine.mux(MediaInput(audio, "call", T0), [MediaInput(screen, "screen", T0 - timedelta(seconds=1.55))], tmp_path)
    assert "muxing again" in caplog.text


def test_padding_that_is_not_black_is_detected(
    tmp_path: Path, audio: Path, screen: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = Runner.run_streaming

    def run_with_gray(self: Runner, command: Sequence[str | Path], *arguments: object, **options: object) -> object:
        return real(self, [str(part).replace("c=black", "c=gray") for part in command], *arguments, **options)

    monkeypatch.setattr(Runner, "run_streaming", run_with_gray)
    with caplog.at_level(logging.WARNING), pytest.raises(MediaError, match="is not black"):
        mux_files(tmp_path, audio, (screen, 0.5))


def test_the_check_does_not_decode_what_precedes_a_join(muxed: verify.Expected) -> None:
    # Of the copied middle, twenty frames and more, three are decoded, and three of the padding; the head is encoded.
    row = verify.choose_excerpt_samples(muxed, read_tracks(muxed.path)[0])
    assert len(row.pts) == muxed.plan.parts[0].frames + 3 + 3


@pytest.mark.parametrize(("options", "packets"), [(PLAIN, 3), (B_FRAMES, 9)], ids=["plain", "B-frames"])
def test_the_end_is_not_read_from_its_keyframe_on(
    tmp_path: Path, audio: Path, screen: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], packets: int
) -> None:
    # One keyframe; B-frames follow the frame that is shown last, so that the packets are read from a little earlier on.
    screen = ffmpeg_steps(("mp4", (*options, "-g", "50", "-frames:v", "49")))(tmp_path, screen)
    printed: list[bytes] = []
    real = Runner.run

    def run_and_record(self: Runner, command: Sequence[str | Path], **options: Any) -> bytes:
        printed.append(real(self, command, **options))
        return printed[-1]

    monkeypatch.setattr(Runner, "run", run_and_record)
    assert mux_files(tmp_path, audio, (screen, 1.1)).reasons == ()
    read = [stream for stream, _ in parse_frame_times(printed[-1].splitlines())]
    assert 1 <= read.count(1) <= packets
    assert read.count(2) >= 1


def test_damage_at_a_join_is_replaced_by_the_frame_before(
    tmp_path: Path, audio: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = damaged_file(ffmpeg_steps(("mp4", B_FRAMES)), 22, skip=30)(tmp_path, folder / "base.mp4")
    with caplog.at_level(logging.WARNING):
        muxed = mux_files(tmp_path, audio, (path, -2.05))
    assert "muxing again" in caplog.text
    assert "frames are damaged, the first at 2." in caplog.text
    assert muxed.reasons == ("everything is re-encoded",)
