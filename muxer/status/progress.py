"""Progress, rate and remaining time of a step, for the commands, the status page and the migration. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MICROSECONDS = 1_000_000
# A rate over a shorter time is not meaningful.
MIN_SECONDS = 0.5
# The steps that count bytes; the others count microseconds of media.
TRANSFERS = ("fetch", "store", "write", "copy")


@dataclass(frozen=True)
class Progress:
    """The progress of a step: `rate` in units per second, `left` in seconds; None when unknown."""

    percent: float | None
    rate: float | None
    left: float | None


def measure_progress(done: float, total: float, begun: float, now: float) -> Progress:
    """Return the progress of a step that began at `begun`. `total` is 0 when unknown; `done` may exceed an estimated one."""
    passed = now - begun
    rate = done / passed if passed >= MIN_SECONDS else None
    if total <= 0:
        return Progress(None, rate, None)
    done = min(done, total)
    left = (total - done) / rate if rate else None
    return Progress(min(100.0, 100 * done / total), rate, 0.0 if done == total else left)


def format_progress(progress: Progress, step: str = "") -> str:
    """Return a text such as ``63 %, 12.3 MB/s, 0:42 left``, without the rate if `step` is unknown."""
    parts = []
    if progress.percent is not None:
        parts.append(f"{int(progress.percent)} %")
    if progress.rate and step:
        parts.append(format_speed(progress.rate, step))
    if progress.left is not None and progress.percent is not None and progress.percent < 100:
        parts.append(f"{format_duration(progress.left)} left")
    return ", ".join(parts)


def format_speed(rate: float, step: str) -> str:
    """Return the rate of a step in MB/s, or as a multiple of real time."""
    return f"{rate / 1e6:.1f} MB/s" if step in TRANSFERS else f"{rate / MICROSECONDS:.1f} x real time"


def format_duration(seconds: float) -> str:
    """Return a duration as ``m:ss`` or ``h:mm:ss``."""
    whole = round(max(0.0, seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
