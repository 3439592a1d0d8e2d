"""Keeps a muxed file whose upload or publication failed for the next attempt, so that an outage costs no second mux.

Each file has a record with its length, its digest and its media entry. The record is written last: a file without one is
incomplete. A kept file is encrypted where the result must be, and as private as the folder of a job. It is the first thing
to go when the disk is short.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from muxer.errors import MuxerError
from muxer.gir.models import format_time
from muxer.gir.rws import Certificate
from muxer.gir.targets import MuxTarget
from muxer.media.engine import MuxedFile
from muxer.pipeline.workspace import private_folder
from muxer.storage.base import ObjectInfo
from muxer.system import files
from muxer.system.files import open_private

log = logging.getLogger(__name__)

MAX_RESULT_AGE_SECONDS = 86_400.0
MAX_KEPT = 100
# A file whose record is missing for this long belongs to a process that died.
MAX_WRITING_SECONDS = 60.0
_MEDIA, _RECORD = ".media", ".json"
_DIGEST_LENGTH = 20


@dataclass
class MuxResult:
    """A muxed file that is ready to be uploaded: its path, its media entry without a location, and what the finished line
    and the journal show of it. `stored` is what the storage shows of it after the upload, None before."""

    path: Path
    entry: dict[str, Any]
    facts: dict[str, Any]
    timeline: dict[str, Any]
    stored: ObjectInfo | None = None

    @property
    def is_final(self) -> bool:
        """Whether the next attempt would create the same: no source was used that may still grow."""
        return "missing" not in self.facts


class KeptResults:
    """The kept files of one workspace. Safe to use from any thread: a file is taken by a rename, so by one thread only."""

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        """Keep files in `folder`, which is created when it is needed. `options` are those that change a muxed file."""
        self._folder = folder
        self._options = dict(options)

    def store_result(self, target: MuxTarget, name: str, certificates: Sequence[Certificate], result: MuxResult) -> None:
        """Move a `result` out of its job's folder, for the next attempt with the same arguments. One that cannot be kept is
        muxed again."""
        record = self._record_path(target, name, certificates)
        media = record.with_suffix(_MEDIA)
        try:
            private_folder(self._folder)
            content = {
                "length": result.path.stat().st_size,
                "sha256": _file_digest(result.path),
                "entry": result.entry,
                "facts": result.facts,
                "timeline": result.timeline,
                "stored": None if result.stored is None else vars(result.stored),
            }
            result.path.chmod(0o600)
            files.replace_file(result.path, media)
            fresh = record.with_suffix(".new")
            with open_private(fresh) as file:
                file.write(json.dumps(content).encode())
            files.replace_file(fresh, record)
        except (OSError, MuxerError, TypeError, ValueError) as error:
            log.info("the muxed file is not kept for the next attempt: %s", error)
            self._remove_record(record)
            return
        log.info("the muxed file is kept for the next attempt", extra={"fields": {"bytes": content["length"]}})

    def take_result(
        self, target: MuxTarget, name: str, certificates: Sequence[Certificate], folder: Path
    ) -> MuxResult | None:
        """Move the kept file of a `target` into a job's `folder`. Returns None when there is none that is complete."""
        record = self._record_path(target, name, certificates)
        path = folder / f"kept{_MEDIA}"
        try:
            found = json.loads(record.read_text(encoding="utf-8"))
            files.replace_file(record.with_suffix(_MEDIA), path)
            self._remove_record(record)
            if path.stat().st_size != found["length"] or _file_digest(path) != found["sha256"]:
                raise ValueError("it is not what was kept")
            stored = None if found["stored"] is None else ObjectInfo(**found["stored"])
            return MuxResult(path, found["entry"], found["facts"], found["timeline"], stored)
        except FileNotFoundError:
            self._remove_record(record)
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("a kept muxed file cannot be used, the recording is muxed again: %s", error)
            self._remove_record(record)
            return None

    def forget_target(self, target: MuxTarget) -> None:
        """Delete what is kept of a `target` that needs it no longer, and of earlier ones with fewer or other sources."""
        for record in self._list_records(f"{_target_prefix(target)}-*"):
            self._remove_record(record)
        self._close()

    def prune_files(self) -> None:
        """Delete what is too old, what is too much, and what a process that died has left incomplete."""
        now = time.time()
        for number, record in enumerate(self._list_records()):
            if number >= MAX_KEPT or now - _changed_at(record) > MAX_RESULT_AGE_SECONDS:
                self._remove_record(record)
        for path in self._folder.glob("*"):
            if not path.with_suffix(_RECORD).exists() and now - _changed_at(path) > MAX_WRITING_SECONDS:
                self._remove_record(path.with_suffix(_RECORD))
        self._close()

    def evict_oldest(self) -> bool:
        """Delete the oldest kept file, because the disk is short. Returns whether there was one."""
        oldest = next(iter(self._list_records()[::-1]), None)
        if oldest is None:
            return False
        log.warning("the disk is short: a muxed file that was kept for the next attempt is deleted")
        return self._remove_record(oldest)

    def _list_records(self, pattern: str = "*") -> list[Path]:
        """Return the records, the newest first."""
        return sorted(self._folder.glob(f"{pattern}{_RECORD}"), key=_changed_at, reverse=True)

    def _record_path(self, target: MuxTarget, name: str, certificates: Sequence[Certificate]) -> Path:
        """Return the path of a record: its name holds everything that decides the content of the file."""
        sources = [
            [one.media_id, str(one.start), str(one.stop), one.stated_size, one.pkcs7_envelope, one.region, one.agent_contact]
            for one in (target.audio, *target.screens)
        ]
        readers = sorted([one.alias, one.pem] for one in certificates)
        decisive = json.dumps([name, target.region, sources, readers, self._options], default=str, sort_keys=True)
        return self._folder / f"{_target_prefix(target)}-{_short_digest(decisive)}{_RECORD}"

    def _remove_record(self, record: Path) -> bool:
        """Delete a record and its file. Returns whether both are gone; what stays is left to the next poll."""
        try:
            for path in (record, record.with_suffix(".new"), record.with_suffix(_MEDIA)):
                files.remove_file(path)
        except OSError as error:
            log.warning("%s cannot be deleted now: %s", record, error)
            return False
        return True

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # only when it is empty


