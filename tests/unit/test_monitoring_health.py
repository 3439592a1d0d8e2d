"""When the muxer counts as alive and as ready, and what is said when not."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.support.fleet import fleet, worker
from tests.support.monitoring import made_sources

from muxer.errors import ServiceUnavailable
from muxer.fleet.view import BROKER
from muxer.monitoring import health
from muxer.monitoring.health import poll_limit, unalive, unready
from muxer.monitoring.view import Sources
from muxer.outages import Outages
from muxer.pulse import Pulse, beat


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """Return the sources of a muxer that is well: it has polled."""
    made = made_sources(tmp_path, processing__min_poll_interval=5)
    made.activity.poll_begun()
    made.activity.poll_done({}, 0.1, None)
    return made


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let so many seconds pass for the health alone."""
    monotonic, wall = time.monotonic() + seconds, time.time() + seconds
    monkeypatch.setattr(health, "time", SimpleNamespace(monotonic=lambda: monotonic, time=lambda: wall))


def test_a_muxer_that_is_well_has_no_reasons(sources: Sources) -> None:
    assert unalive(sources) == unready(sources) == ()


def test_a_main_loop_that_stands_still_is_dead(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    later(monkeypatch, health.LOOP_SECONDS + 1)
    assert unalive(sources) == ("the main loop has not run for 61 s",)
    sources.pulse.ticked = health.time.monotonic()
    assert unalive(sources) == ()


def test_a_poll_that_hangs_is_dead_and_one_that_waits_or_talks_is_not(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = poll_limit(sources.config.htcc.rws_timeout)
    later(monkeypatch, limit + 1)
    sources.pulse.ticked = health.time.monotonic()
    [reason] = unalive(sources)
    assert reason == f"the poll has not got on for {limit + 1:.0f} s" and reason in unready(sources)
    with sources.pulse.waiting():
        assert unalive(sources) == ()
    sources.pulse.polled = health.time.monotonic() - 1
    assert unalive(sources) == ()


def test_only_the_thread_that_polls_counts_as_its_sign_of_life() -> None:
    pulse, outages = Pulse(), Outages()
    pulse.polled = 0.0

    def talk(adopted: bool) -> None:
        if adopted:
            pulse.adopt()
        with outages.talking("RWS"):
            pass

    for adopted in (False, True):
        thread = threading.Thread(target=talk, args=(adopted,))
        thread.start()
        thread.join()
        assert bool(pulse.polled) == adopted
    beat()


def test_a_muxer_that_never_polled_is_not_ready(tmp_path: Path) -> None:
    sources = made_sources(tmp_path, htcc__password="very secret")
    assert unready(sources) == ("no poll has succeeded yet",)
    sources.activity.poll_failed("LoginRefused: RWS refused very secret")
    assert unready(sources) == ("no poll has succeeded yet; the last one failed: LoginRefused: RWS refused ***",)
    with sources.pulse.waiting(for_workers=True):
        assert unready(sources) == ()
    with sources.pulse.waiting():
        assert unready(sources) != ()


def test_a_success_of_three_intervals_ago_is_too_old_unless_workers_are_awaited(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sources.pulse.waiting():
        later(monkeypatch, 890)
        sources.pulse.ticked = health.time.monotonic()
        assert unready(sources) == ()
        later(monkeypatch, 910)
        assert unready(sources)[-1] == "no poll has succeeded for 910 s"
    with sources.pulse.waiting(for_workers=True):
        assert unready(sources) == ()


@pytest.mark.parametrize("name", ["RWS", "RCS", "WebDAV https://dav", "S3 bucket calls"])
def test_a_service_that_is_out_is_a_reason_until_it_is_back(sources: Sources, name: str) -> None:
    error = ServiceUnavailable("no answer")
    error.service = name
    sources.outages.declare(error)
    [reason] = unready(sources)
    assert reason.startswith(f"{name} is out since 20") and reason.endswith("+00:00: MUX-201 ServiceUnavailable: no answer")
    with sources.outages.talking(name):
        pass
    assert unready(sources) == ()


def test_a_fleet_whose_broker_is_out_or_that_has_no_workers_is_not_ready(sources: Sources) -> None:
    assert unready(replace(sources, fleet=lambda: fleet(worker(), queued=3))) == ()
    cut_off = replace(sources, fleet=lambda: fleet(worker(), connected=False))
    assert unready(cut_off) == ("RabbitMQ is not reached: nothing is handed to the workers",)
    abandoned = replace(sources, fleet=lambda: fleet(queued=1))
    assert unready(abandoned) == ("no worker is there, and 1 muxed file waits for one",)
    error = ServiceUnavailable("no answer")
    error.service = BROKER
    sources.outages.declare(error)
    [reason] = unready(cut_off)
    assert reason.startswith("RabbitMQ is out since 20"), "said once"


def test_a_short_disk_and_a_journal_that_is_not_kept_are_reasons(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.disk, "has_room", lambda: False)
    broken = replace(sources, is_journal_kept=lambda: False)
    assert unready(broken) == (
        "the disk of temp_dir is nearly full: no new recording is begun",
        "the journal cannot be written: failures are known to this process only",
    )


def test_a_migration_has_no_polls_to_be_late(tmp_path: Path) -> None:
    assert unready(made_sources(tmp_path, advanced__call_recording_query_string="limit=1")) == ()
