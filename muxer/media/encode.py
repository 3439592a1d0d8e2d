"""Runs encoders, and tells how far they are: with ``-progress`` they print the time that they have come to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from muxer import activity
from muxer.process import Runner

_TIME = b"out_time_us="


def encode(runner: Runner, command: Sequence[str], length: int, timeout: float) -> None:
    """Given a command that prints its progress, and how many microseconds of media it makes, run it and tell the activity
    how far it is: that length in all, neither less nor more. Raise the errors of :meth:`Runner.run`."""
    runner.stream(command, partial(_tell, length), timeout=timeout)


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
