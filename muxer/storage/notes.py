"""Notes on disk about the uploads under way: what a process that died has left in a storage can be found and deleted."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from muxer.errors import Permanent, Transient
from muxer.storage.base import Place
from muxer.transfer import private_file

log = logging.getLogger(__name__)


class Notes:
    """The notes of one storage, in a folder that all storages share. Safe to use from any thread."""

    def __init__(self, folder: Path, storage: str) -> None:
        """Given the folder and the storage as :attr:`Place.storage` names it."""
        self._folder = folder
        self._storage = storage
        self._active: set[str] = set()

    @contextmanager
    def during(self, place: Place, upload: str = "") -> Iterator[Path]:
        """Keep a note while something unfinished lies at a place (``upload``: its id, in S3); yield the note's path.

        The note goes when the block ends well; after an error it stays for :meth:`clean`, unless the block removes it.
        """
        text = json.dumps({"place": asdict(place), "upload": upload})
        note = self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
        self._active.add(note.name)
        try:
            with private_file(note) as file:
                file.write(text.encode())
            yield note
            note.unlink(missing_ok=True)
        finally:
            self._active.discard(note.name)

    def clean(self, delete: Callable[[Place, str], None]) -> None:
        """Delete what the notes name, but for those in use, and the notes with it; what fails for now is left to the next
        time."""
        for note in sorted(self._folder.glob("*.json")):
            if note.name in self._active:
                continue
            try:
                kept = json.loads(note.read_text(encoding="utf-8"))
                place, upload = Place(**kept["place"]), str(kept["upload"])
                if place.storage != self._storage:
                    continue
                delete(place, upload)
            except FileNotFoundError:
                continue
            except (ValueError, TypeError, KeyError, Permanent) as error:
                log.warning("%s is of no use and is removed: %s: %s", note.name, type(error).__name__, error)
            except Transient as error:
                log.warning("an unfinished upload is left in the storage for now: %s", error)
                continue
            note.unlink(missing_ok=True)
