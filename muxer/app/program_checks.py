"""Checks of the programs before the first request: their versions, and what ffmpeg and ffprobe support."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from muxer.config.schema import ProcessingOptions
from muxer.errors import Code, ConfigError, MuxerError, Problem, ToolError
from muxer.system.process import Runner

if TYPE_CHECKING:
    from muxer.media.ffmpeg import MediaTools

log = logging.getLogger(__name__)

PROGRAM_TIMEOUT_SECONDS = 20.0
# The first words of the versions of programs that one of these options may name by mistake.
_PROGRAM_NAMES = ("ffmpeg", "ffprobe", "ffplay", "openssl")
# Messages of the loader about missing or incompatible libraries.
_LIBRARY_SIGNS = ("shared librar", "symbol lookup error", "' not found (required by")


class ProgramChecks:
    """Checks of all programs, in parallel to the caller."""

    def __init__(self, processing: ProcessingOptions, runner: Runner) -> None:
        """Start the checks of the programs in `processing`."""
        self._processing = processing
        self._versions = [
            _ProgramCheck("ffmpeg", lambda: program_version(runner, processing.ffmpeg, "-version", "ffmpeg")),
            _ProgramCheck("ffprobe", lambda: program_version(runner, processing.ffprobe, "-version", "ffprobe")),
            _ProgramCheck("openssl", lambda: program_version(runner, processing.openssl, "version", "openssl")),
        ]
        self._keep_times = _ProgramCheck("ffmpeg", lambda: " ".join(find_keep_times(runner, processing.ffmpeg)))
        self._ffprobe = _ProgramCheck("ffprobe", lambda: try_ffprobe(runner, processing.ffprobe))

    def wait_for_tools(self) -> MediaTools:
        """Wait for the checks, log the paths and versions, and return the media tools.

        Raise :class:`ConfigError` with every program that does not run or lacks what is needed.
        """
        from muxer.media.ffmpeg import MediaTools

        problems: dict[str, Problem] = {}
        for check in (*self._versions, self._keep_times, self._ffprobe):
            if (error := check.wait_for_error()) is not None:
                problems.setdefault(check.name, program_problem(check.name, error))
        if problems:
            raise ConfigError(list(problems.values()))
        for check in self._versions:
            log.info("%s is %s: %s", check.name, getattr(self._processing, check.name), check.text)
        option, value = self._keep_times.text.split()
        return MediaTools(self._processing.ffmpeg, self._processing.ffprobe, (option, value))


class _ProgramCheck:
    """One check in its own thread. `text` is its result, such as the version of a program."""

    def __init__(self, name: str, check: Callable[[], str]) -> None:
        self.name = name
        self.text = ""
        self._check = check
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run_check, name=f"check of {name}", daemon=True)
        self._thread.start()

    def wait_for_error(self) -> MuxerError | None:
        """Wait for the end of the check. Returns the error, if any."""
        self._thread.join()
        if self._error is None or isinstance(self._error, MuxerError):
            return self._error
        raise self._error

    def _run_check(self) -> None:
        try:
            self.text = self._check()
        except Exception as error:
            self._error = error


def find_keep_times(runner: Runner, ffmpeg: str) -> tuple[str, str]:
    """As :func:`muxer.media.ffmpeg_trial.find_keep_times`, whose modules are loaded while other checks run."""
    from muxer.media import ffmpeg_trial

    return ffmpeg_trial.find_keep_times(runner, ffmpeg)


def try_ffprobe(runner: Runner, ffprobe: str) -> str:
    """As :func:`muxer.media.ffmpeg_trial.try_ffprobe`; there is nothing to return but an empty text."""
    from muxer.media import ffmpeg_trial

    ffmpeg_trial.try_ffprobe(runner, ffprobe)
    return ""


def program_version(runner: Runner, executable: str, flag: str, name: str = "") -> str:
    """Return the first line that `executable` prints with `flag`. Raises ToolError when it does not run or is not `name`."""
    lines = runner.run([executable, flag], timeout=PROGRAM_TIMEOUT_SECONDS).decode(errors="replace").splitlines()
    version = next((line.strip() for line in lines if line.strip()), "no version")
    found = version.partition(" ")[0].lower()
    if name and found != name and found in _PROGRAM_NAMES:
        raise ToolError(f"it is {found}, not {name}")
    return version


def program_problem(name: str, error: Exception) -> Problem:
    """Return the problem of the option `name` for a program that does not run."""
    what = f"cannot be used: {error}{_library_advice(name, str(error))}"
    is_full = isinstance(error, MuxerError) and error.code is Code.DISK_FULL
    return Problem(f"[processing] {name}", what, temporary=is_full)


def _library_advice(name: str, error: str) -> str:
    if not any(sign in error for sign in _LIBRARY_SIGNS):
        return ""
    place = "put them beside it (the same folder, ../lib or ../lib64)" if name == "openssl" else "take a static build"
    return f". Its libraries are missing here, or are of another version; {place}, or name their folder in LD_LIBRARY_PATH"
