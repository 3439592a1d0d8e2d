"""What is checked once, before the first request: the programs, with their versions."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from muxer.config.schema import Config
from muxer.errors import ConfigError, MuxerError, Problem
from muxer.media.render import Tools
from muxer.process import Runner, program_version

log = logging.getLogger(__name__)

PROGRAM_SECONDS = 20.0
# ffmpeg's option to keep frame times was renamed in this version.
_RENAMED_SINCE = (5, 1)


def check_programs(config: Config) -> Tools:
    """Run each program, log its version, and return the media tools.

    Raise :class:`ConfigError` with every program that does not run or lacks what is needed.
    """
    processing = config.processing
    problems: list[Problem] = []
    versions = {
        name: _checked(name, lambda p=path, f=flag: program_version(p, f), problems)  # type: ignore[misc]
        for name, path, flag in (
            ("ffmpeg", processing.ffmpeg, "-version"),
            ("ffprobe", processing.ffprobe, "-version"),
            ("openssl", processing.openssl, "version"),
        )
    }
    if versions["ffmpeg"]:
        _checked("ffmpeg", lambda: _need_encoder(processing.ffmpeg), problems)
    if problems:
        raise ConfigError(problems)
    for name, version in versions.items():
        log.info("%s: %s", name, version)
    return Tools(processing.ffmpeg, processing.ffprobe, keep_times_words(versions["ffmpeg"]))


def keep_times_words(version: str) -> tuple[str, str]:
    """Given the first line that ffmpeg prints of its version, return the option that keeps all frame times."""
    match = re.search(r"version n?(\d+)\.(\d+)", version)
    old = match is not None and (int(match[1]), int(match[2])) < _RENAMED_SINCE
    return ("-vsync", "passthrough") if old else ("-fps_mode", "passthrough")


def _need_encoder(ffmpeg: str) -> str:
    encoders = Runner().run([ffmpeg, "-hide_banner", "-encoders"], timeout=PROGRAM_SECONDS).decode(errors="replace")
    if " libx264 " not in encoders:
        raise MuxerError("this ffmpeg has no libx264 encoder; install a build with it")
    return encoders


def _checked(name: str, check: Callable[[], str], problems: list[Problem]) -> str:
    try:
        return check()
    except MuxerError as error:
        problems.append(Problem(f"[processing] {name}", f"cannot be used: {error}"))
        return ""
