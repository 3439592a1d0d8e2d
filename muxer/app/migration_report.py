"""Texts and limits of a migration: its progress, its result, and when it gives up. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from muxer.status.progress import format_duration, measure_progress

BAR_WIDTH = 20
# A migration ends after this number of failed attempts in a row without a new recording: about three minutes.
MAX_STUCK_ATTEMPTS = 6
# The same while RWS has returned no recording at all: more than six hours, with the delays.
MAX_EMPTY_ATTEMPTS = 80


class QueryAttempts:
    """Failed attempts to read the query of a migration. `failures` is their number."""

    def __init__(self) -> None:
        self.failures = self._furthest = self._stuck = self._empty = 0

    def record_failure(self, found: int) -> bool:
        """Count an attempt that failed after `found` recordings. Returns whether the migration ends."""
        self.failures += 1
        if found > self._furthest:
            self._furthest, self._stuck, self._empty = found, 0, 0
        elif found:
            self._stuck += 1
        else:
            self._empty += 1
        return self._stuck >= MAX_STUCK_ATTEMPTS or self._empty >= MAX_EMPTY_ATTEMPTS


@dataclass(frozen=True)
class MigrationStatus:
    """The progress of a migration: recordings `found`, `ours` of this shard; files `muxed` and `already_done`; ids of the
    `failed` recordings; `complete` when the whole query was read."""

    found: int
    ours: int
    finished: int
    without_screen: int
    muxed: int
    already_done: int
    failed: tuple[str, ...]
    sharded: bool
    seconds: float = 0.0
    complete: bool = False


def summary_text(status: MigrationStatus) -> str:
    """Return the counts of a finished migration."""
    ours = f" ({status.ours} of this shard)" if status.sharded else ""
    return (
        f"{status.found} recordings found{ours}, {status.muxed} files muxed, {status.already_done} already done, "
        f"{status.without_screen} recordings without screen, {len(status.failed)} failed"
    )


def progress_text(status: MigrationStatus) -> str:
    """Return the counts of a running migration, with percent, rate and the time left. While the query is read, the time left
    is that of the recordings found so far: RWS does not return a total."""
    progress = measure_progress(status.finished, status.ours, 0.0, status.seconds)
    found = f"{status.finished} of {status.ours} recordings{'' if status.complete else ' found so far'}"
    parts = [found, f"{status.muxed} files muxed", f"{len(status.failed)} failed"]
    if progress.percent is not None:
        parts.append(f"{int(progress.percent)} %")
    if progress.rate:
        parts.append(f"{progress.rate * 60:.1f} a minute")
    if progress.left:
        parts.append(f"{format_duration(progress.left)} left{'' if status.complete else ' for these'}")
    return ", ".join(parts)


def progress_bar(status: MigrationStatus) -> str:
    """Return the counts of a running migration after a progress bar."""
    cells = BAR_WIDTH * status.finished // status.ours if status.ours else 0
    return f"[{'#' * cells}{'.' * (BAR_WIDTH - cells)}] {progress_text(status)}"
