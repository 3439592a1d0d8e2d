"""Screen files whose pictures change within the file: an agent who changes the monitor, files that were put together."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from support import sync
from support.kinds import T0, ffmpeg

from muxer.lab.media import make_audio, make_screen
from muxer.media.engine import Engine, Input, Muxed
from muxer.media.render import Tools
from muxer.process import Runner

SIZES = ((320, 180), (480, 270))
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "20")
# Where the screen begins, how long each of its parts is, and how long the call is.
BEGIN, PART, SECONDS = -1.55, 2.0, 2.0


def make_parts(folder: Path, ending: str, *options: str) -> list[Path]:
    """Make the two parts of a screen recording; the second is larger."""
    made = []
    for number, size in enumerate(SIZES):
        base, part = folder / f"base-{number}.mp4", folder / f"part-{number}.{ending}"
        make_screen(base, T0 + timedelta(seconds=BEGIN + number * PART), PART, size=size, extra=("-qp", "10"))
        ffmpeg("-i", base, *options, part)
        made.append(part)
    return made


def mux(folder: Path, path: Path) -> Muxed:
    audio = folder / "call.mp3"
    make_audio(audio, T0, SECONDS)
    engine = Engine(Tools("ffmpeg", "ffprobe"), Runner(), tolerance=2.0, slice_ms=1000, audio_codec="copy")
    return engine.mux(Input(audio, audio.name, T0), [Input(path, path.name, T0 + timedelta(seconds=BEGIN))], folder)


def check(made: Muxed) -> None:
    assert sync.problems(made.path, T0, SECONDS, [sync.Shown(BEGIN, BEGIN + 2 * PART, 1)]) == []


def test_a_vp9_screen_that_changes_its_size_is_cut_where_it_must_be(tmp_path: Path) -> None:
    parts, path = make_parts(tmp_path, "webm", *VP9), tmp_path / "screen.webm"
    (tmp_path / "list").write_text("".join(f"file {part}\n" for part in parts))
    ffmpeg("-f", "concat", "-safe", "0", "-i", tmp_path / "list", "-c", "copy", path)
    check(mux(tmp_path, path))
