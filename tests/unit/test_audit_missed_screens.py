"""An audit says that RWS may have hidden screen recordings: only when that is so, and also when it was stopped since."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muxer.audit import auditor as auditor_module
from muxer.audit.auditor import MISSED_SCREENS, Auditor
from muxer.audit.call_rules import SiteRules
from muxer.audit.ledger import LEDGER_FILE, AuditLedger
from muxer.audit.pace import Pace
from muxer.audit.scope import AuditScope
from muxer.audit.spans import Span
from muxer.config import load_config
from muxer.config.schema import Config
from muxer.errors import NotFound, ServiceUnavailable
from muxer.gir.models import CallRecording
from muxer.gir.responses import HttpResponse
from muxer.gir.rws import RwsClient
from muxer.gir.session import ServiceAccount, ServiceSession
from muxer.system.iso_time import parse_time

ACCOUNT = ServiceAccount("RWS", "http://rws", "ops", "secret", trusted_ca=False, timeout=30)


class EmptySession(ServiceSession):
    """A session whose bulk queries return nothing. Calls whose ids begin with `call` have a screen recording."""

    def __init__(self) -> None:
        super().__init__(ACCOUNT, threading.Event())

    def _send_and_read(self, method: str, target: str, body: Any = None) -> HttpResponse:
        name = target.rpartition("/")[2]
        if "?ids=" in target:
            return HttpResponse("RWS GET", 200, {}, b'{"statusCode": 0, "recordings": []}')
        if not name.startswith("call"):
            raise NotFound("HTTP 404", 404)
        media = f'[{{"mediaId": "{name}.mp4", "startTime": "2026-01-01T00:00:00.000+0000"}}]'
        return HttpResponse("RWS GET", 200, {}, f'{{"recording": {{"id": "{name}", "mediaFiles": {media}}}}}'.encode())


class ListAuditor(Auditor):
    """An auditor of calls with these ids, one after the other; at `outage` RWS is unavailable."""

    ids: tuple[str, ...] = ()

    def _read_rules(self) -> SiteRules:
        now = parse_time("2026-02-01T00:00:00.000+0000")
        assert now is not None
        return SiteRules(now)

    def _read_calls(self, query: str, span: Span | None) -> Iterator[list[CallRecording]]:
        for one in self.ids:
            if one == "outage":
                raise ServiceUnavailable("RWS GET: connection refused")
            yield [call for call in [CallRecording.from_json({"id": one})] if self._is_wanted(call, span)]


@pytest.fixture(autouse=True)
def one_call_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditor_module, "CALLS_AT_A_TIME", 1)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "muxer.cfg"
    site = "[htcc]\nbase_uri = https://rws\ncontact_center_id = a\npassword = secret\n"
    path.write_text(f"{site}[advanced]\nconcurrent_queries = 1\n")
    return load_config(path, {}, {}).config


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[AuditLedger]:
    opened = AuditLedger(tmp_path / LEDGER_FILE, {})
    yield opened
    opened.close()


def audit(config: Config, ledger: AuditLedger, rws: RwsClient, *ids: str) -> list[str]:
    """Audit calls with these ids; return the details of the findings about RWS."""
    services: Any = SimpleNamespace(rws=rws, stop=threading.Event())
    auditor = ListAuditor(config, services, ledger, AuditScope(None, "a=b"), Pace(1000, None, services.stop))
    auditor.ids = ids
    try:
        for _ in auditor.audit_calls():
            pass
    except ServiceUnavailable:
        assert "outage" in ids
    return [one.detail for one, _ in ledger.read_findings() if one.file == "screen recordings"]


def test_what_was_found_out_late_is_said_once(config: Config, ledger: AuditLedger) -> None:
    assert audit(config, ledger, RwsClient(EmptySession(), "c"), "none", "call", "none-2", "call-2") == [MISSED_SCREENS]


def test_what_was_found_out_before_an_outage_is_not_lost(config: Config, ledger: AuditLedger) -> None:
    audit(config, ledger, RwsClient(EmptySession(), "c"), "none", "call", "outage")
    assert audit(config, ledger, RwsClient(EmptySession(), "c"), "none", "call") == [MISSED_SCREENS]


def test_what_was_trusted_before_an_outage_is_not_forgotten(config: Config, ledger: AuditLedger) -> None:
    assert not audit(config, ledger, RwsClient(EmptySession(), "c"), "none", "outage") and ledger.is_seen("none")
    assert audit(config, ledger, RwsClient(EmptySession(), "c"), "none", "call") == [MISSED_SCREENS]


def test_what_polls_have_found_out_before_is_no_finding(config: Config, ledger: AuditLedger) -> None:
    """A regular audit uses the client of the daemon, which reads the screen recordings one by one since then."""
    rws = RwsClient(EmptySession(), "c")
    assert not rws.fetch_screen_recordings(["none"]) and set(rws.fetch_screen_recordings(["call"])) == {"call"}
    assert not audit(config, ledger, rws, "none-2", "call-2")


def test_polls_read_in_bulk_after_an_audit_of_calls_without_screens(config: Config, ledger: AuditLedger) -> None:
    rws = RwsClient(EmptySession(), "c")
    assert not audit(config, ledger, rws, "none") and rws.reads_in_bulk
