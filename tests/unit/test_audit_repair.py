"""What a repair does about the findings of a recording; the job and the sources are simulated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muxer.audit import repair
from muxer.audit.call_rules import CallVerdict
from muxer.audit.findings import Finding, FindingKind
from muxer.audit.ledger import AuditLedger
from muxer.audit.repair import Repairer
from muxer.audit.source_check import SourceState
from muxer.errors import MetadataError

CALL = "call-1"


def create_target(agent: str) -> SimpleNamespace:
    media = SimpleNamespace(media_id=f"{agent}_muxed.mp4")
    return SimpleNamespace(
        agent=agent,
        file_name=media.media_id,
        source_ids=("audio.mp3", f"{agent}.mp4"),
        covering_files=(media,),
        same_source_files=(media,),
        needs_work=False,
    )


class FakeJob:
    """Records which targets are muxed again."""

    def __init__(self, agents: Sequence[str], unreadable: str = "", label: str = "muxed") -> None:
        self._targets = {one.file_name: one for one in map(create_target, agents)}
        self._unreadable, self._label = unreadable, label
        self.muxed: list[str] = []

    def read_targets(self, recording: str) -> Sequence[Any]:
        if recording == self._unreadable:
            raise MetadataError("it cannot be read")
        return list(self._targets.values())

    def find_target(self, recording: str, name: str) -> Any:
        return None if name in self.muxed else self._targets.get(name)

    def run(self, target: Any, *, again: bool) -> Any:
        self.muxed.append(target.file_name)
        return SimpleNamespace(facts={"label": self._label})


def run_repair(
    job: FakeJob, folder: Path, monkeypatch: pytest.MonkeyPatch, *findings: Finding, errors: dict[str, str] | None = None
) -> list[str]:
    """Return what was done about each finding that a repair can correct."""
    monkeypatch.setattr(repair, "check_sources", lambda services, target: SourceState(errors or {}, True))
    ledger = AuditLedger(folder / "state", {})
    ledger.record_calls([(one.recording, 1.0, True, CallVerdict((one,))) for one in findings], [])
    services, stateless = SimpleNamespace(), SimpleNamespace()
    done = [what for _, what in Repairer(services, job, ledger, stateless).repair_findings()]
    ledger.close()
    return done


def about(kind: FindingKind, agent: str = "a", recording: str = CALL) -> Finding:
    name = f"{agent}_muxed.mp4"
    return Finding(kind, recording, name, "", name)


EXISTING = [FindingKind.NOT_ENCRYPTED, FindingKind.WRONG_RECIPIENT, FindingKind.WRONG_LENGTH, FindingKind.DAMAGED]


@pytest.mark.parametrize("kind", EXISTING)
def test_a_stored_file_is_not_replaced_from_a_source_with_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: FindingKind
) -> None:
    job = FakeJob("a")
    [done] = run_repair(job, tmp_path, monkeypatch, about(kind), errors={"a.mp4": "error at 3 s"})
    assert done == "not repaired: a source is damaged: a.mp4: error at 3 s" and job.muxed == []


@pytest.mark.parametrize("kind", EXISTING)
def test_a_stored_file_is_not_replaced_from_a_source_that_the_audit_found_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: FindingKind
) -> None:
    """Such as one that is shorter than its metadata say, which decodes without an error."""
    job, source = FakeJob("a"), Finding(FindingKind.SOURCE_DAMAGED, CALL, "a.mp4", "5 bytes instead of 9")
    [done] = run_repair(job, tmp_path, monkeypatch, about(kind), source)
    assert "a.mp4: 5 bytes instead of 9" in done and job.muxed == []


def test_a_missing_file_is_made_of_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, other = FakeJob("ab"), about(FindingKind.DAMAGED, "b")
    missing, damaged = run_repair(
        job, tmp_path, monkeypatch, about(FindingKind.FILE_MISSING), other, errors={"audio.mp3": "error at 3 s"}
    )
    assert missing == "repaired" and job.muxed == ["a_muxed.mp4"] and "a source is damaged" in damaged


@pytest.mark.parametrize("kind", EXISTING)
def test_a_stored_file_is_replaced_from_whole_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: FindingKind
) -> None:
    job = FakeJob("a")
    assert run_repair(job, tmp_path, monkeypatch, about(kind)) == ["repaired"] and job.muxed == ["a_muxed.mp4"]


def test_a_refused_label_is_not_called_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [done] = run_repair(FakeJob("a", label="refused"), tmp_path, monkeypatch, about(FindingKind.DAMAGED))
    assert "RWS refuses the label" in done and done not in repair.CLOSED


def test_a_recording_that_cannot_be_read_does_not_end_the_repair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = FakeJob("a", unreadable="call-0")
    unreadable = Finding(FindingKind.WRONG_RECIPIENT, "call-0", "x_muxed.mp4", "")
    first, second = run_repair(job, tmp_path, monkeypatch, unreadable, about(FindingKind.DAMAGED))
    assert "it cannot be read" in first and second == "repaired"
