"""What a migration says of itself: how far it is, what became of everything, and when it gives up. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from muxer.status.progress import format_duration
from muxer.status.progress import measure_progress as how_far

BAR_WIDTH = 20
# A migration ends after this number of failed readings in a row without any progress: some three minutes.
MAX_STUCK_ATTEMPTS = 6
# The same when RWS shows nothing at all; with the delays between them, these take more than six hours.
MAX_EMPTY_ATTEMPTS = 80


class QueryAttempts:
    """The attempts to read the query of a migration that failed. `failures` is their number."""

    def __init__(self) -> None:
        self.failures = self._furthest = self._stuck = self._empty = 0

    def record_failure(self, found: int) -> bool:
        """Count an attempt that failed after it had `found` recordings. Returns whether the migration shall end."""
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
    """Counts of recordings of a migration, its failed ids, its seconds, and whether the query was read to its end."""

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


def summary_text(standing: MigrationStatus) -> str:
    """Return the counts of a migration that has ended."""
    ours = f" ({standing.ours} of this shard)" if standing.sharded else ""
    return (
        f"{standing.found} recordings found{ours}, {standing.muxed} files muxed, {standing.already_done} already done, "
        f"{standing.without_screen} recordings without screen, {len(standing.failed)} failed"
    )


def progress_text(standing: MigrationStatus) -> str:
    """Return the counts, also in percent, the rate and the time left; while the query is read, for what was found so far."""
    far = how_far(standing.finished, standing.ours, 0.0, standing.seconds)
    found = f"{standing.finished} of {standing.ours} recordings{'' if standing.complete else ' found so far'}"
    parts = [found, f"{standing.muxed} files muxed", f"{len(standing.failed)} failed"]
    if far.percent is not None:
        parts.append(f"{int(far.percent)} %")
    if far.rate:
        parts.append(f"{far.rate * 60:.1f} a minute")
    if far.left:
        parts.append(f"{format_duration(far.left)} left{'' if standing.complete else ' for these'}")
    return ", ".join(parts)


def progress_bar(standing: MigrationStatus) -> str:
    """Return the counts of a migration that goes on, behind a bar."""
    cells = BAR_WIDTH * standing.finished // standing.ours if standing.ours else 0
    return f"[{'#' * cells}{'.' * (BAR_WIDTH - cells)}] {progress_text(standing)}"
