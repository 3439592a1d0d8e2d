"""Keeps a muxed file whose upload or publication failed for the next attempt, so that an outage costs no second mux.

Its record is written last: a file without one is incomplete. Kept files are deleted first when disk space runs out.
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
from muxer.system.json_codec import from_json

log = logging.getLogger(__name__)

MAX_RESULT_AGE_SECONDS = 86_400.0
MAX_KEPT = 100
# A file without a record for this long was left by a terminated process.
MAX_WRITING_SECONDS = 60.0
_MEDIA, _RECORD = ".media", ".json"
_DIGEST_LENGTH = 20


@dataclass
class MuxResult:
    """A muxed file to upload; `facts` and `timeline` are for log and journal, `stored` is None before the upload."""

    path: Path
    entry: dict[str, Any]
    facts: dict[str, Any]
    timeline: dict[str, Any]
    stored: ObjectInfo | None = None

    @property
    def is_final(self) -> bool:
        """Whether the next attempt would create the same file: no source was used that may still grow."""
        return "missing" not in self.facts


class KeptResults:
    """The kept files of a workspace. Safe to use from any thread: a file is taken by renaming it."""

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        """Keep files in `folder`, which is created when needed. `options` are those that change a muxed file."""
        self._folder = folder
        self._options = dict(options)

    def store_result(self, target: MuxTarget, name: str, certificates: Sequence[Certificate], result: MuxResult) -> None:
        """Move `result` out of its job's folder, for the next attempt with the same arguments. Logs when that fails."""
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
        """Move the kept file of `target` into a job's `folder`. Returns None when there is no complete one."""
        record = self._record_path(target, name, certificates)
        path = folder / f"kept{_MEDIA}"
        try:
            content = json.loads(record.read_text(encoding="utf-8"))
            files.replace_file(record.with_suffix(_MEDIA), path)
            self._remove_record(record)
            if path.stat().st_size != content["length"] or _file_digest(path) != content["sha256"]:
                raise ValueError("its length or digest has changed")
            stored = None if content["stored"] is None else from_json(ObjectInfo, content["stored"])
            return MuxResult(path, content["entry"], content["facts"], content["timeline"], stored)
        except FileNotFoundError:
            self._remove_record(record)
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("a kept muxed file cannot be used, the recording is muxed again: %s", error)
            self._remove_record(record)
            return None

    def forget_target(self, target: MuxTarget) -> None:
        """Delete the kept files of `target`, also those of earlier attempts with other sources."""
        for record in self._list_records(f"{_target_prefix(target)}-*"):
            self._remove_record(record)
        self._close()

    def prune_files(self) -> None:
        """Delete files that are too old, too many, or incomplete because their process terminated."""
        now = time.time()
        for number, record in enumerate(self._list_records()):
            if number >= MAX_KEPT or now - _changed_at(record) > MAX_RESULT_AGE_SECONDS:
                self._remove_record(record)
        for path in self._folder.glob("*"):
            if not files.exists(path.with_suffix(_RECORD)) and now - _changed_at(path) > MAX_WRITING_SECONDS:
                self._remove_record(path.with_suffix(_RECORD))
        self._close()

    def evict_oldest(self) -> bool:
        """Delete the oldest kept file to free disk space. Returns whether there was one."""
        oldest = next(iter(self._list_records()[::-1]), None)
        if oldest is None:
            return False
        log.warning("the disk is nearly full: deleting a muxed file that was kept for the next attempt")
        return self._remove_record(oldest)

    def _list_records(self, pattern: str = "*") -> list[Path]:
        return sorted(self._folder.glob(f"{pattern}{_RECORD}"), key=_changed_at, reverse=True)

    def _record_path(self, target: MuxTarget, name: str, certificates: Sequence[Certificate]) -> Path:
        """Return the path of a record; its name is a digest of everything that determines the file's content."""
        sources = []
        for file in (target.audio, *target.screens):
            stated = [str(file.start), str(file.stop), file.stated_size, file.pkcs7_envelope, file.region]
            sources.append([file.media_id, *stated, file.agent_contact])
        recipients = sorted([certificate.alias, certificate.pem] for certificate in certificates)
        content = json.dumps([name, target.region, sources, recipients, self._options], default=str, sort_keys=True)
        return self._folder / f"{_target_prefix(target)}-{_short_digest(content)}{_RECORD}"

    def _remove_record(self, record: Path) -> bool:
        """Delete a record and its file. Returns whether both are gone; what stays is deleted by a later poll."""
        try:
            for path in (record, record.with_suffix(".new"), record.with_suffix(_MEDIA)):
                files.remove_file(path)
        except OSError as error:
            log.warning("%s cannot be deleted now: %s", record, error)
            return False
        return True

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # succeeds only when it is empty


def clear_entry(target: MuxTarget, muxed: MuxedFile, start: datetime) -> dict[str, Any]:
    """Return the media entry of an unencrypted muxed file (gir-api, section 5), without its location and size."""
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
    """Return the fields of the finished line that describe a muxed file."""
    method = "; ".join(muxed.reasons) or "copy"
    seconds = {"length": muxed.length / 1e6, "padding": muxed.padding / 1e6, "sync": muxed.shift / 1e6}
    blanked = {"paused": muxed.paused / 1e6} if muxed.paused else {}
    missing = {"missing": "; ".join(muxed.missing)} if muxed.missing else {}
    return {**seconds, **blanked, "method": method, **missing}


def _changed_at(path: Path) -> float:
    """Return when a file was last written or renamed, in seconds since 1970; 0 when it is gone."""
    try:
        return path.lstat().st_ctime
    except OSError:
        return 0.0


def _target_prefix(target: MuxTarget) -> str:
    return _short_digest(json.dumps([target.recording_id, target.audio.media_id, target.agent]))


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
