"""Deletes superseded muxed files: first the entry in RWS, then the file in its storage.

An intent record is on disk meanwhile. So a later poll deletes the file, once its entry is gone and its replacement exists;
also one that was uploaded and not published.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from muxer.errors import MetadataError, Permanent, Transient
from muxer.gir.models import MediaFile
from muxer.gir.muxed_names import has_earlier_name
from muxer.gir.rws import RwsClient
from muxer.net.step_retry import Repeat, call_once
from muxer.storage.base import MediaLocation, parse_descriptor
from muxer.storage.stores import Stores
from muxer.system.intent_log import IntentLog
from muxer.system.json_codec import from_json

log = logging.getLogger(__name__)

# Records of uploaded, unpublished files are kept this long.
MAX_RECORD_AGE_SECONDS = 7 * 86_400.0


class SupersededCleaner:
    """Deletes superseded muxed files. Safe to use from any thread."""

    def __init__(self, rws: RwsClient, stores: Stores, folder: Path, repeat: Repeat = call_once) -> None:
        self._rws = rws
        self._repeat = repeat
        self._stores = stores
        self._intents = IntentLog(folder)

    def delete_file(self, recording_id: str, media: MediaFile, replaced_by: str = "") -> None:
        """Delete entry and file of `media`. `replaced_by` is a mediaId, empty for any with more sources."""
        location = _muxed_location(media)
        if location is None:
            self._delete_entry(recording_id, media)
            return
        if has_earlier_name(media, recording_id):
            self._check_case(location)
        entry_deleted = False
        try:
            record = _intent_record(recording_id, media.media_id, media.muxed_from or (), location)
            record_by = {**record, "by": replaced_by}
            with self._intents.pending(json.dumps(record_by), record_by):
                self._delete_entry(recording_id, media)
                entry_deleted = True
                self._repeat("deleting the file", partial(self._stores.for_location(location).delete_file, location))
        except (Permanent, Transient) as error:
            if not entry_deleted:
                raise
            log.warning("the superseded file %s is left in its storage for now: %s", media.media_id, error)

    def _check_case(self, location: MediaLocation) -> None:
        """Raise MetadataError when the storage ignores case: the file there may be that of another recording."""
        if self._stores.for_location(location).head(location.sibling(location.name.swapcase())) is not None:
            raise MetadataError(
                f"{location.name} has a name of an earlier version, and its storage ignores case: it may be the file of "
                "another recording and is not deleted. Delete it and its entry manually"
            )

    @contextmanager
    def track_unpublished(
        self, recording_id: str, media_id: str, sources: Iterable[str], location: MediaLocation
    ) -> Iterator[None]:
        """Record in this block that a file is uploaded; after a failure, recover_deletions may delete it."""
        record = _intent_record(recording_id, media_id, sources, location)
        with self._intents.pending(json.dumps(record), {**record, "since": time.time()}):
            yield

    def recover_deletions(self) -> None:
        """Delete the files of unfinished records, and uploaded files that were never published."""
        self._intents.recover(self._finish_record, "a superseded file is left in its storage for now")

    def _finish_record(self, record: Any) -> bool:
        """Return whether the record is done: the file is deleted, its entry exists, or it can no longer be published."""
        location, sources = from_json(MediaLocation, record["place"]), set(record["sources"])
        try:
            current = self._rws.fetch_screen_recording(record["recording"])
        except Permanent as error:
            log.warning("a superseded file is left in its storage for now: %s", error)
            return False
        if current is None or record["media"] in {media.media_id for media in current.media}:
            return True
        if any(sources < set(media.muxed_from or ()) or media.media_id == record.get("by") for media in current.muxed_files):
            self._stores.for_location(location).delete_file(location)
            log.info("superseded entry deleted", extra={"fields": {"media": record["media"]}})
            return True
        if "since" not in record:
            return True
        # The next attempt uploads and publishes it, or one with more sources.
        if time.time() < record["since"] + MAX_RECORD_AGE_SECONDS:
            return False
        log.warning("%s may still be stored but was never published; delete it manually", location.name)
        return True

    def _delete_entry(self, recording_id: str, media: MediaFile) -> None:
        self._repeat("deleting the entry", partial(self._rws.delete_media, recording_id, media.media_id))
        log.info("superseded entry deleted", extra={"fields": {"media": media.media_id}})


def _intent_record(recording_id: str, media_id: str, sources: Iterable[str], location: MediaLocation) -> dict[str, Any]:
    return {"recording": recording_id, "media": media_id, "place": asdict(location), "sources": list(sources)}


def _muxed_location(media: MediaFile) -> MediaLocation | None:
    """Return where a muxed file is stored; None when its metadata contain no usable location."""
    if media.media_descriptor is None:
        return None
    try:
        return parse_descriptor(media.media_descriptor)
    except MetadataError as error:
        log.warning("the superseded file %s stays in its storage: %s", media.media_id, error)
        return None
