"""How an audit looks for stored muxed files that no metadata name: what it asks RWS, and what it remembers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muxer.audit.call_rules import CallVerdict
from muxer.audit.findings import FindingKind
from muxer.audit.ledger import AuditLedger
from muxer.audit.orphans import FILES_AT_A_TIME, OrphanSearch, recording_of_name
from muxer.audit.pace import Pace
from muxer.errors import RequestRejected
from muxer.gir.models import ScreenRecording
from muxer.status.activity import Activity
from muxer.storage.base import ObjectInfo, StoredFile

NOW, LONG_AGO = 1e9, 1e9 - 86_400.0
FOLDER = '{"bucket": "", "folder": "http://dav/screens/", "name": "", "storage": "webDAV"}'
COUNT = 3 * FILES_AT_A_TIME


def name_of(number: int) -> str:
    return f"call-{number:03}_{'a' * 20}_muxed.mp4"


class FakeSite:
    """RWS and a storage with one folder. The metadata of each call name its file, but those of `orphans`."""

    def __init__(
        self,
        orphans: Sequence[int] = (),
        refused: Sequence[int] = (),
        modified: float = LONG_AGO,
        unknown: Sequence[int] = (),
        others: Sequence[str] = (),
    ) -> None:
        self._unknown, self._names = unknown, (*map(name_of, range(COUNT)), *others)
        self._orphans, self._refused, self._modified = orphans, refused, modified
        self.asked: list[list[str]] = []
        self.asked_singly: list[str] = []

    def list_folder(self, _: object) -> Iterator[StoredFile]:
        return (StoredFile(name, ObjectInfo(100), self._modified) for name in self._names)

    def for_location(self, _: object) -> FakeSite:
        return self

    def head(self, _: object) -> ObjectInfo:
        return ObjectInfo(100)

    def fetch_screen_recording(self, recording: str) -> ScreenRecording:
        self.asked_singly.append(recording)
        return self._recording(recording)

    def fetch_screen_recordings(
        self, ids: Sequence[str], bulk: bool, skip: Callable[[str, Exception], None]
    ) -> dict[str, ScreenRecording]:
        assert bulk
        self.asked.append(list(ids))
        refused = [one for one in ids if int(one[-3:]) in self._refused]
        for one in refused:
            skip(one, RequestRejected("refused"))
        return {one: self._recording(one) for one in ids if one not in refused}

    def fetch_call_recording(self, recording: str) -> object | None:
        return None if int(recording[-3:]) in self._unknown else object()

    def _recording(self, recording: str) -> ScreenRecording:
        number = int(recording[-3:])
        names = [] if number in self._orphans else [name_of(number)]
        media = [{"mediaId": one, "type": "video/mp4"} for one in names]
        return ScreenRecording.from_json({"id": recording, "region": "r", "mediaFiles": media})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[AuditLedger]:
    ledger = AuditLedger(tmp_path / "state", {})
    ledger.record_calls([("call", 1.0, True, CallVerdict())], [FOLDER])
    yield ledger
    ledger.close()


@pytest.fixture
def activity() -> Activity:
    return Activity()


def create_search(site: FakeSite, ledger: AuditLedger, folder: Path) -> OrphanSearch:
    stop: Any = SimpleNamespace(is_set=lambda: False, wait=lambda seconds: False)
    services: Any = SimpleNamespace(
        rws=site,
        stores=site,
        workspace=SimpleNamespace(path=folder),
        circuit_breaker=SimpleNamespace(is_open=lambda service: False),
        repeat=lambda what, do: do(),
        stop=stop,
    )
    return OrphanSearch(services, ledger, Pace(1e6, None, threading.Event()), now=lambda: NOW)


def found_by(ledger: AuditLedger) -> list[tuple[FindingKind, str]]:
    return [(finding.kind, finding.file.rpartition("/")[2]) for finding, _ in ledger.read_findings()]


def test_rws_is_asked_for_many_recordings_at_a_time(ledger: AuditLedger, tmp_path: Path) -> None:
    site = FakeSite()
    lines = list(create_search(site, ledger, tmp_path).record_orphans())
    assert [len(ids) for ids in site.asked] == [FILES_AT_A_TIME] * 3 and site.asked_singly == []
    assert found_by(ledger) == [] and f"{COUNT} of {COUNT} muxed files" in lines[-1]


def test_each_orphan_is_confirmed_by_its_own_recording(ledger: AuditLedger, tmp_path: Path) -> None:
    """A bulk query may leave out what exists."""
    site = FakeSite(orphans=[7, COUNT - 1])
    list(create_search(site, ledger, tmp_path).record_orphans())
    assert site.asked_singly == ["call-007", f"call-{COUNT - 1}"]
    assert found_by(ledger) == [(FindingKind.ORPHAN, name_of(one)) for one in (7, COUNT - 1)]


def test_an_orphan_is_that_of_its_recording_and_says_why_it_is_kept(ledger: AuditLedger, tmp_path: Path) -> None:
    """Files of recordings that RWS does not know are never deleted: their finding says so."""
    list(create_search(FakeSite(orphans=[7, 8], unknown=[8]), ledger, tmp_path).record_orphans())
    [known, unknown] = [finding for finding, _ in ledger.read_findings()]
    if not known.recording:
        known, unknown = unknown, known
    assert known.recording == "call-007" and "RWS" not in known.detail
    assert unknown.recording == "" and "delete it in the storage yourself" in unknown.detail
    site = FakeSite(orphans=[7, 8], unknown=[8])
    assert [found for _, found in create_search(site, ledger, tmp_path).list_found()] == [known, unknown]


def test_a_name_with_a_line_break_is_one_of_a_muxed_file() -> None:
    assert recording_of_name(f"a\nb_{'a' * 20}_muxed.mp4") == "a\nb"


def test_a_name_that_does_not_show_its_recording_is_unchecked(ledger: AuditLedger, tmp_path: Path) -> None:
    """No metadata can be looked up for it, so it is neither an orphan nor known."""
    long = f"{'x' * 80}_{'a' * 20}_muxed.mp4"
    list(create_search(FakeSite(others=[long]), ledger, tmp_path).record_orphans())
    assert found_by(ledger) == [(FindingKind.UNCHECKED, long)] and not ledger.is_known_name(long)


def test_a_young_orphan_is_asked_for_once_more_at_the_end(ledger: AuditLedger, tmp_path: Path) -> None:
    site = FakeSite(orphans=[7], modified=NOW - 10)
    assert len(list(create_search(site, ledger, tmp_path).record_orphans())) == len(site.asked) == 3
    assert site.asked_singly == ["call-007"] and found_by(ledger) == [(FindingKind.ORPHAN, name_of(7))]


def test_a_recording_that_rws_refuses_is_unchecked(ledger: AuditLedger, tmp_path: Path) -> None:
    list(create_search(FakeSite(refused=[3]), ledger, tmp_path).record_orphans())
    assert found_by(ledger) == [(FindingKind.UNCHECKED, name_of(3))]


def test_a_search_that_was_stopped_goes_on_behind_what_it_has_asked(ledger: AuditLedger, tmp_path: Path) -> None:
    next(create_search(FakeSite(orphans=[7]), ledger, tmp_path).record_orphans())
    site = FakeSite(orphans=[7])
    list(create_search(site, ledger, tmp_path).record_orphans())
    asked = [one for ids in site.asked for one in ids]
    assert asked == [f"call-{number:03}" for number in range(FILES_AT_A_TIME, COUNT)] and site.asked_singly == []
    assert found_by(ledger) == [(FindingKind.ORPHAN, name_of(7))]


def test_progress_is_shown(ledger: AuditLedger, tmp_path: Path, activity: Activity) -> None:
    with activity.track_target("", "", "orphans"):
        next(create_search(FakeSite(), ledger, tmp_path).record_orphans())
        [running] = activity.take_snapshot().running
    assert (running.step, running.done, running.total) == ("orphans", FILES_AT_A_TIME, COUNT)


def test_orphans_that_were_found_are_listed_without_rws(ledger: AuditLedger, tmp_path: Path) -> None:
    list(create_search(FakeSite(orphans=[7]), ledger, tmp_path).record_orphans())
    site = FakeSite(orphans=[7, 8])
    [(orphan, finding)] = create_search(site, ledger, tmp_path).list_found()
    assert orphan.is_unchanged(finding) and finding.file == f"http://dav/screens/{name_of(7)}"
    assert site.asked == [] and site.asked_singly == []
