"""Small real MP4 files, and their packets as ffprobe prints them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.media_kinds import run_ffmpeg, run_program

X264 = ("-c:v", "libx264", "-threads", "1", "-preset", "veryfast")
B_FRAMES = (*X264, "-g", "10", "-bf", "3", "-b_strategy", "0")


class Packet(NamedTuple):
    """A packet as ffprobe prints it, in ticks of its stream."""

    pts: int
    dts: int
    duration: int
    size: int
    pos: int
    flags: str


def create_video(path: Path, *options: str, size: str = "320x180", seconds: float = 2, rate: int = 10) -> Path:
    """Create a video file."""
    run_ffmpeg("-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d={seconds}", *options, path)
    return path


def create_audio(path: Path, *options: str, seconds: float = 2, rate: int = 8000, channels: int = 2) -> Path:
    """Create an audio file."""
    source = f"sine=r={rate}:d={seconds},aformat=channel_layouts={'stereo' if channels == 2 else 'mono'}"
    run_ffmpeg("-f", "lavfi", "-i", source, *options, path)
    return path


def read_packets(path: Path, stream: str = "v:0") -> list[Packet]:
    """Return the packets of a stream in decoding order."""
    entries = "packet=pts,dts,duration,size,pos,flags"
    text = run_program(
        "ffprobe", "-v", "error", "-select_streams", stream, "-show_entries", entries, "-of", "compact=p=0", path
    )
    found = [dict(part.split("=", 1) for part in line.split("|") if "=" in part) for line in text.splitlines() if line]
    return [Packet(*(int(item[name]) for name in Packet._fields[:5]), item["flags"][:2]) for item in found]  # type: ignore[call-arg]


def stream_fields(path: Path, names: Sequence[str], kind: str = "v:0") -> dict[str, str]:
    """Return fields of a stream."""
    text = run_program("ffprobe", "-v", "error", "-select_streams", kind, "-show_entries", f"stream={','.join(names)}",
               "-of", "default=nw=1", path)  # fmt: skip
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def frame_checksums(path: Path) -> list[str]:
    """Return a checksum of each decoded frame in presentation order."""
    text = run_program(
        "ffmpeg", "-v", "error", "-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framemd5", "-"
    )
    return [line.rsplit(",", 1)[1].strip() for line in text.splitlines() if not line.startswith("#")]
