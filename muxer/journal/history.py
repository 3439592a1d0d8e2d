"""Reads the history of the last day from the journal, without delaying the running muxer."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muxer.journal.correction_need import FailuresSinceMuxed
from muxer.journal.journal import DONE, QUEUED, RETRY, RUNNING, SET_ASIDE, WANTED, BacklogSample

MAX_SHOWN_FINISHED = 50
MAX_SHOWN_FAILURES = 100
MAX_SAMPLES = 300
HOUR_SECONDS = 3600
SHOWN_HOURS = 24
READ_TIMEOUT_SECONDS = 0.5

_FIELDS = "name, recording, agent, state, attempts, retry_at, code, error, reason, facts, updated"
_SELECT_TARGETS = f"SELECT {_FIELDS} FROM targets WHERE state"
_SELECT_HOURS = """
SELECT CAST(updated / 3600 AS INTEGER) * 3600, sum(state = 'done' AND json_extract(facts, '$.method') IS NOT NULL),
    sum(state <> 'done'), total(json_extract(facts, '$.length')), total(json_extract(facts, '$.bytes'))
FROM targets WHERE (state = 'done' OR attempts > 0) AND updated >= ? GROUP BY 1
"""

_SELECT_LAST_MUXED = """
SELECT updated FROM targets WHERE state = 'done' AND json_extract(facts, '$.method') IS NOT NULL
ORDER BY updated DESC LIMIT 1
"""
# All states but `done`, by name: so the index of states and times is used.
_COUNT_RECORDINGS = """
SELECT code, count(DISTINCT recording) FROM targets
WHERE state IN (?, ?, ?, ?, ?) AND updated > ? AND attempts > 0 GROUP BY 1
"""


@dataclass(frozen=True)
class TargetRecord:
    """A target in the journal. `facts` are the fields of its log line with its ``timeline``; empty until it is done."""

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
class HourCounts:
    """The hour from `start` on: muxed targets, targets that failed last in it, seconds and bytes of muxed files."""

    start: int
    muxed: int = 0
    failed: int = 0
    media_seconds: float = 0.0
    bytes: int = 0


@dataclass(frozen=True)
class JournalHistory:
    """Content of the journal: hours (oldest first, a day) and the newest targets. `problem`: why it is unreadable."""

    counts: dict[str, int] = field(default_factory=dict)
    recent: tuple[TargetRecord, ...] = ()
    failures: tuple[TargetRecord, ...] = ()
    hours: tuple[HourCounts, ...] = ()
    samples: tuple[BacklogSample, ...] = ()
    since_muxed: FailuresSinceMuxed = field(default_factory=FailuresSinceMuxed)
    problem: str = ""


def read_history(path: Path | None, now: float) -> JournalHistory:
    """Read the journal at `path` (None: there is none). `problem` is set when it cannot be read in time."""
    if path is None:
        return JournalHistory(hours=_fill_hours({}, now))
    try:
        with _read_transaction(path) as database:
            return _query_history(database, now)
    except (sqlite3.Error, ValueError, OSError) as error:
        return JournalHistory(hours=_fill_hours({}, now), problem=f"the journal cannot be read now: {error}")


def read_failures(path: Path, states: Sequence[str]) -> tuple[TargetRecord, ...]:
    """Return all targets in one of `states`, newest first. Raises sqlite3.Error."""
    marks = ", ".join("?" * len(states))
    with _read_transaction(path) as database:
        rows = database.execute(f"{_SELECT_TARGETS} IN ({marks}) ORDER BY updated DESC", tuple(states))
        return tuple(map(_to_record, rows))


def count_by_code(path: Path) -> list[tuple[str, str, int]]:
    """Return the number of failed targets by code and state, the largest first; empty when the journal cannot be read."""
    count = "SELECT code, state, count(*) FROM targets WHERE state IN (?, ?) GROUP BY 1, 2 ORDER BY 3 DESC, 1"
    with contextlib.suppress(sqlite3.Error, OSError), _read_transaction(path) as database:
        return [(code, state, number) for code, state, number in database.execute(count, (SET_ASIDE, RETRY))]
    return []


def read_failures_since_muxed(path: Path | None) -> FailuresSinceMuxed | None:
    """Return what has failed since the last recording was muxed; None when the journal cannot be read."""
    if path is None:
        return None
    with contextlib.suppress(sqlite3.Error, OSError), _read_transaction(path) as database:
        return _query_failures_since_muxed(database)
    return None


def read_counts(path: Path | None) -> dict[str, int] | None:
    """Return the number of targets by state, None when the journal cannot be read."""
    if path is None:
        return None
    try:
        with _read_transaction(path) as database:
            return _count_states(database)
    except (sqlite3.Error, ValueError, OSError):
        return None


@contextmanager
def _read_transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a read-only connection in one transaction, so that all numbers are consistent."""
    # Path.resolve raises RuntimeError for a link that leads to itself, before Python 3.13.
    address = f"{Path(os.path.realpath(path)).as_uri()}?mode=ro"
    with contextlib.closing(
        sqlite3.connect(address, uri=True, timeout=READ_TIMEOUT_SECONDS, isolation_level=None)
    ) as database:
        database.execute("BEGIN")
        yield database


