"""What the journal tells of the last day, read beside the running muxer, which it never holds up."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muxer.journal import ASIDE, DONE, RETRY, Sample

RECENT = 50
FAILURES = 100
SAMPLES = 300
HOUR = 3600
HOURS = 24
LOCK_SECONDS = 0.5

_FIELDS = "name, recording, agent, state, attempts, retry_at, code, error, reason, facts, updated"
_ROW = f"SELECT {_FIELDS} FROM targets WHERE state"
_HOURS = """
SELECT CAST(updated / 3600 AS INTEGER) * 3600, sum(state = 'done' AND json_extract(facts, '$.method') IS NOT NULL),
    sum(state <> 'done'), total(json_extract(facts, '$.length')), total(json_extract(facts, '$.bytes'))
FROM targets WHERE (state = 'done' OR attempts > 0) AND updated >= ? GROUP BY 1
"""


@dataclass(frozen=True)
class Row:
    """A target as the journal has it. ``facts`` is what its finished line said, with its ``timeline``; empty for others."""

    name: str
    recording: str
    agent: str
    state: str
    attempts: int
    retry_at: float | None
    code: str
    error: str
    reason: str
    facts: dict[str, Any]
    updated: float


@dataclass(frozen=True)
class Hour:
    """What ended in the hour that began at ``start``: targets muxed, targets that failed last in it, seconds and bytes of
    the muxed files."""

    start: int
    muxed: int = 0
    failed: int = 0
    media_seconds: float = 0.0
    bytes: int = 0


@dataclass(frozen=True)
class History:
    """What the journal has: how many targets are in each state, the newest finished and failed ones, the hours of the last
    day and the running one, oldest first, and samples of the backlog. ``problem`` = why it could not be read."""

    counts: dict[str, int] = field(default_factory=dict)
    recent: tuple[Row, ...] = ()
    failures: tuple[Row, ...] = ()
    hours: tuple[Hour, ...] = ()
    samples: tuple[Sample, ...] = ()
    problem: str = ""


def read(path: Path | None, now: float) -> History:
    """Given where the journal lies (None = there is none) and the time, return what it tells; its problem when it cannot be
    read within half a second."""
    if path is None:
        return History(hours=_every_hour({}, now))
    try:
        with _reading(path) as database:
            return _history(database, now)
    except (sqlite3.Error, ValueError, OSError) as error:
        return History(hours=_every_hour({}, now), problem=f"the journal cannot be read at the moment: {error}")


def failures(path: Path, states: Sequence[str]) -> tuple[Row, ...]:
    """Given where the journal lies, return all targets in some states of failure, newest first. Raise ``sqlite3.Error``."""
    marks = ", ".join("?" * len(states))
    with _reading(path) as database:
        return tuple(map(_row, database.execute(f"{_ROW} IN ({marks}) ORDER BY updated DESC", tuple(states))))


def by_code(path: Path) -> list[tuple[str, str, int]]:
    """Given where the journal lies, return how many targets have failed with which code and are in which state, most of
    them first; nothing when it cannot be read."""
    count = "SELECT code, state, count(*) FROM targets WHERE state IN (?, ?) GROUP BY 1, 2 ORDER BY 3 DESC, 1"
    with contextlib.suppress(sqlite3.Error, OSError), _reading(path) as database:
        return [(code, state, number) for code, state, number in database.execute(count, (ASIDE, RETRY))]
    return []


def counts(path: Path | None) -> dict[str, int] | None:
    """Given where the journal lies, return how many targets are in each state; None when that cannot be read."""
    if path is None:
        return None
    try:
        with _reading(path) as database:
            return _counts(database)
    except (sqlite3.Error, ValueError, OSError):
        return None


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection that can only read: one transaction, so that all numbers are of one moment."""
    address = f"{path.resolve().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True, timeout=LOCK_SECONDS, isolation_level=None)) as database:
        database.execute("BEGIN")
        yield database


def _history(database: sqlite3.Connection, now: float) -> History:
    hours = {row[0]: Hour(row[0], row[1], row[2], row[3], int(row[4])) for row in database.execute(_HOURS, (_first(now),))}
    newest = "ORDER BY updated DESC LIMIT ?"
    # One that is tried again at this moment has failed too.
    failures = database.execute(f"{_ROW} <> ? AND attempts > 0 {newest}", (DONE, FAILURES))
    samples = database.execute("SELECT * FROM samples WHERE at >= ? ORDER BY at", (now - HOURS * HOUR,)).fetchall()
    return History(
        counts=_counts(database),
        recent=tuple(map(_row, database.execute(f"{_ROW} = ? {newest}", (DONE, RECENT)))),
        failures=tuple(map(_row, failures)),
        hours=_every_hour(hours, now),
        samples=tuple(Sample(*row) for row in samples[:: max(1, math.ceil(len(samples) / SAMPLES))]),
    )


def _counts(database: sqlite3.Connection) -> dict[str, int]:
    return dict(database.execute("SELECT state, count(*) FROM targets GROUP BY state").fetchall())


def _row(values: tuple[Any, ...]) -> Row:
    name, recording, agent, state, attempts, retry_at, code, error, reason, facts, updated = values
    return Row(name, recording, agent, state, attempts, retry_at, code, error, reason, json.loads(facts), updated)


def _first(now: float) -> int:
    return (int(now // HOUR) - HOURS) * HOUR


def _every_hour(known: dict[int, Hour], now: float) -> tuple[Hour, ...]:
    """Return the hours in order, also those in which nothing ended."""
    return tuple(known.get(start, Hour(start)) for start in range(_first(now), int(now) + 1, HOUR))
