"""Reads fetched files into a form whose samples can be copied.

Plain files are read at once, without any program; whatever else comes is looked at by ffprobe and made plain by ffmpeg,
where that is possible.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from threading import BoundedSemaphore

from muxer import activity
from muxer.errors import Code, MediaError, ToolError
from muxer.media import limits, render
from muxer.media.audio import AudioReader
from muxer.media.encode import encode
from muxer.media.plain import Sound, read_screen
from muxer.media.probe import Probed, Video, need_video, probe
from muxer.media.render import Tools
from muxer.process import Runner

log = logging.getLogger(__name__)

MAKE_SECONDS = 900.0


class Reader:
    """Reads sources. Safe to use from any thread."""

    def __init__(self, tools: Tools, runner: Runner, audio_codec: str, encoders: BoundedSemaphore) -> None:
        """Given the programs, the option ``audio_codec``, and what limits the number of encoders."""
        self._tools = tools
        self._runner = runner
        self._encoders = encoders
        self._audio = AudioReader(tools, runner, audio_codec, encoders)

    def sound(self, path: Path, made: Path) -> tuple[Sound, frozenset[str]]:
        """Given a call's audio file and where an MP4 file may be made of it, return its sound as it stands in the result,
        and why it was re-encoded although it was to be copied. Raise :class:`MediaError` when there is nothing to hear."""
        return self._audio.read(path, made)

    def screen(self, path: Path, made: Path) -> Probed:
        """Given a screen file and where a plain one may be made of it, return its frames. Raise :class:`MediaError` when
        there is nothing to see."""
        if path.stat().st_size == 0:
            raise MediaError("the file is empty", code=Code.EMPTY_FILE)
        found = self._screen(path, made)
        limits.check_picture(*need_video(found).size)
        return found

    def _screen(self, path: Path, made: Path) -> Probed:
        plain = read_screen(path)
        if plain is not None:
            return plain
        found = probe(path, self._tools.ffprobe, self._runner)
        if need_video(found).lacks_times:
            retimed = self._retimed(path, need_video(found), made)
            return replace(retimed, late_us=found.late_us, empty_us=found.empty_us)
        if not _may_become_plain(need_video(found)):
            return found
        try:
            self._runner.run(render.remux_command(self._tools, path, made), timeout=MAKE_SECONDS)
        except ToolError as error:
            log.info("a screen file cannot be copied into an MP4 file and is re-encoded: %s", error)
            return found
        plain = read_screen(made)
        return found if plain is None else replace(plain, late_us=found.late_us, empty_us=found.empty_us)

    def _retimed(self, path: Path, video: Video, made: Path) -> Probed:
        """Re-encode frames of which the file does not say when they are shown, when those that do are evenly spaced."""
        step, frames = video.step, len(video.packets.pts) + video.packets.timeless
        if step is None:
            raise MediaError("the file does not say when its frames are shown", code=Code.NO_FRAME_TIMES)
        log.warning("a screen file is re-encoded as a whole: it does not say when its frames are shown")
        with self._encoders:
            length = round(frames * step * 1_000_000)
            activity.expect(length)
            encode(self._runner, render.retime_command(self._tools, path, video, step, made), length, MAKE_SECONDS)
        plain = read_screen(made)
        if plain is None or len(need_video(plain).packets.pts) != frames:
            raise MediaError(
                "the file does not say when its frames are shown, and not all of them can be decoded",
                code=Code.NO_FRAME_TIMES,
            )
        return replace(plain, reason="the file does not say when its frames are shown")


def _may_become_plain(video: Video) -> bool:
    fits = video.codec == "h264" and video.entry.get("pix_fmt") in render.PIXELS
    return fits and not video.packets.hidden and not video.packets.changes
