"""What an audit has found, in a SQLite file: memory does not grow, and a stopped audit goes on where it was."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from muxer.audit.call_rules import CallVerdict, Recipients
from muxer.audit.findings import Finding, FindingKind
from muxer.errors import Code, ConfigError, LocalResourceError, Problem
from muxer.system import files

LEDGER_FILE = "audit.sqlite3"
_VERSION = 2
_DIGEST_BYTES = 10
HOUR_SECONDS = 3600
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE seen (id BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE findings (
    number INTEGER PRIMARY KEY, kind TEXT NOT NULL, recording TEXT NOT NULL, file TEXT NOT NULL, detail TEXT NOT NULL,
    target TEXT NOT NULL, started REAL, repair TEXT NOT NULL DEFAULT '', UNIQUE (kind, recording, file)
);
CREATE TABLE hours (hour INTEGER PRIMARY KEY, calls INTEGER NOT NULL, files INTEGER NOT NULL);
CREATE TABLE doubtful (recording TEXT, file TEXT, recipients TEXT, started REAL, PRIMARY KEY (recording, file));
CREATE TABLE source_sets (recipients TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE names (name BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE folders (location TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_FINDING = "kind, recording, file, detail, target, started"
COUNTS = ("calls", "with_screens", "files", "pending", "deep")


class AuditLedger:
    """The state of one audit. Safe to use from any thread, but for what yields rows."""

    def __init__(self, path: Path, request: Mapping[str, Any]) -> None:
        """Open or create the file for an audit with these settings.

        Raises ConfigError when it belongs to another audit or is no such file, LocalResourceError when it cannot be written.
        """
        self._path, self._lock = path, threading.RLock()
        try:
            is_new = not files.exists(path) or not path.stat().st_size
            if is_new:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            with contextlib.ExitStack() as opened:
                opened.callback(self._database.close)
                self._prepare(request, is_new=is_new)
                opened.pop_all()
        except (OSError, sqlite3.DatabaseError) as error:
            # SQLITE_ERROR: a database of something else lacks our tables.
            is_foreign = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
            if isinstance(error, (OSError, sqlite3.OperationalError)) and not is_foreign:
                raise _disk_error(path, error) from error
            raise ConfigError([Problem("--state", f"{path} is not the state file of an audit: {error}")]) from error

    def _prepare(self, request: Mapping[str, Any], *, is_new: bool) -> None:
        self._database.execute("PRAGMA synchronous = NORMAL")
        if is_new:
            with self._transaction():
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._database.execute(statement)
                self._write_facts({"version": _VERSION, "request": request})
        self._check_request(request)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _check_request(self, request: Mapping[str, Any]) -> None:
        known = self.read_fact("request", {})
        if self.read_fact("version", 0) != _VERSION:
            raise ConfigError([Problem("--state", f"{self._path} was written by another version; delete it to start again")])
        different = [name for name in request if json.loads(json.dumps(request[name])) != known.get(name)]
        if different:
            what = f"{self._path} belongs to an audit with another {', '.join(different)}; name another file, or delete it"
            raise ConfigError([Problem("--state", what)])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Write all of it or nothing. Raises LocalResourceError when the file cannot be written."""
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield
                except BaseException:
                    # After some errors, such as a full disk, SQLite has done so.
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                    raise
                self._database.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise _disk_error(self._path, error) from error

    def _has_row(self, table: str, column: str, value: bytes) -> bool:
        with self._lock:
            query = f"SELECT 1 FROM {table} WHERE {column} = ?"
            return self._database.execute(query, (value,)).fetchone() is not None

    def read_fact(self, name: str, default: Any) -> Any:
        """Return a fact, `default` when it was not written."""
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return default if row is None else json.loads(row[0])

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Write facts by name."""
        with self._transaction():
            self._write_facts(facts)

    def _write_facts(self, facts: Mapping[str, Any]) -> None:
        rows = [(name, json.dumps(value)) for name, value in facts.items()]
        self._database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def is_seen(self, recording_id: str) -> bool:
        """Whether a call of the current slice was audited already."""
        return self._has_row("seen", "id", _digest(recording_id))

    def record_calls(
        self,
        verdicts: Iterable[tuple[str, float | None, bool, CallVerdict]],
        folders: Iterable[str] = (),
        names: Iterable[str] = (),
    ) -> None:
        """Record audited calls: id, start in epoch seconds, whether it has screen files, and the verdict.

        `folders` contain their muxed files, as texts; `names` are those that their metadata give to muxed files.
        """
        counts: Counter[str] = Counter()
        with self._transaction():
            for recording_id, started, has_screens, verdict in verdicts:
                self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (_digest(recording_id),))
                counts.update(calls=1, with_screens=has_screens, files=verdict.files, pending=verdict.pending)
                counts.update(deep=verdict.compared)
                self._add_findings(verdict.findings)
                hour = int(started or 0) // HOUR_SECONDS
                self._database.execute(
                    "INSERT INTO hours VALUES (?, 1, ?) ON CONFLICT (hour) DO UPDATE SET calls = calls + 1, "
                    "files = files + excluded.files",
                    (hour, verdict.files),
                )
                rows = [(recording_id, file, _encode_set(found), started) for file, found in verdict.doubtful]
                self._database.executemany("INSERT OR IGNORE INTO doubtful VALUES (?, ?, ?, ?)", rows)
                sets = [(_encode_set(one),) for one in verdict.source_sets]
                self._database.executemany("INSERT OR IGNORE INTO source_sets VALUES (?)", sets)
            self._database.executemany("INSERT OR IGNORE INTO folders VALUES (?)", ((one,) for one in folders))
            self._add_names(names)
            self._write_facts({name: self.read_fact(name, 0) + counts[name] for name in COUNTS if counts[name]})

    def _add_findings(self, findings: Iterable[Finding]) -> None:
        rows = ((one.kind.value, one.recording, one.file, one.detail, one.target, one.started) for one in findings)
        self._database.executemany(f"INSERT OR IGNORE INTO findings ({_FINDING}) VALUES (?, ?, ?, ?, ?, ?)", rows)

    def add_findings(self, findings: Iterable[Finding]) -> None:
        """Record findings; one that is known already is not repeated."""
        with self._transaction():
            self._add_findings(findings)

    def record_checked_names(self, names: Iterable[str], findings: Iterable[Finding]) -> None:
        """Record further names that metadata give, and the findings about files without."""
        with self._transaction():
            self._add_names(names)
            self._add_findings(findings)

    def _add_names(self, names: Iterable[str]) -> None:
        self._database.executemany("INSERT OR IGNORE INTO names VALUES (?)", ((_digest(one),) for one in names))

    def is_known_name(self, name: str) -> bool:
        """Whether the metadata of an audited call name a file `name`."""
        return self._has_row("names", "name", _digest(name))

    def read_folders(self) -> list[str]:
        """Return the recorded folders."""
        return [row[0] for row in self._database.execute("SELECT location FROM folders ORDER BY location")]

    def end_slice(self, done: int) -> None:
        """Record that `done` slices are complete."""
        with self._transaction():
            self._database.execute("DELETE FROM seen")
            self._write_facts({"slices_done": done})

    def read_doubtful(self) -> Iterator[tuple[str, str, Recipients, float | None]]:
        """Yield recording, mediaId, recipients and start of the muxed files whose recipients are not the current ones."""
        for recording, file, found, started in self._database.execute(
            "SELECT recording, file, recipients, started FROM doubtful"
        ):
            yield recording, file, _decode_set(found), started

    def read_source_sets(self) -> list[Recipients]:
        """Return each set of recipients that screen files have."""
        return [_decode_set(row[0]) for row in self._database.execute("SELECT recipients FROM source_sets")]

    def read_findings(self) -> Iterator[tuple[Finding, str]]:
        """Yield the findings in the order of their calls, each with what a repair did."""
        query = f"SELECT {_FINDING}, repair FROM findings ORDER BY started IS NULL, started, recording, number"
        for kind, *values, repair in self._database.execute(query):
            yield Finding(FindingKind(kind), *values), repair

    def find_finding(self, kind: FindingKind, recording: str, file: str) -> Finding | None:
        """Return the finding of this kind about a file, None when there is none."""
        query = f"SELECT {_FINDING} FROM findings WHERE kind = ? AND recording = ? AND file = ?"
        row = self._database.execute(query, (kind.value, recording, file)).fetchone()
        return None if row is None else Finding(FindingKind(row[0]), *row[1:])

    def record_repair(self, finding: Finding, what: str) -> None:
        """Record what a repair did about a finding."""
        key = (what, finding.kind.value, finding.recording, finding.file)
        with self._transaction():
            self._database.execute("UPDATE findings SET repair = ? WHERE kind = ? AND recording = ? AND file = ?", key)

    def count_findings(self) -> dict[FindingKind, int]:
        """Return the number of findings of each kind, in the order of :class:`FindingKind`."""
        return self.count_open(())

    def count_open(self, closed: Sequence[str]) -> dict[FindingKind, int]:
        """Return the number of findings of each kind whose repair did not end with one of the texts `closed`."""
        where = f"WHERE repair NOT IN ({', '.join('?' * len(closed))})"
        found = dict(self._database.execute(f"SELECT kind, count(*) FROM findings {where} GROUP BY kind", closed).fetchall())
        return {kind: found[kind.value] for kind in FindingKind if kind.value in found}

    def read_hours(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield the hour (epoch hours), its calls, its muxed files, and its findings."""
        counted = f"SELECT CAST(started AS INTEGER) / {HOUR_SECONDS} AS hour, count(*) AS number FROM findings GROUP BY 1"
        query = (
            f"SELECT hours.hour, calls, files, coalesce(number, 0) FROM hours LEFT JOIN ({counted}) AS counted "
            "ON counted.hour = hours.hour ORDER BY hours.hour"
        )
        yield from self._database.execute(query)


def _disk_error(path: Path, error: Exception) -> LocalResourceError:
    is_full = (
        getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or getattr(error, "errno", None) == errno.ENOSPC
    )
    code = Code.DISK_FULL if is_full else Code.NO_RESOURCES
    return LocalResourceError(f"the state file {path} cannot be written: {error}", code=code)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()


def _encode_set(recipients: Recipients) -> str:
    return json.dumps(sorted(one.hex() for one in recipients))


def _decode_set(text: str) -> Recipients:
    return frozenset(bytes.fromhex(one) for one in json.loads(text))
