"""Runs encoders, and tells how far they are: with ``-progress`` they print the time that they have come to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from muxer.status import activity
from muxer.system.process import Runner

_TIME_PREFIX = b"out_time_us="


def run_encoder(runner: Runner, command: Sequence[str], length: int, timeout: float, complaint: str | None = None) -> None:
    """Run a command that prints its progress, and report to the activity how far it is.

    ``length`` is how many microseconds of media it makes: as many are reported in all, neither less nor more. ``complaint``
    is that of :meth:`Runner.run`, whose errors are raised.
    """
    runner.run_streaming(command, partial(_report_progress, length), timeout=timeout, complaint=complaint)


def _report_progress(length: int, lines: Iterable[bytes]) -> None:
    told = 0
    for line in lines:
        if line.startswith(_TIME_PREFIX) and (now := min(_parse_number(line), length)) > told:
            activity.add_progress(now - told)
            told = now
    activity.add_progress(length - told)


def _parse_number(line: bytes) -> int:
    """Return the number in a line; at first, and when nothing comes out, there is none in it (``N/A``)."""
    text = line.removeprefix(_TIME_PREFIX).strip()
    return int(text) if text.isdigit() and len(text) < 20 else 0
