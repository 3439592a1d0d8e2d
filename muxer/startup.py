"""What is checked once, before the first request: the programs, with their versions."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from muxer.config.schema import Config
from muxer.errors import ConfigError, MuxerError, Problem
from muxer.media.render import Tools
from muxer.process import Runner

log = logging.getLogger(__name__)

PROGRAM_SECONDS = 20.0
# ffmpeg's option to keep frame times was renamed in this version.
_RENAMED_SINCE = (5, 1)
# What the loader says of libraries that are missing, or not those that the program was made with.
_LIBRARY_SIGNS = ("shared librar", "symbol lookup error", "' not found (required by")


def check_programs(config: Config, runner: Runner) -> Tools:
    """Run each program, log its path and version, and return the media tools.

    Raise :class:`ConfigError` with every program that does not run or lacks what is needed.
    """
    processing = config.processing
    problems: list[Problem] = []
    programs = {
        "ffmpeg": (processing.ffmpeg, "-version"),
        "ffprobe": (processing.ffprobe, "-version"),
        "openssl": (processing.openssl, "version"),
    }
    versions = {
        name: _checked(name, lambda p=path, f=flag: program_version(runner, p, f), problems)  # type: ignore[misc]
        for name, (path, flag) in programs.items()
    }
    if versions["ffmpeg"]:
        _checked("ffmpeg", lambda: _need_encoder(runner, processing.ffmpeg), problems)
    if problems:
        raise ConfigError(problems)
    for name, version in versions.items():
        log.info("%s is %s: %s", name, programs[name][0], version)
    return Tools(processing.ffmpeg, processing.ffprobe, keep_times_words(versions["ffmpeg"]))


def program_version(runner: Runner, executable: str, flag: str) -> str:
    """Given a program and the flag that makes it tell its version, return the first line that it prints.

    Raise :class:`ToolError` when it does not run.
    """
    lines = runner.run([executable, flag], timeout=PROGRAM_SECONDS).decode(errors="replace").splitlines()
    return next((line.strip() for line in lines if line.strip()), "no version")


def keep_times_words(version: str) -> tuple[str, str]:
    """Given the first line that ffmpeg prints of its version, return the option that keeps all frame times."""
    match = re.search(r"version n?(\d+)\.(\d+)", version)
    old = match is not None and (int(match[1]), int(match[2])) < _RENAMED_SINCE
    return ("-vsync", "passthrough") if old else ("-fps_mode", "passthrough")


def _need_encoder(runner: Runner, ffmpeg: str) -> str:
    encoders = runner.run([ffmpeg, "-hide_banner", "-encoders"], timeout=PROGRAM_SECONDS).decode(errors="replace")
    if " libx264 " not in encoders:
        raise MuxerError("this ffmpeg has no libx264 encoder; install a build with it")
    return encoders


def _checked(name: str, check: Callable[[], str], problems: list[Problem]) -> str:
    try:
        return check()
    except MuxerError as error:
        problems.append(Problem(f"[processing] {name}", f"cannot be used: {error}{_advice(name, str(error))}"))
        return ""


def _advice(name: str, error: str) -> str:
    """Return what to do when a program did not find its libraries, else nothing."""
    if not any(sign in error for sign in _LIBRARY_SIGNS):
        return ""
    place = "put them beside it (the same folder, ../lib or ../lib64)" if name == "openssl" else "take a static build"
    return f". Its libraries are missing here, or are of another version; {place}, or name their folder in LD_LIBRARY_PATH"
