"""What a repair does about the findings of a recording; the job and the sources are simulated."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muxer.audit import repair
from muxer.audit.call_rules import CallVerdict, Look
from muxer.audit.findings import Finding, FindingKind
from muxer.audit.ledger import AuditLedger
from muxer.audit.repair import Repairer
from muxer.audit.source_check import SourceState
from muxer.errors import MetadataError
from muxer.gir.models import MediaFile
from muxer.gir.muxed_names import muxed_name
from muxer.storage.base import ObjectInfo

CALL = "call-1"


def muxed_media(agent: str, addition: str = "", name: str = "") -> MediaFile:
    """Return a muxed file of an agent; `addition` is that of a second one, `name` a name that the muxer does not give."""
    sources = ["audio.mp3", f"{agent}.mp4"]
    media_id = name or muxed_name(CALL, sources).replace("_muxed", f"{addition}_muxed")
    place = {"storage": "webDAV", "path": media_id, "data": {"storagePath": "http://dav/x/"}}
    raw = {"mediaId": media_id, "type": "video/mp4", "size": "100", "originalMediaDescriptor": place}
    return MediaFile.from_json(raw | {"parameters": {"muxed_mediaIds": sources}})


def create_target(agent: str, *media: MediaFile) -> SimpleNamespace:
    return SimpleNamespace(
        agent=agent,
        file_name=muxed_media(agent).media_id,
        source_ids=("audio.mp3", f"{agent}.mp4"),
        covering_files=media,
        same_source_files=media,
        needs_work=False,
    )


class FakeJob:
    """Records which targets are muxed again; then only a muxed file with another name is published."""

    def __init__(self, *targets: SimpleNamespace, unreadable: str = "", label: str = "muxed") -> None:
        self._targets = {one.file_name: one for one in targets}
        self._unreadable, self._label = unreadable, label
        self.muxed: list[str] = []

    def read_targets(self, recording: str) -> Sequence[Any]:
        if recording == self._unreadable:
            raise MetadataError("it cannot be read")
        return list(self._targets.values())

    def find_target(self, recording: str, name: str) -> Any:
        return self._targets.get(name)

    def run(self, target: Any, *, again: bool) -> Any:
        self.muxed.append(target.agent)
        self._targets[target.file_name] = create_target(target.agent, muxed_media(target.agent, "-9"))
        return SimpleNamespace(facts={"label": self._label})


class FakeSite:
    """The storage and RWS: which files are stored with the length in their metadata, and what is deleted."""

    def __init__(self, missing: Sequence[str] = (), errors: dict[str, str] | None = None) -> None:
        self.missing, self.errors = missing, errors or {}
        self.deleted: list[str] = []
        publisher = SimpleNamespace(recording_lock=lambda recording: nullcontext())
        superseded = SimpleNamespace(delete_file=lambda recording, media, by: self.deleted.append(media.media_id))
        self.services = SimpleNamespace(publisher=publisher, superseded=superseded)

    def look_at_result(self, media: MediaFile) -> Look:
        return Look() if media.media_id in self.missing else Look(found=True, info=ObjectInfo(100))


@dataclass
class Repair:
    """A function that repairs findings: it returns what was done about each that a repair can correct."""

    folder: Path
    patch: pytest.MonkeyPatch

    def __call__(self, job: FakeJob, site: FakeSite, *findings: Finding, delete_superseded: bool = True) -> list[str]:
        self.patch.setattr(repair, "check_sources", lambda services, target: SourceState(site.errors, True))
        self.patch.setattr(repair, "FileLook", lambda services, pace: site)
        ledger = AuditLedger(self.folder / "state", {})
        ledger.record_calls([(one.recording, 1.0, True, CallVerdict((one,))) for one in findings], [])
        options: Any = (site.services, job, ledger, SimpleNamespace())
        repairer = Repairer(*options, delete_superseded=delete_superseded)
        done = [what for _, what in repairer.repair_findings()]
        ledger.close()
        return done


@pytest.fixture
def run_repair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repair:
    return Repair(tmp_path, monkeypatch)


def about(kind: FindingKind, media: MediaFile, detail: str = "") -> Finding:
    return Finding(kind, CALL, media.media_id, detail)


A, SECOND = muxed_media("a"), muxed_media("a", "-2")
EXISTING = [FindingKind.NOT_ENCRYPTED, FindingKind.WRONG_RECIPIENT, FindingKind.DAMAGED]


@pytest.mark.parametrize("kind", EXISTING)
def test_a_stored_file_is_not_replaced_from_a_source_with_errors(run_repair: Repair, kind: FindingKind) -> None:
    job, site = FakeJob(create_target("a", A)), FakeSite(errors={"a.mp4": "error at 3 s"})
    [done] = run_repair(job, site, about(kind, A))
    assert done == "not repaired: a source is damaged: a.mp4: error at 3 s" and job.muxed == []


@pytest.mark.parametrize("kind", EXISTING)
def test_a_stored_file_is_not_replaced_from_a_source_that_the_audit_found_damaged(
    run_repair: Repair, kind: FindingKind
) -> None:
    """Such as one that is shorter than its metadata say, which decodes without an error."""
    job, source = FakeJob(create_target("a", A)), Finding(FindingKind.SOURCE_DAMAGED, CALL, "a.mp4", "5 bytes instead of 9")
    [done] = run_repair(job, FakeSite(), about(kind, A), source)
    assert "a.mp4: 5 bytes instead of 9" in done and job.muxed == []


@pytest.mark.parametrize("kind", EXISTING)
def test_a_file_that_could_not_be_compared_is_not_replaced(run_repair: Repair, kind: FindingKind) -> None:
    job = FakeJob(create_target("a", A))
    doubt = about(FindingKind.UNCHECKED, A, "compare both with a backup")
    [done] = run_repair(job, FakeSite(), about(kind, A), doubt)
    assert "compare both with a backup" in done and job.muxed == [] and done not in repair.CLOSED


@pytest.mark.parametrize("kind", EXISTING)
def test_a_stored_file_is_replaced_from_whole_sources(run_repair: Repair, kind: FindingKind) -> None:
    job = FakeJob(create_target("a", A))
    assert run_repair(job, FakeSite(), about(kind, A)) == ["repaired"] and job.muxed == ["a"]


def test_a_missing_file_is_made_of_what_there_is(run_repair: Repair) -> None:
    other = muxed_media("b")
    job = FakeJob(create_target("a", A), create_target("b", other))
    site = FakeSite(missing=[A.media_id], errors={"audio.mp3": "error at 3 s"})
    missing, damaged = run_repair(job, site, about(FindingKind.FILE_MISSING, A), about(FindingKind.DAMAGED, other))
    assert missing == "repaired" and job.muxed == ["a"] and "a source is damaged" in damaged


@pytest.mark.parametrize("kind", sorted(repair.ABOUT_STORAGE))
def test_a_file_that_is_back_is_left_alone(run_repair: Repair, kind: FindingKind) -> None:
    """The storage was incomplete during the audit."""
    job, site = FakeJob(create_target("a", A)), FakeSite(errors={"a.mp4": "error at 3 s"})
    assert run_repair(job, site, about(kind, A)) == [repair.CORRECTED] and job.muxed == []


class TestPublishedTwice:
    TWICE = about(FindingKind.PUBLISHED_TWICE, SECOND)

    def test_one_of_two_right_files_is_deleted(self, run_repair: Repair) -> None:
        site = FakeSite()
        assert run_repair(FakeJob(create_target("a", A, SECOND)), site, self.TWICE) == ["repaired"]
        assert site.deleted == [SECOND.media_id]

    def test_none_is_deleted_when_one_could_not_be_compared(self, run_repair: Repair) -> None:
        site, doubt = FakeSite(), about(FindingKind.UNCHECKED, A, "compare both with a backup")
        [done] = run_repair(FakeJob(create_target("a", A, SECOND)), site, self.TWICE, doubt)
        assert "compare both with a backup" in done and site.deleted == []

    def test_none_is_deleted_when_a_source_is_damaged(self, run_repair: Repair) -> None:
        site = FakeSite(errors={"a.mp4": "error at 3 s"})
        [done] = run_repair(FakeJob(create_target("a", A, SECOND)), site, self.TWICE)
        assert "a source is damaged" in done and site.deleted == []

    def test_a_file_with_a_name_of_something_else_is_never_deleted(self, run_repair: Repair) -> None:
        """Its entry states the same sources; its location may be that of a source of another recording."""
        site, other = FakeSite(), muxed_media("a", name="agent2_other_screen.mp4")
        [done] = run_repair(FakeJob(create_target("a", A, other)), site, about(FindingKind.PUBLISHED_TWICE, other))
        assert other.media_id in done and done not in repair.CLOSED and site.deleted == []

    def test_nothing_is_deleted_when_superseded_files_are_to_stay(self, run_repair: Repair) -> None:
        site = FakeSite()
        [done] = run_repair(FakeJob(create_target("a", A, SECOND)), site, self.TWICE, delete_superseded=False)
        assert "delete_superseded is 0" in done and site.deleted == []


def test_a_refused_label_is_not_called_repaired(run_repair: Repair) -> None:
    [done] = run_repair(FakeJob(create_target("a", A), label="refused"), FakeSite(), about(FindingKind.DAMAGED, A))
    assert "RWS refuses the label" in done and done not in repair.CLOSED


def test_a_recording_that_cannot_be_read_does_not_end_the_repair(run_repair: Repair) -> None:
    job = FakeJob(create_target("a", A), unreadable="call-0")
    unreadable = Finding(FindingKind.WRONG_RECIPIENT, "call-0", "x_muxed.mp4", "")
    first, second = run_repair(job, FakeSite(), unreadable, about(FindingKind.DAMAGED, A))
    assert "it cannot be read" in first and second == "repaired"


@pytest.mark.parametrize("kind", sorted(repair.MUX_AGAIN))
def test_a_file_that_the_storage_cannot_show_is_not_replaced(run_repair: Repair, kind: FindingKind) -> None:
    class SilentSite(FakeSite):
        def look_at_result(self, media: MediaFile) -> Look:
            return Look(unknown="HTTP 503")

    job = FakeJob(create_target("a", A))
    [done] = run_repair(job, SilentSite(errors={"a.mp4": "error at 3 s"}), about(kind, A))
    assert done == f"not repaired: {A.media_id} could not be checked: HTTP 503" and job.muxed == []