def clear_entry(target: MuxTarget, muxed: MuxedFile, start: datetime) -> dict[str, Any]:
    """Return the media entry of a clear muxed file (gir-api, section 5), without its location and size."""
    screen = target.screens[0]
    milliseconds = round(muxed.length / 1000)
    parameters: dict[str, Any] = {"region": screen.region or target.region}
    if screen.agent_contact:
        parameters["contact"] = dict(screen.agent_contact)
    return {
        "mediaId": target.file_name,
        "type": "video/mp4",
        "startTime": format_time(start),
        "stopTime": format_time(start + timedelta(milliseconds=milliseconds)),
        "duration": str(milliseconds),
        "parameters": parameters | {"muxed_mediaIds": list(target.source_ids)},
    }


def result_facts(muxed: MuxedFile) -> dict[str, Any]:
    """Return what the finished line shows of a muxed file."""
    method = "; ".join(muxed.reasons) or "copy"
    seconds = {"length": muxed.length / 1e6, "padding": muxed.padding / 1e6, "sync": muxed.shift / 1e6}
    blanked = {"paused": muxed.paused / 1e6} if muxed.paused else {}
    missing = {"missing": "; ".join(muxed.missing)} if muxed.missing else {}
    return {**seconds, **blanked, "method": method, **missing}


def _changed_at(path: Path) -> float:
    """Return when a file was written or renamed last, in seconds since 1970; 0 when it is gone."""
    try:
        return path.lstat().st_ctime
    except OSError:
        return 0.0


def _target_prefix(target: MuxTarget) -> str:
    """Return the first part of the names of all that is kept of one agent and one audio file of a call."""
    return _short_digest(json.dumps([target.recording_id, target.audio.media_id, target.agent]))


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
