"""Records on disk of work that a kill would leave half done, so that a later poll can finish it (write-ahead intent log)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from muxer.errors import Permanent, Transient
from muxer.system import files
from muxer.system.files import open_private

log = logging.getLogger(__name__)


class IntentLog:
    """A folder of intent records, one JSON file each. Safe to use from any thread."""

    def __init__(self, folder: Path, refused: str = "") -> None:
        """With `refused`, a record whose work is refused for good is kept as ``*.refused``, and that text is logged."""
        self._folder, self._refused = folder, refused
        self._changed = threading.Condition()
        self._active: Counter[str] = Counter()
        self._settling: set[str] = set()
        self._refused_records: list[Any] = []

    @contextmanager
    def pending(self, key: str, record: Mapping[str, Any]) -> Iterator[Path]:
        """Keep `record` on disk during the block (after an error, until :meth:`recover`), and yield its path."""
        with self.reserve(key) as path:
            write_record(path, record)
            yield path
            remove_record(path)

    @contextmanager
    def reserve(self, key: str) -> Iterator[Path]:
        """Yield the path of the record for `key`, which :meth:`recover` leaves alone; wait while it is settled."""
        path = self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
        with self._changed:
            self._changed.wait_for(lambda: path.name not in self._settling)
            self._active[path.name] += 1
        try:
            yield path
        finally:
            with self._changed:
                self._active[path.name] -= 1
                self._active += Counter()  # Drops those that are no longer in use.

    def recover(self, settle: Callable[[Any], bool], later: str, level: int = logging.WARNING) -> None:
        """Call `settle` with each free record, and remove it when that returns True.

        An unreadable or refused record is removed. One that fails for now stays, logged with `later` at `level`.
        """
        for fresh in self._folder.glob("*.new"):
            with self._changed:
                # The process died while it wrote this record: the work had not begun.
                if fresh.with_suffix(".json").name not in self._active:
                    remove_record(fresh)
        for path in sorted(self._folder.glob("*.json")):
            with self._changed:
                if path.name in self._active:
                    continue
                self._settling.add(path.name)
            try:
                if self._settle_record(path, settle, later, level):
                    remove_record(path)
            finally:
                with self._changed:
                    self._settling.discard(path.name)
                    self._changed.notify_all()

    def unfinished_records(self) -> list[Any]:
        """Return the records whose work is not done, and those whose work was refused in this run."""
        found = list(self._refused_records)
        for path in sorted(self._folder.glob("*.json")):
            with contextlib.suppress(OSError, ValueError):
                found.append(json.loads(path.read_text(encoding="utf-8")))
        return found

    def settle_reserved(self, path: Path, settle: Callable[[Any], bool]) -> bool:
        """Do for one record, which the caller has reserved, what :meth:`recover` does. Returns whether there was one.

        Raises Transient and OSError when it fails for now.
        """
        if not files.exists(path):
            return False
        if self._settle_usable(path, settle):
            remove_record(path)
        return True

    def _settle_record(self, path: Path, settle: Callable[[Any], bool], later: str, level: int) -> bool:
        try:
            return self._settle_usable(path, settle)
        except (Transient, OSError) as error:
            log.log(level, "%s (%s): %s", later, path, error)
            return False

    def _settle_usable(self, path: Path, settle: Callable[[Any], bool]) -> bool:
        try:
            return self._settle_or_set_aside(path, settle)
        except FileNotFoundError:
            return False
        except (ValueError, TypeError, KeyError, Permanent) as error:
            log.warning("the record %s cannot be used and is removed: %s: %s", path, type(error).__name__, error)
            return True

    def _settle_or_set_aside(self, path: Path, settle: Callable[[Any], bool]) -> bool:
        record = json.loads(path.read_text(encoding="utf-8"))
        try:
            return settle(record)
        except Permanent as error:
            if not self._refused:
                raise
            self._refused_records.append(record)
            log.error("%s; they are kept in %s: %s", self._refused, path.with_suffix(".refused"), error)
            files.replace_file(path, path.with_suffix(".refused"))
            return False


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write `record` whole or not at all: a full disk or a kill must not damage the one that `path` holds already."""
    fresh = path.with_suffix(".new")
    try:
        with open_private(fresh) as file:
            file.write(json.dumps(record).encode())
        files.replace_file(fresh, path)
    except BaseException:
        remove_record(fresh)
        raise


def remove_record(path: Path) -> None:
    """Delete the record `path`. A failure is logged only: the next poll finds the record again."""
    try:
        files.remove_file(path)
    except OSError as error:
        log.warning("the record %s cannot be deleted now; retrying at the next poll: %s", path, error)
