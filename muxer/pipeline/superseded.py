"""Deletes muxed files that another one replaces: the entry in RWS, then the file in its storage.

A note on disk is written before and removed after, so that a process that dies in between leaves no file that nothing
points to: a later poll deletes it, when the entry is gone and the one that replaces it stands there. The same holds for a
file that is stored and not published yet.
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

# So long it is remembered that a file was stored and not published.
MAX_RECORD_AGE_SECONDS = 7 * 86_400.0


class SupersededCleaner:
    """Deletes superseded muxed files. ``folder`` keeps the notes. Safe to use from any thread."""

    def __init__(self, rws: RwsClient, stores: Stores, folder: Path, repeat: Repeat = call_once) -> None:
        """Create it; `repeat` calls each request that may fail."""
        self._rws = rws
        self._repeat = repeat
        self._stores = stores
        self._notes = IntentLog(folder)

    def delete_file(self, recording_id: str, media: MediaFile, by: str = "") -> None:
        """Given a recording, a superseded file of it and the mediaId that replaces it (empty = any fuller one), delete its
        entry and the file. Raise what RWS raises; a file that cannot be deleted for now is left to
        :meth:`finish_left_overs`."""
        place = _muxed_location(media)
        if place is None:
            self._delete_entry(recording_id, media)
            return
        if has_earlier_name(media, recording_id):
            self._check_case(place)
        entry_is_gone = False
        try:
            note = _intent_record(recording_id, media.media_id, media.muxed_from or (), place)
            record = {**note, "by": by}
            with self._notes.pending(json.dumps(record), record):
                self._delete_entry(recording_id, media)
                entry_is_gone = True
                self._repeat("deleting the file", partial(self._stores.for_location(place).delete_file, place))
        except (Permanent, Transient) as error:
            if not entry_is_gone:
                raise
            log.warning("the superseded file %s is left in its storage for now: %s", media.media_id, error)

    def _check_case(self, place: MediaLocation) -> None:
        """Raise :class:`MetadataError` when the storage of a `place` ignores case, so that the file there may be that of
        another recording."""
        if self._stores.for_location(place).head(place.sibling(place.name.swapcase())) is not None:
            raise MetadataError(
                f"{place.name} has a name of an earlier version, and its storage ignores case: it may be the file "
                "of another recording, and is not deleted. Delete it and its entry by hand"
            )

    @contextmanager
    def track_unpublished(
        self, recording_id: str, media_id: str, sources: Iterable[str], place: MediaLocation
    ) -> Iterator[None]:
        """Within this block a muxed file of these sources is stored and published. When the block does not end well, and a
        fuller file is published later on, :meth:`finish_left_overs` deletes the file."""
        record = _intent_record(recording_id, media_id, sources, place)
        with self._notes.pending(json.dumps(record), {**record, "since": time.time()}):
            yield

    def recover_deletions(self) -> None:
        """Delete the files whose entries were deleted by a process that died, those that could not be deleted then, and
        those that were stored and never published."""
        self._notes.recover(self._finish_record, "a superseded file is left in its storage for now")

    def _finish_record(self, note: Any) -> bool:
        """Return whether nothing is left to do: the file is deleted, its entry stands, or it may be published no more."""
        place, sources = from_json(MediaLocation, note["place"]), set(note["sources"])
        try:
            current = self._rws.fetch_screen_recording(note["recording"])
        except Permanent as error:
            log.warning("a superseded file is left in its storage for now: %s", error)
            return False
        if current is None or note["media"] in {media.media_id for media in current.media}:
            return True
        if any(sources < set(media.muxed_from or ()) or media.media_id == note.get("by") for media in current.muxed_files):
            self._stores.for_location(place).delete_file(place)
            log.info("superseded file deleted", extra={"fields": {"media": note["media"]}})
            return True
        if "since" not in note:
            return True
        # The next attempt stores it anew and publishes it; or, if more sources have come, a fuller one.
        if time.time() < note["since"] + MAX_RECORD_AGE_SECONDS:
            return False
        log.warning("%s may lie in its storage, and was never published; delete it by hand", place.name)
        return True

    def _delete_entry(self, recording_id: str, media: MediaFile) -> None:
        self._repeat("deleting the entry", partial(self._rws.delete_media, recording_id, media.media_id))
        log.info("superseded file deleted", extra={"fields": {"media": media.media_id}})


def _intent_record(recording_id: str, media_id: str, sources: Iterable[str], place: MediaLocation) -> dict[str, Any]:
    return {"recording": recording_id, "media": media_id, "place": asdict(place), "sources": list(sources)}


def _muxed_location(media: MediaFile) -> MediaLocation | None:
    """Return where a muxed file lies, None when its metadata do not say so in a form that can be used."""
    if media.media_descriptor is None:
        return None
    try:
        return parse_descriptor(media.media_descriptor)
    except MetadataError as error:
        log.warning("the superseded file %s stays in its storage: %s", media.media_id, error)
        return None
