"""Looks for muxed files in the storages that no metadata name."""

from __future__ import annotations

import json
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial

from muxer.audit.findings import Finding, FindingKind
from muxer.audit.ledger import AuditLedger
from muxer.audit.pace import Pace
from muxer.errors import MuxerError, Stopped
from muxer.gir.muxed_names import MAX_PREFIX_LENGTH
from muxer.net.circuit_breaker import RWS
from muxer.pipeline.services import Services
from muxer.storage.base import MediaLocation, Storage, StoredFile
from muxer.system.json_codec import from_json

log = logging.getLogger(__name__)

# A file that was stored just now may be published in a moment.
SETTLE_SECONDS = 20.0
YOUNG_SECONDS = 600.0
# Younger orphans are not deleted: a muxer that failed to publish a file tries again for this long.
MIN_DELETE_AGE_SECONDS = 7 * 86_400.0
_MUXED_NAME = re.compile(r"(?P<prefix>.+)_p?(?:[0-9a-f]{20}|[0-9a-f]{28})(?:-\d+)?_muxed\.mp4(?:\.bin)?")


@dataclass(frozen=True)
class Orphan:
    """A stored file that no metadata name."""

    location: MediaLocation
    stored: StoredFile

    @property
    def finding(self) -> Finding:
        """The finding about it: the same in two listings of an unchanged file."""
        modified = self.stored.modified
        age = "" if modified is None else f", stored on {datetime.fromtimestamp(modified, UTC):%Y-%m-%d %H:%M} UTC"
        return Finding(FindingKind.ORPHAN, "", format_location(self.location), f"{self.stored.info.length} bytes{age}")


def format_location(location: MediaLocation) -> str:
    """Return the address of a file, or its bucket and key. Without a name, that of its folder."""
    return f"{location.bucket}/{location.folder}{location.name}" if location.bucket else location.url


def recording_of_name(name: str) -> str | None:
    """Return the id of the recording that a muxed file with this name belongs to; None when the name does not show it."""
    found = _MUXED_NAME.fullmatch(name)
    return None if found is None or len(found["prefix"]) >= MAX_PREFIX_LENGTH else found["prefix"]


class OrphanSearch:
    """Compares the listings of the storages with the metadata of RWS."""

    def __init__(self, services: Services, ledger: AuditLedger, pace: Pace, now: Callable[[], float] = time.time) -> None:
        self._services, self._ledger, self._pace, self._now = services, ledger, pace, now

    def find_orphans(self) -> Iterator[Orphan]:
        """Yield the orphans in the folders of all muxed files of the audit. A folder that cannot be listed is a finding."""
        for text in self._ledger.read_folders():
            folder = from_json(MediaLocation, json.loads(text))
            try:
                yield from self._search_folder(folder)
            except Stopped:
                raise
            except MuxerError as error:
                if self._services.circuit_breaker.is_open(RWS):
                    raise
                place, detail = format_location(folder), f"it cannot be listed: {error}"
                self._ledger.add_findings([Finding(FindingKind.UNCHECKED, "", place, detail)])

    def _search_folder(self, folder: MediaLocation) -> Iterator[Orphan]:
        store = self._services.stores.for_location(folder)
        young: list[Orphan] = []
        for stored in self._list_unknown(store, folder):
            orphan = Orphan(folder.sibling(stored.name), stored)
            if self._may_be_named(orphan):
                continue
            if stored.modified is None or self._now() - stored.modified < YOUNG_SECONDS:
                young.append(orphan)
            else:
                yield orphan
        if young:
            if self._services.stop.wait(SETTLE_SECONDS):
                raise Stopped("the audit was stopped")
            for one in young:
                if not self._may_be_named(one) and store.head(one.location) is not None:
                    yield one

    def _list_unknown(self, store: Storage, folder: MediaLocation) -> Iterator[StoredFile]:
        """Yield the muxed files of a folder that no audited call has.

        The listing is read to its end first: a server would not wait while RWS is asked, or for the allowed hours.
        """
        self._pace.await_turn()
        with tempfile.TemporaryFile("w+", encoding="utf-8", dir=self._services.workspace.path) as listed:
            for stored in store.list_folder(folder):
                if _MUXED_NAME.fullmatch(stored.name) is not None and not self._ledger.is_known_name(stored.name):
                    listed.write(json.dumps(asdict(stored)) + "\n")
            listed.seek(0)
            for line in listed:
                yield from_json(StoredFile, json.loads(line))

    def _may_be_named(self, orphan: Orphan) -> bool:
        """Whether metadata name a file. When RWS fails for its recording, that is a finding."""
        try:
            return self.is_named(orphan.stored.name)
        except Stopped:
            raise
        except MuxerError as error:
            if self._services.circuit_breaker.is_open(RWS):
                raise
            detail = f"whether metadata name it is unknown: {error}"
            self._ledger.add_findings([Finding(FindingKind.UNCHECKED, "", orphan.finding.file, detail)])
            return True

    def is_named(self, name: str) -> bool:
        """Whether metadata name a file of this name, or may do so: the recording of some names cannot be known."""
        recording = recording_of_name(name)
        if recording is None or self._ledger.is_known_name(name):
            return True
        self._pace.await_turn()
        screen = self._services.repeat(
            "reading the screen recording", lambda: self._services.rws.fetch_screen_recording(recording)
        )
        if screen is None:
            # Characters that a name cannot contain are replaced by this one: the id may be another.
            return "_" in recording and not self._has_call(recording)
        return any(name in media.known_names for media in screen.media)

    def _has_call(self, recording: str) -> bool:
        fetch = partial(self._services.rws.fetch_call_recording, recording)
        return self._services.repeat("reading the call recording", fetch) is not None

    def delete_orphan(self, orphan: Orphan, found_before: Finding) -> str:
        """Delete an orphan that is old enough, and as it was when it was found. Returns what was done."""
        if orphan.stored.modified is None or self._now() - orphan.stored.modified < MIN_DELETE_AGE_SECONDS:
            return "not deleted: it was stored less than a week ago, or its age is unknown"
        if orphan.finding != found_before:
            return "not deleted: two listings differ"
        recording = recording_of_name(orphan.stored.name)
        if recording is None or not self._has_call(recording):
            return "not deleted: RWS does not know its recording, which may be of another contact center"
        if self.is_named(orphan.stored.name):
            return "not deleted: metadata name it by now"
        store = self._services.stores.for_location(orphan.location)
        store.delete_file(orphan.location)
        log.info("orphan deleted", extra={"fields": {"file": orphan.stored.name}})
        return "deleted"
