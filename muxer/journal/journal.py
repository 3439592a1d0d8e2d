"""The journal: the state of each target, on disk, so that a restart knows what failed and when to retry it.

RWS remains the source of truth: a lost journal costs only some attempts. Memory decides; the database follows.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sqlite3
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from muxer.journal.retry_policy import MAX_DELAY_SECONDS, Failure, FailureRecord, classify_error, next_record
from muxer.system import files
from muxer.system.masking import Mask

log = logging.getLogger(__name__)

# The oldest failed targets are forgotten first.
MAX_FAILURES_IN_MEMORY = 100_000
MAX_DONE_IN_MEMORY = 100_000
# For how long finished targets stay readable, and how many at most.
MAX_TARGET_AGE_SECONDS = 7 * 86_400.0
MAX_DONE_TARGETS = 200_000
# How long to wait for another process that locks the journal; after that, no call waits until it is free.
LOCK_TIMEOUT_SECONDS = 2.0
MAX_REASON_LENGTH = 2000
JOURNAL_FILE = "journal.sqlite3"

# Wanted targets wait in this process, queued ones in the broker of a fleet.
WANTED, QUEUED, RUNNING, DONE, RETRY, SET_ASIDE = "wanted", "queued", "running", "done", "retry", "aside"

# The version of the schema. A journal with another one is replaced.
_VERSION = 1
_SCHEMA = """
CREATE TABLE targets (
    name TEXT PRIMARY KEY, recording TEXT NOT NULL, agent TEXT NOT NULL, state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, permanent INTEGER NOT NULL DEFAULT 0, retry_at REAL,
    code TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '',
    facts TEXT NOT NULL DEFAULT '{}', updated REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX by_state ON targets (state, updated);
CREATE TABLE samples (
    at INTEGER PRIMARY KEY, running INTEGER NOT NULL, queued INTEGER NOT NULL, waiting INTEGER NOT NULL, oldest_open REAL
);
"""
_UPSERT_TARGET = """
INSERT INTO targets (name, recording, agent, state, attempts, permanent, retry_at, code, error, reason, facts, updated)
VALUES (:name, :recording, :agent, :state, :attempts, :permanent, :retry_at, :code, :error, :reason, :facts, :updated)
ON CONFLICT (name) DO UPDATE SET state = excluded.state, attempts = excluded.attempts, permanent = excluded.permanent,
    retry_at = excluded.retry_at, code = excluded.code, error = excluded.error, reason = excluded.reason,
    facts = excluded.facts, updated = excluded.updated
"""

_RELEASE_RUNNING = "UPDATE targets SET state = ? WHERE state = 'running'"

_INSERT_SAMPLE = "INSERT OR REPLACE INTO samples VALUES (:at, :running, :queued, :waiting, :oldest_open)"

# Errors that a sound journal may raise: the database is tried again later.
_TEMPORARY_ERRORS = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)


@dataclass(frozen=True)
class TargetKey:
    """Identifies a target: its name (derived from its sources alone), its recording and its agent."""

    name: str
    recording: str
    agent: str = ""


@dataclass(frozen=True)
class BacklogSample:
    """The backlog after a poll. `oldest_open` is when the oldest call began whose target is not done, if any."""

    at: int
    running: int
    queued: int
    waiting: int
    oldest_open: float | None


class Journal:
    """The states of the targets of this instance. Safe to use from any thread; times are epoch seconds."""

    def __init__(self, path: Path | None, mask: Mask | None = None, left: str = WANTED) -> None:
        """Open the database (None: in memory only). `left` is the state of targets that ran when a process ended."""
        self._lock = threading.Lock()
        self._path = path
        self._mask = mask or Mask()
        self._left = left
        self._failures: OrderedDict[str, FailureRecord] = OrderedDict()
        # The latest targets that were muxed since the start.
        self._done: OrderedDict[str, None] = OrderedDict()
        # Rows that could not be written yet, by target name.
        self._unwritten: OrderedDict[str, dict[str, object]] = OrderedDict()
        self._database: sqlite3.Connection | None = None
        self._seen_version = -1
        self._has_warned = False
        if path is not None:
            self._open_database(path)

    def may_run(self, name: str, now: float) -> bool:
        """Whether the target `name` may be tried at `now`."""
        with self._lock:
            entry = self._failures.get(name)
        if entry is None:
            return True
        # A clock that was set back must not keep a target waiting.
        return entry.retry_at is not None and not now < entry.retry_at < now + 2 * MAX_DELAY_SECONDS

    def is_done(self, name: str) -> bool:
        """Whether the target `name` was muxed since the start, as far as that is remembered."""
        with self._lock:
            return name in self._done

    def record_wanted(self, key: TargetKey, now: float) -> None:
        """Record that a target waits for a worker."""
        self._record_state(key, WANTED, now)

    def record_queued(self, key: TargetKey, now: float, message: str) -> None:
        """Record that the task of a target is in the broker; `message` is its id."""
        self._record_state(key, QUEUED, now, message)

    def record_running(self, key: TargetKey, now: float, message: str = "") -> None:
        """Record that a worker has started a target; in a fleet, `message` is the id of its task."""
        self._record_state(key, RUNNING, now, message)

    def state_of(self, name: str) -> str:
        """Return the state of the target `name`, empty when it is unknown."""
        with self._lock, self._transaction() as database:
            if database is not None:
                row = database.execute("SELECT state FROM targets WHERE name = ?", (name,)).fetchone()
                return str(row[0]) if row else ""
        return ""

    def outstanding(self) -> list[tuple[TargetKey, float, str]]:
        """Return the queued targets, each with the time since when and the id of its task."""
        query = "SELECT name, recording, agent, updated, facts FROM targets WHERE state = ?"
        with self._lock, self._transaction() as database:
            if database is not None:
                rows = database.execute(query, (QUEUED,)).fetchall()
                return [(TargetKey(*key), at, str(json.loads(facts).get("message", ""))) for *key, at, facts in rows]
        return []

    def record_done(self, key: TargetKey, now: float, facts: Mapping[str, object], *, is_muxed: bool = False) -> None:
        """Record that a target is done, with the fields of its log line, and forget its failures.

        One that is not muxed may have changed sources, so that only RWS knows whether its call is done.
        """
        with self._lock:
            self._failures.pop(key.name, None)
            if is_muxed:
                self._done[key.name] = None
            if len(self._done) > MAX_DONE_IN_MEMORY:
                self._done.popitem(last=False)
            self._write_target(key, DONE, None, now, json.dumps(facts, default=str))

    def record_failure(self, key: TargetKey, error: Exception | Failure, now: float) -> FailureRecord:
        """Record a failure, and return when the target is retried."""
        failure = error if isinstance(error, Failure) else classify_error(error)
        with self._lock:
            earlier = self._failures.pop(key.name, None)
            self._done.pop(key.name, None)
            earlier = earlier or FailureRecord(0, 0, now, "", "", "")
            entry = self._failures[key.name] = next_record(failure, self._storable_reason(failure.reason), earlier, now)
            if len(self._failures) > MAX_FAILURES_IN_MEMORY:
                self._failures.popitem(last=False)
            self._write_target(key, SET_ASIDE if entry.retry_at is None else RETRY, entry, now)
        return entry

    def has_external_changes(self) -> bool:
        """Whether another process has changed the journal since :meth:`reload_changes`."""
        with self._lock, self._transaction() as database:
            if database is not None and self._seen_version >= 0:
                return bool(database.execute("PRAGMA data_version").fetchone()[0] != self._seen_version)
        return False

    def reload_changes(self, now: float) -> None:
        """Load what another process has changed, such as a target that the operator requeued, and delete old rows."""
        with self._lock, self._transaction() as database:
            if database is None:
                self._reopen_with_memory()
                return
            [version] = database.execute("PRAGMA data_version").fetchone()
            if version != self._seen_version:
                self._seen_version = version
                self._load_failures(database)
            for (name,) in database.execute(
                "SELECT name FROM targets WHERE updated < ?", (now - MAX_TARGET_AGE_SECONDS,)
            ).fetchall():
                self._failures.pop(name, None)
            database.execute("DELETE FROM targets WHERE updated < ?", (now - MAX_TARGET_AGE_SECONDS,))
            database.execute("DELETE FROM samples WHERE at < ?", (now - MAX_TARGET_AGE_SECONDS,))
            excess = database.execute("SELECT count(*) FROM targets WHERE state = 'done'").fetchone()[0] - MAX_DONE_TARGETS
            if excess > 0:
                old = "SELECT name FROM targets WHERE state = 'done' ORDER BY updated LIMIT ?"
                database.execute(f"DELETE FROM targets WHERE name IN ({old})", (excess,))

    def reopen_database(self) -> None:
        """Reopen or recreate the database after its folder was removed. The state in memory stays."""
        with self._lock:
            self._close_database()
            self._reopen_with_memory()

    def record_sample(self, sample: BacklogSample) -> None:
        """Store a sample of the backlog."""
        with self._lock, self._transaction() as database:
            if database is not None:
                database.execute(_INSERT_SAMPLE, vars(sample))

    @property
    def is_persistent(self) -> bool:
        """Whether records reach the disk, or are not meant to."""
        return self._path is None or (self._database is not None and not self._has_warned)

    def close(self) -> None:
        """Release running targets, and close the database."""
        with self._lock:
            with self._transaction() as database:
                if database is not None:
                    self._flush(database)
                    database.execute(_RELEASE_RUNNING, (self._left,))
            self._close_database()

    def _storable_reason(self, reason: str) -> str:
        """Return the text of an error with masked secrets and limited length: services may echo anything."""
        return self._mask(reason).encode(errors="backslashreplace").decode()[:MAX_REASON_LENGTH]

    def _record_state(self, key: TargetKey, state: str, now: float, message: str = "") -> None:
        facts = json.dumps({"message": message}) if message else "{}"
        with self._lock:
            self._write_target(key, state, self._failures.get(key.name), now, facts)

    def _open_database(self, path: Path) -> None:
        """Open the database. One that is unusable is replaced; if that fails, continue in memory."""
        for attempt in range(2):
            try:
                self._database = _connect_database(path, 0.0 if self._has_warned else LOCK_TIMEOUT_SECONDS, self._left)
                self._load_failures(self._database)
                [self._seen_version] = self._database.execute("PRAGMA data_version").fetchone()
                return
            except (sqlite3.Error, OSError, ValueError, TypeError) as error:
                self._close_database()
                if _is_temporary(error):
                    self._warn_once("the journal cannot be used now and is kept in memory; retrying at each poll", error)
                    return
                self._warn_once(
                    f"the journal {path.name} cannot be used and is replaced by a new one; RWS knows what is done", error
                )
                if attempt == 0:
                    _set_aside_corrupt(path)

    def _close_database(self) -> None:
        """Close the database: Windows does not move a file that is open."""
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
        self._database = None

    def _reopen_with_memory(self) -> None:
        """Try to open the database again; failures that were recorded since then take precedence."""
        if self._path is not None:
            recent = self._failures
            self._open_database(self._path)
            self._failures |= recent

    def _warn_once(self, what: str, error: Exception) -> None:
        """Log once that the journal cannot be used, and do not wait for locks until it can."""
        if not self._has_warned:
            log.warning("%s: %s", what, error)
        self._has_warned = True
        self._set_busy_timeout(0.0)

    def _set_busy_timeout(self, seconds: float) -> None:
        if self._database is not None:
            self._database.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")

    def _load_failures(self, database: sqlite3.Connection) -> None:
        self._flush(database)
        query = "SELECT name, attempts, permanent, retry_at, code, error, reason FROM targets"
        failed = f"{query} WHERE state <> 'done' AND attempts > 0 ORDER BY updated DESC LIMIT ?"
        rows = database.execute(failed, (MAX_FAILURES_IN_MEMORY,)).fetchall()
        self._failures = OrderedDict((row[0], FailureRecord(*row[1:])) for row in reversed(rows))

    def _write_target(self, key: TargetKey, state: str, entry: FailureRecord | None, now: float, facts: str = "{}") -> None:
        entry = entry or FailureRecord(0, 0, None, "", "", "")
        if self._path is None:
            return
        self._unwritten[key.name] = {**vars(key), **vars(entry), "state": state, "facts": facts, "updated": now}
        if len(self._unwritten) > MAX_FAILURES_IN_MEMORY:
            self._unwritten.popitem(last=False)
        with self._transaction() as database:
            if database is not None:
                self._flush(database)

    def _flush(self, database: sqlite3.Connection) -> None:
        while self._unwritten:
            name, row = next(iter(self._unwritten.items()))
            database.execute(_UPSERT_TARGET, row)
            del self._unwritten[name]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection | None]:
        """Yield the database, None when there is none. A corrupt one is replaced; others are retried at the next change."""
        try:
            yield self._database
            if self._has_warned and self._database is not None:
                self._has_warned = False
                self._set_busy_timeout(LOCK_TIMEOUT_SECONDS)
        except sqlite3.OperationalError as error:
            self._warn_once("the journal cannot be written now and is kept in memory; retrying at the next change", error)
        except sqlite3.Error as error:
            log.warning("the journal is corrupt and is replaced by a new one; RWS knows what is done: %s", error)
            self._close_database()
            if self._path is not None:
                _set_aside_corrupt(self._path)
                self._open_database(self._path)


def _is_temporary(error: Exception) -> bool:
    """Whether a sound journal may raise this, for example because the disk is full or another process locks it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if sys.platform == "win32" and (isinstance(error, PermissionError) or code == sqlite3.SQLITE_CANTOPEN):
        return True  # Windows does not open a file that another program has opened for itself.
    return isinstance(error, sqlite3.Error) and code in _TEMPORARY_ERRORS


def record_external_success(path: Path, key: TargetKey, now: float, facts: Mapping[str, object]) -> None:
    """Record a success in the database of an instance, which may run; it is unchanged when it cannot be written."""
    nothing = vars(FailureRecord(0, 0, None, "", "", ""))
    row = {**vars(key), **nothing, "state": DONE, "facts": json.dumps(facts, default=str), "updated": now}
    with contextlib.suppress(sqlite3.Error):
        database = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)
        with contextlib.closing(database), database:
            database.execute(_UPSERT_TARGET, row)


