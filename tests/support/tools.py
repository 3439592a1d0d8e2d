"""The media programs under test. Those on PATH always create the sources and check the results."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

from muxer.media.ffmpeg import MediaTools
from muxer.media.ffmpeg_trial import find_keep_times
from muxer.system.process import Runner

# The folder of the ``ffmpeg`` and ``ffprobe`` under test; by default those on PATH are tested.
FOLDER_VARIABLE = "FFMPEG_DIR"
# The folder of a static build for all tests that are not about media: the distribution's build loads about two hundred
# libraries at each start, which takes fifty times as long.
STATIC_VARIABLE = "MUXER_STATIC_FFMPEG"
MACHINE_PATH = os.environ.get("PATH", os.defpath)


def select_ffmpeg(needs_machine_build: bool) -> None:
    """Put the static build first on PATH, if there is one and the test does not need the build of this machine."""
    folder = os.environ.get(STATIC_VARIABLE)
    use_static = folder and not needs_machine_build
    os.environ["PATH"] = f"{folder}{os.pathsep}{MACHINE_PATH}" if use_static else MACHINE_PATH


@functools.cache
def tested_tools() -> MediaTools:
    """Return the programs under test, with the results of the check at the start."""
    folder = os.environ.get(FOLDER_VARIABLE)
    ffmpeg, ffprobe = (str(Path(folder, name)) if folder else name for name in ("ffmpeg", "ffprobe"))
    return MediaTools(ffmpeg, ffprobe, find_keep_times(Runner(), ffmpeg))


def is_other_build() -> bool:
    """Return whether another build than that on PATH is under test."""
    return bool(os.environ.get(FOLDER_VARIABLE))


def decoded_seconds(path: Path) -> float:
    """Return the seconds of audio that the build under test decodes from a file."""
    command = [
        tested_tools().ffmpeg,
        "-nostdin",
        "-v",
        "quiet",
        "-i",
        str(path),
        "-ac",
        "1",
        "-ar",
        "8000",
        "-f",
        "s16le",
        "-",
    ]
    return len(subprocess.run(command, capture_output=True, check=False).stdout) / 16_000
