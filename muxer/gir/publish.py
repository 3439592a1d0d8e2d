"""Publishes a muxed file in the metadata of its screen recording, so that no other entry is ever lost.

Whether RWS merges or replaces a posted list is not public (gir-api, section 5). So only the new entry is posted, and read
back; once an earlier entry has vanished, full lists are posted. What must not vanish is recorded on disk first.
"""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from muxer.errors import Code, Permanent, ServiceUnavailable
from muxer.gir.models import Json, MediaFile, ScreenRecording
from muxer.gir.rws import RwsClient
from muxer.net.step_retry import Repeat, call_once
from muxer.system.intent_log import IntentLog, remove_record, write_record

log = logging.getLogger(__name__)

POST_ATTEMPTS = 3
# A read may lag behind a write: seconds to wait before each attempt to read back what was posted.
READ_BACK_DELAYS = (0.0, 0.5, 1.5)
# Recordings share locks, so that their number does not grow.
LOCK_COUNT = 64


class Publisher:
    """Posts entries, one recording at a time. Safe to use from any thread."""

    def __init__(self, rws: RwsClient, folder: Path, repeat: Repeat = call_once) -> None:
        self._rws = rws
        self._repeat = repeat
        self._records = IntentLog(folder, refused="RWS refuses entries that it has lost")
        self._full_lists = False
        self._locks = [threading.Lock() for _ in range(LOCK_COUNT)]

    def publish_entry(
        self, recording_id: str, region: str, entry: Json, *, is_still_stored: Callable[[], None]
    ) -> ScreenRecording:
        """Publish a media entry; return the recording as read back, else raise ServiceUnavailable.

        `is_still_stored` is called before and after the post, and raises when the stored file is another one. An existing
        entry is posted again only when it describes another ciphertext.
        """
        with self._records.reserve(recording_id) as record, self.recording_lock(recording_id):
            # The record of an earlier publication has entries that the list to come would not have.
            self._records.settle_reserved(record, self._restore_entries)
            current = self._read_recording(recording_id)
            if current is not None and _is_published_in(current, entry):
                return current
            is_still_stored()
            earlier = [] if current is None else [to_posted_form(media.raw) for media in current.media]
            wanted = [*(one for one in earlier if one.get("mediaId") != entry["mediaId"]), entry]
            write_record(record, {"id": recording_id, "region": region, "mediaFiles": wanted})
            published = self._post_entries(recording_id, region, wanted, full=self._full_lists)
            remove_record(record)
            is_still_stored()
            return published

    def recover_publications(self) -> None:
        """Post again the entries that RWS lost at an earlier publication."""
        self._records.recover(
            self._repair_entries, "lost entries could not be posted again; retrying at the next poll", logging.ERROR
        )

    def unfinished_recordings(self) -> list[str]:
        """Return the ids of the recordings whose lost entries are not back."""
        return [str(record.get("id")) for record in self._records.unfinished_records() if isinstance(record, dict)]

    def settle_publication(self, recording_id: str) -> bool:
        """Post again the entries of one recording that RWS lost at an earlier publication. Returns whether there was one.

        Raises ServiceUnavailable while they cannot be posted.
        """
        with self._records.reserve(recording_id) as record, self.recording_lock(recording_id):
            return self._records.settle_reserved(record, self._restore_entries)

    def _repair_entries(self, record: Any) -> bool:
        with self.recording_lock(record["id"]):
            return self._restore_entries(record)

    def _restore_entries(self, record: Any) -> bool:
        """Post the lost entries of a record again. The caller holds the lock of the recording."""
        recording_id = record["id"]
        current = self._fetch_current(recording_id)
        *earlier, _ = record["mediaFiles"]
        if current is not None and _missing_ids(_entries_at_risk(record["mediaFiles"]), current):
            # Superseded entries come back too: their deletion then deletes their files as well.
            log.warning("%s: RWS lost entries at an earlier publication; posting them again", recording_id)
            # An entry with an id comes last: it identifies the post when it is read back.
            wanted = sorted(_merge_entries(earlier, current), key=lambda entry: bool(entry.get("mediaId")))
            self._post_entries(recording_id, record["region"], wanted, full=True)
        return True

    def _post_entries(self, recording_id: str, region: str, wanted: list[Json], *, full: bool) -> ScreenRecording:
        """Post the last of the ``wanted`` entries, or all of them, and ensure that RWS shows all of them."""
        posted: Sequence[Json] = wanted if full else wanted[-1:]
        for _ in range(POST_ATTEMPTS):
            # An entry has one name: one that is posted twice is there once.
            self._repeat("posting the entry", partial(self._rws.post_media, recording_id, region, posted))
            current = self._read_back(recording_id, posted)
            missing = _missing_ids(wanted, current)
            if current is not None and not missing and _is_published_in(current, wanted[-1]):
                return current
            if len(posted) < len(wanted) and missing - {wanted[-1]["mediaId"]}:
                log.warning("RWS replaces the media list of a recording when one entry is posted; posting full lists")
                self._full_lists = True
            posted = _merge_entries(wanted, current)
        shown = ", ".join(sorted(missing)) or wanted[-1]["mediaId"]
        raise ServiceUnavailable(
            f"posted, but RWS does not show {shown} as posted when read back", code=Code.READBACK_MISMATCH
        )

    def _read_back(self, recording_id: str, posted: Sequence[Json]) -> ScreenRecording | None:
        """Return the recording as soon as it contains what was posted, or as it is after the last attempt."""
        current = None
        for wait in READ_BACK_DELAYS:
            time.sleep(wait)
            current = self._fetch_current(recording_id)
            if current is not None and not _missing_ids(posted, current) and _is_published_in(current, posted[-1]):
                break
        return current

    def _fetch_current(self, recording_id: str) -> ScreenRecording | None:
        """Return the current recording. Raises ServiceUnavailable for all errors: none is a refusal of entries."""
        try:
            return self._read_recording(recording_id)
        except Permanent as error:
            raise ServiceUnavailable(f"RWS does not show what is published: {error}", code=Code.READBACK_MISMATCH) from error

    def _read_recording(self, recording_id: str) -> ScreenRecording | None:
        return self._repeat("reading the screen recording", partial(self._rws.fetch_screen_recording, recording_id))

    def recording_lock(self, recording_id: str) -> threading.Lock:
        """Return the lock of posting entries. Hold it to delete one, which would otherwise be posted again."""
        return self._locks[zlib.crc32(recording_id.encode()) % LOCK_COUNT]


