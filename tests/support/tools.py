"""The media programs that are tested. Sources are made and results are judged by those on PATH, whichever are tested."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from muxer.media.features import find_keep_times
from muxer.media.render import Tools
from muxer.process import Runner

# The folder of the build that is tested, with ``ffmpeg`` and ``ffprobe`` in it; without it, those on PATH are tested.
FOLDER = "FFMPEG_DIR"


@functools.cache
def tools() -> Tools:
    """Return the programs that are tested, with what the trial at the start finds out about them."""
    folder = os.environ.get(FOLDER)
    ffmpeg, ffprobe = (str(Path(folder, name)) if folder else name for name in ("ffmpeg", "ffprobe"))
    return Tools(ffmpeg, ffprobe, find_keep_times(Runner(), ffmpeg))


def is_other_build() -> bool:
    """Whether another build than that on PATH is tested."""
    return bool(os.environ.get(FOLDER))

