"""Run encoders and report their progress: with `-progress` they print the time that they have reached."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from muxer.status import activity
from muxer.system.process import Runner

# The time limit of an encoder, more than its base, for each second of media.
ENCODE_SECONDS_PER_SECOND = 20
_TIME_PREFIX = b"out_time_us="


def run_encoder(runner: Runner, command: Sequence[str], length: int, timeout: float, complaint: str | None = None) -> None:
    """Run a command that prints its progress, and report exactly `length` microseconds to the activity."""
    runner.run_streaming(command, partial(_report_progress, length), timeout=timeout, complaint=complaint)


def _report_progress(length: int, lines: Iterable[bytes]) -> None:
    reported = 0
    for line in lines:
        if line.startswith(_TIME_PREFIX) and (now := min(_parse_number(line), length)) > reported:
            activity.add_progress(now - reported)
            reported = now
    activity.add_progress(length - reported)


def _parse_number(line: bytes) -> int:
    """Return the number in a line; 0 when there is none (N/A), as at first."""
    text = line.removeprefix(_TIME_PREFIX).strip()
    return int(text) if text.isdigit() and len(text) < 20 else 0