def to_posted_form(media: Json) -> dict[str, Any]:
    """Convert a media entry from the form that is read to the form that is posted: only the descriptor key differs."""
    posted = dict(media)
    if "originalMediaDescriptor" in posted:
        posted["mediaDescriptor"] = posted.pop("originalMediaDescriptor")
    return posted


def _is_published_in(current: ScreenRecording, entry: Json) -> bool:
    """Whether a recording has an entry with the same envelope: another one does not decrypt the stored file."""
    envelopes = [media.pkcs7_envelope or "" for media in current.media if media.media_id == entry["mediaId"]]
    return "".join(str(entry.get("pkcs7") or "").split()) in ("".join(one.split()) for one in envelopes)


def _entries_at_risk(wanted: Sequence[Json]) -> list[Json]:
    """Return the entries that must not be lost: all but the newest and those that it supersedes."""
    *earlier, newest = wanted
    sources = set(MediaFile.from_json(newest).muxed_from or ())
    return [one for one in earlier if not (made := MediaFile.from_json(one).muxed_from) or not set(made) <= sources]


def _media_ids(recording: ScreenRecording | None) -> set[str]:
    return set() if recording is None else {media.media_id for media in recording.media}


def _missing_ids(wanted: Sequence[Json], current: ScreenRecording | None) -> set[str]:
    return {str(one.get("mediaId") or "") for one in wanted} - _media_ids(current) - {""}


def _merge_entries(wanted: Sequence[Json], current: ScreenRecording | None) -> list[Json]:
    """Return the other entries that RWS has, followed by the wanted ones."""
    known = {one.get("mediaId") for one in wanted}
    others = () if current is None else current.media
    return [*(to_posted_form(one.raw) for one in others if one.media_id not in known), *wanted]
