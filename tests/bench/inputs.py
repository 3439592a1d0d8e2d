"""Generated media of realistic size: a still desktop with small moving parts, and telephone audio."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.bench.measure import BenchSetting
from tests.support.tools import FOLDER_VARIABLE

# The programs under test also create the media and do the bare work.
PROGRAMS = {name: str(Path(os.environ.get(FOLDER_VARIABLE, ""), name)) for name in ("ffmpeg", "ffprobe")}
QUIET = (PROGRAMS["ffmpeg"], "-nostdin", "-hide_banner", "-v", "error", "-y")
SIZE = (1280, 720)
LOOPED_SECONDS = 60
START = datetime(2024, 1, 2, 10, 0, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Quality:
    """The form of a screen file: kilobits a second, frames a second, and the seconds from keyframe to keyframe."""

    kilobits: int
    fps: int
    key_seconds: int


# About 28 MB in ten minutes.
USUAL = Quality(kilobits=350, fps=10, key_seconds=5)
# Seconds. Many recorders use the default of the encoder: 250 frames, with 5 frames a second every 50 seconds.
KEY_DISTANCES = (1, 5, 50, 300)


@dataclass(frozen=True)
class Screen:
    """A screen file, and its start on the call's axis, in seconds."""

    path: Path
    offset: int
    seconds: int

    @property
    def starts_at(self) -> datetime:
        """The start time."""
        return START + timedelta(seconds=self.offset)


@dataclass(frozen=True)
class Call:
    """A call: its audio file, its length in seconds, its screen files, and their quality."""

    audio: Path
    seconds: int
    screens: tuple[Screen, ...]
    quality: Quality


def create_call(folder: Path, seconds: int, spans: Sequence[tuple[int, int]] = (), quality: Quality = USUAL) -> Call:
    """Create a call of `seconds` with screen files at `spans` (begin, end), by default one over the whole call. `folder`
    caches created files."""
    whole = tuple(spans) or ((0, seconds),)
    screens = (Screen(create_screen(folder, end - begin, quality), begin, end - begin) for begin, end in whole)
    return Call(create_audio(folder, seconds), seconds, tuple(screens), quality)


def vary_calls(setting: BenchSetting) -> Iterator[tuple[str, Call]]:
    """Yield a name and a call of five minutes for each keyframe distance, with one screen file and with three."""
    length = setting.pick_size(300, 4)
    three = [(length // 100, length // 3), (length // 2, length * 3 // 4), (length * 5 // 6, length)]
    for distance in setting.pick_size(KEY_DISTANCES, KEY_DISTANCES[:1]):
        quality = Quality(kilobits=960, fps=5, key_seconds=distance)
        for name, spans in (("one screen", [(0, length)]), ("three screens", three)):
            yield f"{name}, keyframes {distance} s", create_call(setting.folder, length, spans, quality)


def run_command(command: Sequence[str | Path]) -> None:
    """Run a command to its end. Raise ``CalledProcessError`` when it fails."""
    subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL)


def create_audio(folder: Path, seconds: int) -> Path:
    """Return an MP3 file of this length: 8 kHz, stereo, 32 kbit/s."""
    path = folder / f"audio-{seconds}.mp3"
    if not path.exists():
        sound = ["-f", "lavfi", "-i", f"anoisesrc=r=8000:a=0.1:d={seconds}:c=pink:s=1", "-ac", "2"]
        run_command([*QUIET, *sound, "-c:a", "libmp3lame", "-b:a", "32k", path])
    return path


def create_screen(folder: Path, seconds: int, quality: Quality = USUAL) -> Path:
    """Return a screen file of this length; a long one is a repeated file of a minute, or of the keyframe distance."""
    path = folder / f"screen-{seconds}-{quality.kilobits}-{quality.fps}-{quality.key_seconds}.mp4"
    looped = max(LOOPED_SECONDS, quality.key_seconds)
    if path.exists():
        return path
    if seconds <= LOOPED_SECONDS or seconds == looped:
        run_command([*QUIET, *_desktop_input(seconds, quality.fps), *_codec_options(quality), path])
        return path
    base = create_screen(folder, looped, quality)
    run_command([*QUIET, "-stream_loop", "-1", "-i", base, "-t", str(seconds), "-c", "copy", path])
    return path


def _desktop_input(seconds: int, fps: int) -> list[str]:
    """Return the input: a detailed still image, a clock, and a part that moves like a pointer."""
    width, height = SIZE
    still = f"testsrc2=s={width}x{height}:r={fps},trim=end_frame=1,loop=loop=-1:size=1,setpts=N/{fps}/TB"
    moving = f"mandelbrot=s=320x240:r={fps},noise=alls=20:allf=t"
    joined = f"{still}[still];{moving}[moving];[still][moving]overlay=x='400+mod(40*t,600)':y=300:shortest=0"
    return ["-f", "lavfi", "-i", joined, "-t", str(seconds)]


def _codec_options(quality: Quality) -> list[str]:
    rate, distance = f"{quality.kilobits}k", str(quality.key_seconds * quality.fps)
    codec = ["-c:v", "libx264", "-preset", "veryfast", "-bf", "0", "-pix_fmt", "yuv420p"]
    rates = ["-b:v", rate, "-maxrate", rate, "-bufsize", f"{4 * quality.kilobits}k"]
    return [*codec, *rates, "-g", distance, "-keyint_min", distance, "-sc_threshold", "0"]