def _create_private(path: Path) -> None:
    """Create the file if it is missing. Raises OSError when it is a link, or of another account, which could read it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        if hasattr(os, "getuid") and os.fstat(descriptor).st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "it belongs to another account", str(path))
    finally:
        os.close(descriptor)


def _connect_database(path: Path, timeout: float, left: str) -> sqlite3.Connection:
    files.retry_while_busy(lambda: _create_private(path), timeout)
    database = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        [version] = database.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise ValueError(f"its schema has version {version}")
        if version == 0:
            database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
        if database.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("the database is damaged")
        database.execute(_RELEASE_RUNNING, (left,))
    except BaseException:
        database.close()
        raise
    return database


def _set_aside_corrupt(path: Path) -> None:
    with contextlib.suppress(OSError):
        files.replace_file(path, path.with_suffix(".corrupt"))
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(OSError):
            files.remove_file(path.with_name(path.name + suffix))


def reset_failures(path: Path, now: float, *, recording: str | None = None, code: str | None = None) -> list[str]:
    """Reset failed targets, of one `recording` or `code` if given; return their names. Raises sqlite3.Error."""
    update = "UPDATE targets SET state = 'wanted', attempts = 0, permanent = 0, retry_at = NULL, updated = ?"
    which = "WHERE state IN (?, ?) AND recording = coalesce(?, recording) AND code = coalesce(?, code) RETURNING name"
    with contextlib.closing(sqlite3.connect(path, timeout=LOCK_TIMEOUT_SECONDS, isolation_level=None)) as database:
        rows = database.execute(f"{update} {which}", (now, RETRY, SET_ASIDE, recording, code)).fetchall()
    return [name for (name,) in rows]


def epoch_now() -> float:
    """Return the time of the journal: epoch seconds, which a restart does not change."""
    return time.time()
