"""How far something is, how fast it goes, and how long it will still take. Pure: one place for the commands, the status page
and the migration."""

from __future__ import annotations

from dataclasses import dataclass

MICROSECONDS = 1_000_000
# Before so many seconds have passed, nobody can say how fast something is.
MIN_SECONDS = 0.5
# The steps that move bytes; the others count microseconds of media.
TRANSFERS = ("fetch", "store", "write", "copy")


@dataclass(frozen=True)
class Progress:
    """How far something is: ``percent`` (None where nobody knows the whole), ``rate`` in units a second and ``left`` in
    seconds (None where nobody can say)."""

    percent: float | None
    rate: float | None
    left: float | None


def measure_progress(done: float, total: float, begun: float, now: float) -> Progress:
    """Given how much is done of how much (0 = nobody knows), and when it began and now is, return how far it is.

    What is done may exceed the whole, where that was estimated; a clock that was set back says nothing of the rate.
    """
    passed = now - begun
    rate = done / passed if passed >= MIN_SECONDS else None
    if total <= 0:
        return Progress(None, rate, None)
    done = min(done, total)
    left = (total - done) / rate if rate else None
    return Progress(min(100.0, 100 * done / total), rate, 0.0 if done == total else left)


def format_progress(made: Progress, step: str = "") -> str:
    """Given how far a step is, return it for people: ``63 %, 12.3 MB/s, 0:42 left``; empty when nothing is known. Without a
    step, the rate is left out: its unit is not known."""
    parts = []
    if made.percent is not None:
        parts.append(f"{int(made.percent)} %")
    if made.rate and step:
        parts.append(format_speed(made.rate, step))
    if made.left is not None and made.percent is not None and made.percent < 100:
        parts.append(f"{format_duration(made.left)} left")
    return ", ".join(parts)


def format_speed(rate: float, step: str) -> str:
    """Given a rate and the step whose it is, return it in megabytes a second, or as a multiple of real time."""
    return f"{rate / 1e6:.1f} MB/s" if step in TRANSFERS else f"{rate / MICROSECONDS:.1f} x real time"


def format_duration(seconds: float) -> str:
    """Given seconds, return them as ``m:ss`` or ``h:mm:ss``."""
    whole = round(max(0.0, seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
