"""Intent records of unfinished uploads, so that a later poll can delete what a killed process left in a storage."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from muxer.storage.base import MediaLocation
from muxer.system.intent_log import IntentLog
from muxer.system.json_codec import from_json

_lock = threading.Lock()
_folders: WeakValueDictionary[Path, IntentLog] = WeakValueDictionary()


class UploadIntents:
    """The records of the uploads to one storage, in a folder that all storages share. Safe to use from any thread."""

    def __init__(self, folder: Path, storage: str) -> None:
        # One log for all storages: a record that another storage is just writing is in use.
        with _lock:
            self._records = _folders.setdefault(folder.absolute(), IntentLog(folder))
        self._storage = storage

    @contextmanager
    def pending_upload(self, location: MediaLocation, upload: str = "") -> Iterator[Path]:
        """Keep a record while an upload (in S3: `upload`) may be unfinished; see :meth:`IntentLog.pending`."""
        record = {"place": asdict(location), "upload": upload}
        with self._records.pending(json.dumps(record), record) as path:
            yield path

    def delete_unfinished(self, delete: Callable[[MediaLocation, str], None]) -> None:
        """Call `delete` for each recorded upload of this storage that is not in use, and remove its record."""

        def settle_upload(record: Any) -> bool:
            location, upload = from_json(MediaLocation, record["place"]), str(record["upload"])
            if location.storage != self._storage:
                return False
            delete(location, upload)
            return True

        self._records.recover(settle_upload, "an unfinished upload is left in the storage for now")
