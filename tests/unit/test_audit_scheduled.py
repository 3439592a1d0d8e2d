"""The state of a regular audit: it goes on only for the same site, and is kept when it cannot be opened."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muxer.audit import scheduled
from muxer.audit.findings import Finding, FindingKind
from muxer.audit.ledger import LEDGER_FILE, AuditLedger
from muxer.audit.scheduled import ScheduledAudit
from muxer.config import load_config
from muxer.config.schema import Config
from muxer.errors import LocalResourceError
from muxer.status.last_audit import LastAudit, write_last_audit

FINDING = Finding(FindingKind.MISSING, "call-1", "", "")


class StoppedAuditor:
    """An auditor that finds something, and then fails."""

    def __init__(self, config: Config, services: Any, ledger: Any, *_: Any) -> None:
        self._ledger = ledger

    def audit_calls(self) -> Iterator[None]:
        self._ledger.add_findings([FINDING])
        raise LocalResourceError("stopped by the test")
        yield


class EmptyAuditor(StoppedAuditor):
    """An auditor that finds nothing more."""

    def audit_calls(self) -> Iterator[None]:
        return iter(())


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "muxer.cfg"
    path.write_text("[htcc]\nbase_uri = https://rws\ncontact_center_id = a\npassword = secret\n[audit]\nevery = 7\n")
    return load_config(path, {}, {}).config


def run_audit(config: Config, folder: Path, auditor: type[StoppedAuditor], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run an audit; return the number of its findings."""
    monkeypatch.setattr(scheduled, "Auditor", auditor)
    services: Any = SimpleNamespace(workspace=SimpleNamespace(path=folder), stop=threading.Event())
    return ScheduledAudit(config, services).run_audit().finding_count


@pytest.mark.parametrize(("site", "muxer_id", "found"), [("a", -1, 1), ("b", -1, 0), ("a", 0, 0)])
def test_only_an_audit_of_the_same_site_and_shard_is_continued(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: str, muxer_id: int, found: int
) -> None:
    with pytest.raises(LocalResourceError):
        run_audit(config, tmp_path, StoppedAuditor, monkeypatch)
    other = replace(
        config,
        htcc=replace(config.htcc, contact_center_id=site),
        processing=replace(config.processing, muxer_id=muxer_id, total_muxers=2),
    )
    assert run_audit(other, tmp_path, EmptyAuditor, monkeypatch) == found


def test_a_full_disk_does_not_delete_the_state(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LocalResourceError):
        run_audit(config, tmp_path, StoppedAuditor, monkeypatch)
    before = (tmp_path / LEDGER_FILE).read_bytes()

    def fail(*_: Any) -> None:
        raise LocalResourceError("the disk is full")

    monkeypatch.setattr(AuditLedger, "_check_request", fail)
    with pytest.raises(LocalResourceError, match="disk is full"):
        run_audit(config, tmp_path, EmptyAuditor, monkeypatch)
    assert (tmp_path / LEDGER_FILE).read_bytes() == before


def test_an_audit_that_ended_in_the_future_does_not_delay_the_next_one(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock was years ahead for a while."""
    now = 1_800_000_000.0
    write_last_audit(tmp_path, LastAudit(at=now + 1e8, start=now, end=now + 1e8))
    monkeypatch.setattr(scheduled, "Auditor", EmptyAuditor)
    services: Any = SimpleNamespace(workspace=SimpleNamespace(path=tmp_path), stop=threading.Event())
    audit = ScheduledAudit(config, services, lambda: now)
    assert audit.is_due()
    done = audit.run_audit()
    assert done.start < done.end < now and not audit.is_due()
