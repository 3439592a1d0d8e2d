"""What a migration says of itself: how far it is, and what became of everything. Pure."""

from __future__ import annotations

from dataclasses import dataclass

BAR_CELLS = 20


@dataclass(frozen=True)
class Standing:
    """How far a migration is: recordings that its query has found so far, those of this shard, those of them that are
    finished and those without screen; muxed files made and found; the ids of recordings that failed."""

    found: int
    ours: int
    finished: int
    without_screen: int
    muxed: int
    already_done: int
    failed: tuple[str, ...]
    sharded: bool


def summary(standing: Standing) -> str:
    """Return the counts of a migration that has ended."""
    ours = f" ({standing.ours} of this shard)" if standing.sharded else ""
    return (
        f"{standing.found} recordings found{ours}, {standing.muxed} files muxed, {standing.already_done} already done, "
        f"{standing.without_screen} recordings without screen, {len(standing.failed)} failed"
    )


def progress(standing: Standing) -> str:
    """Return the counts of a migration that goes on."""
    return (
        f"{standing.finished} of {standing.ours} recordings found so far, {standing.muxed} files muxed, "
        f"{len(standing.failed)} failed"
    )


def bar(standing: Standing) -> str:
    """Return the counts of a migration that goes on, behind a bar."""
    cells = BAR_CELLS * standing.finished // standing.ours if standing.ours else 0
    return f"[{'#' * cells}{'.' * (BAR_CELLS - cells)}] {progress(standing)}"
