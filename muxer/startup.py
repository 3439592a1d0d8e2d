"""What is checked once, before the first request: the programs, with their versions."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from muxer.config.schema import Processing
from muxer.errors import ConfigError, MuxerError, Problem
from muxer.process import Runner, program_version

if TYPE_CHECKING:
    from muxer.media.render import Tools

log = logging.getLogger(__name__)

PROGRAM_SECONDS = 20.0
# ffmpeg's option to keep frame times was renamed in this version.
_RENAMED_SINCE = (5, 1)


class ProgramChecks:
    """The checks of all programs at the same time, while the caller goes on with other things."""

    def __init__(self, processing: Processing) -> None:
        """Given the options with the paths of the programs, begin."""
        self._processing = processing
        self._checks = [
            _Check("ffmpeg", lambda: program_version(processing.ffmpeg, "-version")),
            _Check("ffmpeg", lambda: _need_encoder(processing.ffmpeg)),
            _Check("ffprobe", lambda: program_version(processing.ffprobe, "-version")),
            _Check("openssl", lambda: program_version(processing.openssl, "version")),
        ]

    def tools(self) -> Tools:
        """Wait for the checks, log the versions, and return the media tools.

        Raise :class:`ConfigError` with every program that does not run or lacks what is needed.
        """
        from muxer.media.render import Tools

        problems: dict[str, Problem] = {}
        for check in self._checks:
            if (error := check.error()) is not None:
                problems.setdefault(check.name, Problem(f"[processing] {check.name}", f"cannot be used: {error}"))
        if problems:
            raise ConfigError(list(problems.values()))
        for check in self._checks:
            if check.text:
                log.info("%s: %s", check.name, check.text)
        return Tools(self._processing.ffmpeg, self._processing.ffprobe, keep_times_words(self._checks[0].text))


class _Check:
    """One check, in a thread of its own. ``text`` is what it found: the version of a program, or nothing."""

    def __init__(self, name: str, check: Callable[[], str]) -> None:
        self.name = name
        self.text = ""
        self._check = check
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"check of {name}", daemon=True)
        self._thread.start()

    def error(self) -> MuxerError | None:
        """Wait for the end of the check; return why the program cannot be used, if so."""
        self._thread.join()
        if self._error is None or isinstance(self._error, MuxerError):
            return self._error
        raise self._error

    def _run(self) -> None:
        try:
            self.text = self._check()
        except Exception as error:
            self._error = error


def keep_times_words(version: str) -> tuple[str, str]:
    """Given the first line that ffmpeg prints of its version, return the option that keeps all frame times."""
    match = re.search(r"version n?(\d+)\.(\d+)", version)
    old = match is not None and (int(match[1]), int(match[2])) < _RENAMED_SINCE
    return ("-vsync", "passthrough") if old else ("-fps_mode", "passthrough")


def _need_encoder(ffmpeg: str) -> str:
    """Raise :class:`MuxerError` when this ffmpeg cannot encode what is needed."""
    encoders = Runner().run([ffmpeg, "-hide_banner", "-encoders"], timeout=PROGRAM_SECONDS).decode(errors="replace")
    if " libx264 " not in encoders:
        raise MuxerError("this ffmpeg has no libx264 encoder; install a build with it")
    return ""
