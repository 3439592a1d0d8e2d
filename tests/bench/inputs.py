"""Generated media of realistic size: a still desktop with small moving parts, and telephone audio."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

QUIET = ("ffmpeg", "-nostdin", "-hide_banner", "-v", "error", "-y")
FPS = 10
SIZE = (1280, 720)
# About 28 MB in ten minutes.
KILOBITS = 350
KEY_SECONDS = 5
LOOPED_SECONDS = 60
START = datetime(2024, 1, 2, 10, 0, 0, tzinfo=UTC)


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
    """A call: its audio file, its length in seconds, and its screen files."""

    audio: Path
    seconds: int
    screens: tuple[Screen, ...]


def create_call(folder: Path, seconds: int, spans: Sequence[tuple[int, int]] = (), kilobits: int = KILOBITS) -> Call:
    """Create a call of `seconds` with screen files at `spans` (begin, end), by default one over the whole call. `folder`
    caches created files."""
    whole = tuple(spans) or ((0, seconds),)
    screens = (Screen(create_screen(folder, end - begin, kilobits), begin, end - begin) for begin, end in whole)
    return Call(create_audio(folder, seconds), seconds, tuple(screens))


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


def create_screen(folder: Path, seconds: int, kilobits: int = KILOBITS) -> Path:
    """Return a screen file of this length; a long one is a repeated file of a minute."""
    path = folder / f"screen-{seconds}-{kilobits}.mp4"
    if path.exists():
        return path
    if seconds <= LOOPED_SECONDS:
        run_command([*QUIET, *_desktop_input(seconds), *_codec_options(kilobits), path])
        return path
    base = create_screen(folder, LOOPED_SECONDS, kilobits)
    run_command([*QUIET, "-stream_loop", "-1", "-i", base, "-t", str(seconds), "-c", "copy", path])
    return path


def _desktop_input(seconds: int) -> list[str]:
    """Return the input: a detailed still image, a clock, and a part that moves like a pointer."""
    width, height = SIZE
    still = f"testsrc2=s={width}x{height}:r={FPS},trim=end_frame=1,loop=loop=-1:size=1,setpts=N/{FPS}/TB"
    moving = f"mandelbrot=s=160x120:r={FPS},noise=alls=12:allf=t"
    joined = f"{still}[still];{moving}[moving];[still][moving]overlay=x='400+mod(40*t,600)':y=300:shortest=0"
    return ["-f", "lavfi", "-i", joined, "-t", str(seconds)]


def _codec_options(kilobits: int) -> list[str]:
    codec = ["-c:v", "libx264", "-preset", "veryfast", "-bf", "0", "-pix_fmt", "yuv420p"]
    rate = ["-b:v", f"{kilobits}k", "-maxrate", f"{kilobits}k", "-bufsize", f"{4 * kilobits}k"]
    return [*codec, *rate, "-g", str(KEY_SECONDS * FPS), "-sc_threshold", "0"]