def _query_history(database: sqlite3.Connection, now: float) -> JournalHistory:
    rows = database.execute(_SELECT_HOURS, (_first_hour(now),))
    hours = {row[0]: HourCounts(row[0], row[1], row[2], row[3], int(row[4])) for row in rows}
    newest = "ORDER BY updated DESC LIMIT ?"
    # A target that is being retried now counts as failed, too.
    failures = database.execute(f"{_SELECT_TARGETS} <> ? AND attempts > 0 {newest}", (DONE, MAX_SHOWN_FAILURES))
    since = now - SHOWN_HOURS * HOUR_SECONDS
    samples = database.execute("SELECT * FROM samples WHERE at >= ? ORDER BY at", (since,)).fetchall()
    return JournalHistory(
        counts=_count_states(database),
        recent=tuple(map(_to_record, database.execute(f"{_SELECT_TARGETS} = ? {newest}", (DONE, MAX_SHOWN_FINISHED)))),
        failures=tuple(map(_to_record, failures)),
        hours=_fill_hours(hours, now),
        samples=tuple(BacklogSample(*row) for row in samples[:: max(1, math.ceil(len(samples) / MAX_SAMPLES))]),
        since_muxed=_query_failures_since_muxed(database),
    )


def _query_failures_since_muxed(database: sqlite3.Connection) -> FailuresSinceMuxed:
    row = database.execute(_SELECT_LAST_MUXED).fetchone()
    last = None if row is None else row[0]
    states = (WANTED, QUEUED, RUNNING, RETRY, SET_ASIDE)
    return FailuresSinceMuxed(last, dict(database.execute(_COUNT_RECORDINGS, (*states, last or 0.0)).fetchall()))


def _count_states(database: sqlite3.Connection) -> dict[str, int]:
    return dict(database.execute("SELECT state, count(*) FROM targets GROUP BY state").fetchall())


def _to_record(values: tuple[Any, ...]) -> TargetRecord:
    name, recording, agent, state, attempts, retry_at, code, error, reason, facts, updated = values
    return TargetRecord(name, recording, agent, state, attempts, retry_at, code, error, reason, json.loads(facts), updated)


def _first_hour(now: float) -> int:
    return (int(now // HOUR_SECONDS) - SHOWN_HOURS) * HOUR_SECONDS


def _fill_hours(hours: dict[int, HourCounts], now: float) -> tuple[HourCounts, ...]:
    """Return all hours in order, with empty ones for those that `hours` lacks."""
    return tuple(hours.get(start, HourCounts(start)) for start in range(_first_hour(now), int(now) + 1, HOUR_SECONDS))
