"""Notes on disk about work that a kill would leave half done in a storage, so that a later poll can finish it."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from muxer.errors import Permanent, Transient
from muxer.storage.base import MediaLocation
from muxer.system import files
from muxer.system.files import open_private

log = logging.getLogger(__name__)

_lock = threading.Lock()
_folders: WeakValueDictionary[Path, IntentLog] = WeakValueDictionary()


class IntentLog:
    """A folder of notes, one file each. Safe to use from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._changed = threading.Condition()
        self._active: set[str] = set()
        self._settling: set[str] = set()

    @contextmanager
    def pending(self, content: Mapping[str, Any], **more: Any) -> Iterator[Path]:
        """Keep a note while the block runs; yield its path. It goes when the block ends well; after an error it stays for
        :meth:`finish`, unless the block removes it. Waits while the same work of earlier is being finished.

        The same ``content`` has one note, whatever stands there ``more``.
        """
        note = self._folder / f"{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]}.json"
        text = json.dumps({**content, **more})
        with self._changed:
            self._changed.wait_for(lambda: note.name not in self._settling)
            self._active.add(note.name)
        try:
            self._write_record(note, text)
            yield note
            remove_record(note)
        finally:
            self._active.discard(note.name)

    def _write_record(self, note: Path, text: str) -> None:
        """Put a note there whole or not at all: one of earlier must not be lost when the disk is full, or by a kill."""
        fresh = note.with_suffix(".new")
        try:
            with open_private(fresh) as file:
                file.write(text.encode())
            files.replace_file(fresh, note)
        except BaseException:
            remove_record(fresh)
            raise

    def recover(self, settle: Callable[[Any], bool], later: str) -> None:
        """Let ``settle`` do what is left of each note that no block holds; remove the note when it returns True.

        A note that cannot be read, or fails for good, is removed with a warning; one that fails for now stays, which the
        words ``later`` say.
        """
        for fresh in self._folder.glob("*.new"):
            with self._changed:
                # The process died while it wrote this one: what it is about had not begun.
                if fresh.with_suffix(".json").name not in self._active:
                    remove_record(fresh)
        for note in sorted(self._folder.glob("*.json")):
            with self._changed:
                if note.name in self._active:
                    continue
                self._settling.add(note.name)
            try:
                if self._settle_record(note, settle, later):
                    remove_record(note)
            finally:
                with self._changed:
                    self._settling.discard(note.name)
                    self._changed.notify_all()

    def _settle_record(self, note: Path, settle: Callable[[Any], bool], later: str) -> bool:
        try:
            return settle(json.loads(note.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return False
        except (ValueError, TypeError, KeyError, Permanent) as error:
            log.warning("%s is of no use and is removed: %s: %s", note.name, type(error).__name__, error)
            return True
        except Transient as error:
            log.warning("%s: %s", later, error)
            return False
        except OSError as error:
            log.warning("%s, %s cannot be used: %s", later, note, error)
            return False


def remove_record(path: Path) -> None:
    """Delete a note. One that cannot be deleted is left to the next poll, and keeps nothing else from being done."""
    try:
        files.remove_file(path)
    except OSError as error:
        log.warning("%s cannot be deleted now, tried at the next poll: %s", path, error)


class UploadIntents:
    """The notes of the uploads to one storage, in a folder that all storages share. Safe to use from any thread."""

    def __init__(self, folder: Path, storage: str) -> None:
        """Given the folder and the storage as :attr:`Place.storage` names it."""
        # One for all storages: what another one is just writing is no left-over.
        with _lock:
            self._notes = _folders.setdefault(folder.absolute(), IntentLog(folder))
        self._storage = storage

    @contextmanager
    def pending_upload(self, place: MediaLocation, upload: str = "") -> Iterator[Path]:
        """Keep a note while something unfinished lies at a place (``upload``: its id, in S3); yield the note's path, see
        :meth:`NoteFolder.during`."""
        with self._notes.pending({"place": asdict(place), "upload": upload}) as note:
            yield note

    def delete_unfinished(self, delete: Callable[[MediaLocation, str], None]) -> None:
        """Delete what the notes name, but for those in use, and the notes with it; what fails for now is left to the next
        time."""

        def settle_upload(kept: Any) -> bool:
            place, upload = MediaLocation(**kept["place"]), str(kept["upload"])
            if place.storage != self._storage:
                return False
            delete(place, upload)
            return True

        self._notes.recover(settle_upload, "an unfinished upload is left in the storage for now")
