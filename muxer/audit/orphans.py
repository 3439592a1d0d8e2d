"""Looks for muxed files in the storages that no metadata name."""

from __future__ import annotations

import json
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from muxer.audit.findings import Finding, FindingKind
from muxer.audit.ledger import AuditLedger
from muxer.audit.pace import Pace
from muxer.errors import LocalResourceError, MuxerError, Stopped
from muxer.gir.models import ScreenRecording
from muxer.gir.muxed_names import MAX_PREFIX_LENGTH
from muxer.net.circuit_breaker import RWS
from muxer.pipeline.services import Services
from muxer.status import activity
from muxer.storage.base import MediaLocation, StoredFile
from muxer.system.files import translate_disk_errors
from muxer.system.json_codec import from_json

log = logging.getLogger(__name__)
Item = TypeVar("Item")

STEP = "orphans"
# Unknown files whose recordings are asked for at a time.
FILES_AT_A_TIME = 50
# A file that was stored just now may be published in a moment.
SETTLE_SECONDS = 20.0
YOUNG_SECONDS = 600.0
# Younger orphans are not deleted: a muxer that failed to publish a file tries again for this long.
MIN_DELETE_AGE_SECONDS = 7 * 86_400.0
_UNKNOWN = (
    "RWS does not know its recording, so --delete-orphans keeps it: delete it in the storage yourself, "
    "unless another contact center stores files there"
)
_MUXED_NAME = re.compile(r"(?P<prefix>.+)_p?(?:[0-9a-f]{20}|[0-9a-f]{28})(?:-\d+)?_muxed\.mp4(?:\.bin)?", re.DOTALL)


@dataclass(frozen=True)
class Orphan:
    """A stored file that no metadata name."""

    location: MediaLocation
    stored: StoredFile

    @property
    def place(self) -> str:
        """The address of the file."""
        return format_location(self.location)

    @property
    def detail(self) -> str:
        """What the storage says of it: the same in two listings of an unchanged file."""
        modified = self.stored.modified
        age = "" if modified is None else f", stored on {datetime.fromtimestamp(modified, UTC):%Y-%m-%d %H:%M} UTC"
        return f"{self.stored.info.length} bytes{age}"

    def describe(self, recording: str) -> Finding:
        """Return the finding about it; `recording` is empty when RWS does not know its recording."""
        detail = self.detail if recording else f"{self.detail}; {_UNKNOWN}"
        return Finding(FindingKind.ORPHAN, recording, self.place, detail)

    def is_unchanged(self, found: Finding) -> bool:
        """Whether the storage says the same of it as when it was found."""
        return found.file == self.place and found.detail.removesuffix(f"; {_UNKNOWN}") == self.detail


def format_location(location: MediaLocation) -> str:
    """Return the address of a file, or its bucket and key. Without a name, that of its folder."""
    return f"{location.bucket}/{location.folder}{location.name}" if location.bucket else location.url


class _OrphanList:
    """Files of a folder in a temporary file: there may be a million. To be closed."""

    def __init__(self, temp: Path, folder: MediaLocation) -> None:
        self._temp, self._folder, self.count = temp, folder, 0
        with translate_disk_errors(temp):
            self._file = tempfile.TemporaryFile("w+", encoding="utf-8", dir=temp)  # noqa: SIM115

    def __enter__(self) -> _OrphanList:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add_file(self, stored: StoredFile) -> None:
        """Add a file. Raises LocalResourceError when the disk is full."""
        with translate_disk_errors(self._temp):
            self._file.write(json.dumps(asdict(stored)) + "\n")
        self.count += 1

    def read_orphans(self) -> Iterator[Orphan]:
        """Yield all files."""
        with translate_disk_errors(self._temp):
            self._file.seek(0)  # writes what is left
        for line in self._file:
            stored = from_json(StoredFile, json.loads(line))
            yield Orphan(self._folder.sibling(stored.name), stored)


def _unread_file(orphan: Orphan, reason: object) -> Finding:
    return Finding(FindingKind.UNCHECKED, "", orphan.place, f"whether metadata name it is unknown: {reason}")


