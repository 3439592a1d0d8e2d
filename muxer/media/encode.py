"""Runs encoders, and tells how far they are: with ``-progress`` they print the time that they have come to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from muxer import activity
from muxer.process import Runner

_TIME = b"out_time_us="


def encode(
    runner: Runner, command: Sequence[str], length: int, timeout: float, complaint: str | None = None
) -> None:
    """Run a command that prints its progress, and report to the activity how far it is.

    ``length`` is how many microseconds of media it makes: as many are reported in all, neither less nor more. ``complaint``
    is that of :meth:`Runner.run`, whose errors are raised.
    """
    runner.stream(command, partial(_tell, length), timeout=timeout, complaint=complaint)


def _tell(length: int, lines: Iterable[bytes]) -> None:
    told = 0
    for line in lines:
        if line.startswith(_TIME) and (now := min(_number(line), length)) > told:
            activity.advance(now - told)
            told = now
    activity.advance(length - told)


def _number(line: bytes) -> int:
    """Return the number in a line; at first, and when nothing comes out, there is none in it (``N/A``)."""
    text = line.removeprefix(_TIME).strip()
    return int(text) if text.isdigit() and len(text) < 20 else 0
