"""The audit of sites that are unlike others: certificates that change, blank paused spans, shards, a limited pace."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from lab.build import build_calls
from lab.cases import CallPlan, Case, ScreenPart
from lab.lab import Lab
from muxer.audit.pace import Pace
from muxer.commands import audit
from muxer.system.allowed_hours import AllowedHours
from tests.support.calls import add_short, muxed_entries, stored_muxed, write_config
from tests.support.commands import run_in_process, run_subprocess
from tests.support.daemon import run_muxer

Make = Callable[..., Lab]
AGE = timedelta(minutes=30)
EVERYTHING = {"advanced__call_recording_query_string": "startTime=0"}
ENCRYPTED = CallPlan("encrypted", 4, (ScreenPart(0, 4),), encrypted=True)
PAUSED = CallPlan("paused", 6, (ScreenPart(0, 6),), paused=((1, 3),))
# The calls are due: the muxer itself looks at younger ones.
DUE = {"processing__window_past": "15"}


def mux_everything(lab: Lab, **options: str) -> None:
    done = run_muxer(write_config(lab, "migration", **EVERYTHING, **options))
    assert done.process.returncode == 0, done.err


def run_audit(config: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    status, out, err = run_subprocess(config, "audit", "--json", "--rate", "1000", "--query", "startTime=0", *arguments)
    assert status == code, (status, out, err)
    return dict(json.loads(out))


def kinds_of(report: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one["kind"], one["recording"]) for one in report["list"]}


def add_encrypted(lab: Lab, serial: int) -> None:
    build_calls(lab.site, [(Case.ENCRYPTED, ENCRYPTED, (datetime.now(UTC) - AGE).replace(microsecond=0), serial)])


class TestCertificatesThatChange:
    """A site replaces its certificates; RCS keeps the keys of the earlier ones."""

    @pytest.mark.long
    def test_screen_files_show_those_of_earlier_times(self, make_lab: Make) -> None:
        lab = make_lab()
        for serial in range(2):
            add_encrypted(lab, serial)
            add_short(lab, [serial], AGE)
            mux_everything(lab)
            if not serial:
                lab.change_certificates()
        report = run_audit(write_config(lab, **DUE), "--deep", "--orphans")
        assert report["list"] == [] and report["counts"]["deep"] == 4

    @pytest.mark.long
    def test_unencrypted_sources_do_not_so_they_are_stated(self, make_lab: Make, tmp_path: Path) -> None:
        lab, former = make_lab(), tmp_path / "former.pem"
        [before] = add_short(lab, [0], AGE)
        mux_everything(lab)
        former.write_text("".join(one.certificate_file.read_text() for one in lab.change_certificates()))
        add_short(lab, [1], AGE)
        mux_everything(lab)
        config = write_config(lab, **DUE)
        assert kinds_of(run_audit(config, code=4)) == {("wrong_recipient", before.id)}
        report = run_audit(config, "--former-certificates", str(former), "--deep", "--orphans")
        assert report["list"] == [] and report["counts"]["deep"] == 2


@pytest.mark.long
def test_blank_paused_spans_belong_to_what_a_call_should_have(make_lab: Make) -> None:
    lab = make_lab()
    [paused], [plain] = add_short(lab, [0], AGE, PAUSED), add_short(lab, [1], AGE)
    mux_everything(lab, advanced__blank_paused="1")
    config = write_config(lab, **DUE, advanced__blank_paused="1")
    assert run_audit(config, "--deep", "--orphans")["counts"]["deep"] == 2
    # Switched off, the call needs a file without blank spans; that of the other call is right in both cases.
    [blank], [right] = muxed_entries(lab, paused.id), muxed_entries(lab, plain.id)
    config = write_config(lab, **DUE)
    found = kinds_of(run_audit(config, code=4))
    assert found == {("missing", paused.id), ("superseded_left", paused.id)}
    run_audit(config, "--repair", "--yes")
    assert run_audit(config, "--deep", "--orphans")["counts"]["deep"] == 2
    assert blank["mediaId"] not in stored_muxed(lab) and right["mediaId"] in stored_muxed(lab)


def test_two_shards_together_audit_each_call_once(make_lab: Make) -> None:
    lab = make_lab()
    calls = {call.id for call in add_short(lab, range(16), AGE)}
    audited: list[str] = []
    for shard in ("0", "1"):
        options = {"processing__muxer_id": shard, "processing__total_muxers": "2", **DUE}
        report = run_audit(write_config(lab, f"shard-{shard}", **options), "--own-shard", code=4)
        assert 0 < report["counts"]["calls"] == report["findings"]["missing"] < len(calls)
        audited += [one["recording"] for one in report["list"]]
    assert len(audited) == len(calls) and set(audited) == calls
    assert run_audit(write_config(lab, **options), code=4)["counts"]["calls"] == len(calls)


@pytest.mark.long
def test_each_request_waits_for_its_turn(make_lab: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make_lab()
    add_short(lab, range(4), AGE)
    mux_everything(lab)
    paces: list[CountingPace] = []

    class CountingPace(Pace):
        def __init__(self, rate: float, hours: AllowedHours | None, stop: Event, report: Callable[[int], None]) -> None:
            super().__init__(rate, hours, stop, report, lambda: datetime(2026, 3, 1, 21, tzinfo=UTC))
            self.settings, self.turns = (rate, hours), 0
            paces.append(self)

        def await_turn(self) -> None:
            self.turns += 1
            super().await_turn()

    monkeypatch.setattr(audit, "Pace", CountingPace)
    before = len(lab.store.served_requests)
    options = ("--rate", "500", "--hours", "20-6", "--deep", "--orphans")
    code, out, err = run_in_process(write_config(lab, **DUE), "audit", "--json", "--query", "startTime=0", *options)
    assert code == 0, (out, err)
    [pace] = paces
    assert pace.settings == (500, AllowedHours.parse("20-6"))
    # A turn is also waited for before a page that does not come.
    assert len(lab.store.served_requests) - before in (pace.turns, pace.turns - 1)