def recording_of_name(name: str) -> str | None:
    """Return the id of the recording that a muxed file with this name belongs to; None when the name does not show it."""
    found = _MUXED_NAME.fullmatch(name)
    return None if found is None or len(found["prefix"]) >= MAX_PREFIX_LENGTH else found["prefix"]


class OrphanSearch:
    """Compares the listings of the storages with the metadata of RWS."""

    def __init__(
        self,
        services: Services,
        ledger: AuditLedger,
        pace: Pace,
        *,
        bulk: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`bulk` is whether RWS is asked for several recordings at a time."""
        self._services, self._ledger, self._pace, self._bulk, self._now = services, ledger, pace, bulk, now

    def record_orphans(self) -> Iterator[str]:
        """Record the orphans in the folders of all muxed files of the audit.

        Yields what was done so far after each part. What RWS has answered is recorded, and not asked again later. A folder
        that cannot be listed is a finding.
        """
        activity.begin_step(STEP)
        return self._visit_folders(self._search_folder)

    def list_found(self) -> Iterator[tuple[Orphan, Finding]]:
        """Yield the recorded orphans that are still listed, each with its finding."""

        def list_folder(folder: MediaLocation) -> Iterator[tuple[Orphan, Finding]]:
            with self._list_unknown(folder) as listed:
                for orphan in listed.read_orphans():
                    if (found := self._find_recorded(orphan)) is not None:
                        yield orphan, found

        return self._visit_folders(list_folder)

    def _find_recorded(self, orphan: Orphan) -> Finding | None:
        names = dict.fromkeys((recording_of_name(orphan.stored.name) or "", ""))
        found = (self._ledger.find_finding(FindingKind.ORPHAN, name, orphan.place) for name in names)
        return next((one for one in found if one is not None), None)

    def _visit_folders(self, visit: Callable[[MediaLocation], Iterator[Item]]) -> Iterator[Item]:
        for text in self._ledger.read_folders():
            folder = from_json(MediaLocation, json.loads(text))
            try:
                yield from visit(folder)
            except (Stopped, LocalResourceError):
                raise
            except MuxerError as error:
                if self._services.circuit_breaker.is_open(RWS):
                    raise
                place, detail = format_location(folder), f"it cannot be listed: {error}"
                self._ledger.add_findings([Finding(FindingKind.UNCHECKED, "", place, detail)])

    def _search_folder(self, folder: MediaLocation) -> Iterator[str]:
        asked, place = 0, format_location(folder)
        with self._list_unknown(folder) as listed, _OrphanList(self._services.workspace.path, folder) as young:
            activity.set_expected_amount(listed.count)
            orphans = listed.read_orphans()
            while part := list(islice(orphans, FILES_AT_A_TIME)):
                self._ask_part([one for one in part if self._find_recorded(one) is None], young)
                asked += len(part)
                activity.add_progress(len(part))
                yield f"{place}: {asked:,} of {listed.count:,} muxed files without an audited call looked up"
            if young.count:
                self._ask_again(young)

    def _ask_part(self, part: Sequence[Orphan], young: _OrphanList) -> None:
        """Ask RWS for the recordings of some files at a time, and then for each file that seems to be an orphan."""
        try:
            screens, unread = self._fetch_screens([id_ for one in part if (id_ := recording_of_name(one.stored.name))])
        except Stopped:
            raise
        except MuxerError as error:
            if self._services.circuit_breaker.is_open(RWS):
                raise
            self._ledger.add_findings(_unread_file(one, error) for one in part)
            return
        named = {name for screen in screens.values() for media in screen.media for name in media.known_names}
        found: list[Finding] = []
        for one in part:
            if (failure := unread.get(recording_of_name(one.stored.name) or "")) is not None:
                found.append(_unread_file(one, failure))
            elif one.stored.name in named:
                continue
            elif self._is_young(one):
                young.add_file(one.stored)
            elif (finding := self._judge_file(one)) is not None:
                found.append(finding)
            else:
                named.add(one.stored.name)
        self._ledger.record_checked_names(named, found)

    def _fetch_screens(self, recordings: Sequence[str]) -> tuple[dict[str, ScreenRecording], dict[str, Exception]]:
        """Return the screen recordings that exist, and the errors of those that RWS fails for."""
        if not recordings:
            return {}, {}
        unread: dict[str, Exception] = {}
        self._pace.await_turn()
        ids = list(dict.fromkeys(recordings))
        return self._services.rws.fetch_screen_recordings(ids, self._bulk, unread.__setitem__), unread

    def _is_young(self, orphan: Orphan) -> bool:
        return orphan.stored.modified is None or self._now() - orphan.stored.modified < YOUNG_SECONDS

    def _ask_again(self, young: _OrphanList) -> None:
        if self._services.stop.wait(SETTLE_SECONDS):
            raise Stopped("the audit was stopped")
        for one in young.read_orphans():
            finding = self._judge_file(one)
            self._pace.await_turn()
            store = self._services.stores.for_location(one.location)
            if finding is not None and (finding.kind is not FindingKind.ORPHAN or store.head(one.location) is not None):
                self._ledger.add_findings([finding])

    @contextmanager
    def _list_unknown(self, folder: MediaLocation) -> Iterator[_OrphanList]:
        """Yield the muxed files of a folder that no audited call has.

        The listing is read to its end first: a server would not wait while RWS is asked, or for the allowed hours.
        """
        self._pace.await_turn()
        store = self._services.stores.for_location(folder)
        with _OrphanList(self._services.workspace.path, folder) as listed:
            for stored in store.list_folder(folder):
                if _MUXED_NAME.fullmatch(stored.name) is not None and not self._ledger.is_known_name(stored.name):
                    listed.add_file(stored)
            yield listed

    def _judge_file(self, orphan: Orphan) -> Finding | None:
        """Ask RWS for one file. Returns a finding when no metadata name it, or when that cannot be known."""
        try:
            named = self.is_named(orphan.stored.name)
            if named is None:
                return _unread_file(orphan, "its name does not show the id of its recording")
            if named:
                return None
            recording = recording_of_name(orphan.stored.name) or ""
            return orphan.describe(recording if self._has_call(recording) else "")
        except Stopped:
            raise
        except MuxerError as error:
            if self._services.circuit_breaker.is_open(RWS):
                raise
            return _unread_file(orphan, error)

    def is_named(self, name: str) -> bool | None:
        """Whether metadata name a file of this name; None when the name does not show the id of its recording."""
        if self._ledger.is_known_name(name):
            return True
        recording = recording_of_name(name)
        if recording is None:
            return None
        self._pace.await_turn()
        screen = self._services.repeat(
            "reading the screen recording", lambda: self._services.rws.fetch_screen_recording(recording)
        )
        if screen is None:
            # Characters that a name cannot contain are replaced by this one: the id may be another.
            return None if "_" in recording and not self._has_call(recording) else False
        return any(name in media.known_names for media in screen.media)

    def _has_call(self, recording: str) -> bool:
        self._pace.await_turn()
        fetch = partial(self._services.rws.fetch_call_recording, recording)
        return self._services.repeat("reading the call recording", fetch) is not None

    def delete_orphan(self, orphan: Orphan, found_before: Finding) -> str:
        """Delete an orphan that is old enough, and as it was when it was found. Returns what was done."""
        if orphan.stored.modified is None or self._now() - orphan.stored.modified < MIN_DELETE_AGE_SECONDS:
            return "not deleted: it was stored less than a week ago, or its age is unknown"
        if not orphan.is_unchanged(found_before):
            return "not deleted: two listings differ"
        recording = recording_of_name(orphan.stored.name)
        if recording is not None and "_" in recording:
            return "not deleted: its name may be that of a recording whose id has another character in place of `_`"
        if recording is None or not self._has_call(recording):
            return "not deleted: RWS does not know its recording, which may be of another contact center"
        if self.is_named(orphan.stored.name) is not False:
            return "not deleted: metadata name it by now"
        store = self._services.stores.for_location(orphan.location)
        store.delete_file(orphan.location)
        log.info("orphan deleted", extra={"fields": {"file": orphan.stored.name}})
        return "deleted"
