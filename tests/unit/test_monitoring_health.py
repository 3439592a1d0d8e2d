"""When the muxer counts as alive and as ready, and the reasons reported when it does not."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from muxer.errors import PathForbidden, ServiceUnavailable
from muxer.journal.journal import Journal, TargetKey
from muxer.monitoring import health
from muxer.monitoring.health import liveness_problems, max_poll_silence, readiness_problems
from muxer.monitoring.metrics import MuxerCollector
from muxer.monitoring.view import ViewSources
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.status import heartbeat
from muxer.status.fleet_status import BROKER
from muxer.status.heartbeat import Heartbeat, beat
from tests.support.fleet_views import fleet_view, worker_view
from tests.support.monitoring import create_sources, parse_samples


@pytest.fixture
def sources(tmp_path: Path) -> ViewSources:
    """Return the sources of a healthy muxer, which has polled."""
    polled_sources = create_sources(tmp_path, processing__min_poll_interval=5)
    polled_sources.activity.record_poll_start()
    polled_sources.activity.record_poll_success({}, 0.1, None)
    return polled_sources


def advance_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Advance the clock of the health checks by `seconds`."""
    monotonic, wall = time.monotonic() + seconds, time.time() + seconds
    for module in (health, heartbeat):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: monotonic, time=lambda: wall))


def test_a_healthy_muxer_has_no_reasons(sources: ViewSources) -> None:
    assert liveness_problems(sources) == readiness_problems(sources) == ()


def test_a_muxer_whose_uploads_are_all_refused_is_not_ready(sources: ViewSources, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite3")
    sources = replace(sources, journal=tmp_path / "journal.sqlite3")
    for number in range(3):
        journal.record_failure(TargetKey(f"{number}_muxed.mp4", f"call-{number}"), PathForbidden("403"), time.time())
    [reason] = readiness_problems(sources)
    assert reason.startswith("3 recordings wait for a correction (MUX-214: ") and reason.endswith("none has been muxed yet")
    exposition = MuxerCollector(sources).render_exposition("")[0].decode()
    assert parse_samples(exposition)["muxer_correction_needed"] == 3
    journal.record_done(TargetKey("0_muxed.mp4", "call-0"), time.time(), {"method": "copy"})
    assert readiness_problems(sources) == ()


def test_a_main_loop_that_hangs_is_dead(sources: ViewSources, monkeypatch: pytest.MonkeyPatch) -> None:
    advance_clock(monkeypatch, health.MAX_LOOP_SECONDS + 1)
    assert liveness_problems(sources) == ("the main loop has not run for 61 s",)
    sources.heartbeat.ticked = health.time.monotonic()  # type: ignore[attr-defined]
    assert liveness_problems(sources) == ()


def test_a_poll_that_hangs_is_dead_and_one_that_waits_or_sends_requests_is_not(
    sources: ViewSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = max_poll_silence(sources.config.htcc.rws_timeout)
    advance_clock(monkeypatch, limit + 1)
    sources.heartbeat.ticked = health.time.monotonic()  # type: ignore[attr-defined]
    [reason] = liveness_problems(sources)
    assert reason == f"the poll has made no progress for {limit + 1:.0f} s" and reason in readiness_problems(sources)
    with sources.heartbeat.pause_while_waiting():
        assert liveness_problems(sources) == ()
    sources.heartbeat.polled = health.time.monotonic() - 1  # type: ignore[attr-defined]
    assert liveness_problems(sources) == ()


def test_only_requests_of_the_polling_thread_count_as_heartbeat() -> None:
    heartbeat, circuit_breaker = Heartbeat(), CircuitBreaker()
    heartbeat.polled = 0.0

    def call_service(adopted: bool) -> None:
        if adopted:
            heartbeat.bind_thread()
        with circuit_breaker.call("RWS"):
            pass

    for adopted in (False, True):
        thread = threading.Thread(target=call_service, args=(adopted,))
        thread.start()
        thread.join()
        assert bool(heartbeat.polled) == adopted
    beat()


def test_a_muxer_that_never_polled_is_not_ready(tmp_path: Path) -> None:
    sources = create_sources(tmp_path, htcc__password="very secret")
    assert readiness_problems(sources) == ("no poll has succeeded yet",)
    sources.activity.record_poll_failure("AuthenticationFailed: RWS refused very secret")
    assert readiness_problems(sources) == (
        "no poll has succeeded yet; the last one failed: AuthenticationFailed: RWS refused ***",
    )
    with sources.heartbeat.pause_while_waiting(for_workers=True):
        assert readiness_problems(sources) == ()
    with sources.heartbeat.pause_while_waiting():
        assert readiness_problems(sources) != ()


def test_a_success_three_intervals_ago_is_too_old_unless_the_poll_waits_for_workers(
    sources: ViewSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sources.heartbeat.pause_while_waiting():
        advance_clock(monkeypatch, 890)
        sources.heartbeat.ticked = health.time.monotonic()  # type: ignore[attr-defined]
        assert readiness_problems(sources) == ()
        advance_clock(monkeypatch, 910)
        assert readiness_problems(sources)[-1] == "no poll has succeeded for 910 s"
    with sources.heartbeat.pause_while_waiting(for_workers=True):
        assert readiness_problems(sources) == ()


@pytest.mark.parametrize("name", ["RWS", "RCS", "WebDAV https://dav", "S3 bucket calls"])
def test_an_unavailable_service_is_a_reason_until_it_is_available_again(sources: ViewSources, name: str) -> None:
    with sources.circuit_breaker.call(name):
        pass
    error = ServiceUnavailable("no answer")
    error.service = name
    sources.circuit_breaker.trip(error)
    [reason] = readiness_problems(sources)
    assert reason.startswith(f"{name} is unavailable since 20") and reason.endswith(
        "+00:00: MUX-201 ServiceUnavailable: no answer"
    )
    with sources.circuit_breaker.call(name):
        pass
    assert readiness_problems(sources) == ()


def test_a_service_that_never_worked_points_to_check(sources: ViewSources) -> None:
    error = ServiceUnavailable("no answer")
    error.service = "RWS"
    sources.circuit_breaker.trip(error)
    [reason] = readiness_problems(sources)
    assert reason.endswith("no answer; it has never worked since the start of the muxer: run `check`, which shows the cause")


def test_a_fleet_without_broker_or_workers_is_not_ready(sources: ViewSources) -> None:
    assert readiness_problems(replace(sources, fleet=lambda: fleet_view(worker_view(), queued=3))) == ()
    cut_off = replace(sources, fleet=lambda: fleet_view(worker_view(), connected=False))
    assert readiness_problems(cut_off) == ("RabbitMQ is not connected: no tasks are distributed to the workers",)
    abandoned = replace(sources, fleet=lambda: fleet_view(queued=1))
    assert readiness_problems(abandoned) == ("no worker is running, and 1 muxed file waits for one",)
    with sources.circuit_breaker.call(BROKER):
        pass
    error = ServiceUnavailable("no answer")
    error.service = BROKER
    sources.circuit_breaker.trip(error)
    [reason] = readiness_problems(cut_off)
    assert reason.startswith("RabbitMQ is unavailable since 20"), "reported once"


def test_a_short_disk_and_a_journal_that_is_not_kept_are_reasons(
    sources: ViewSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources.disk, "has_room", lambda: False)
    broken = replace(sources, is_journal_kept=lambda: False)
    assert readiness_problems(broken) == (
        "the disk of temp_dir is nearly full: no new recording is started",
        "the journal cannot be written: failures are kept in memory only",
    )


def test_a_migration_cannot_have_late_polls(tmp_path: Path) -> None:
    assert readiness_problems(create_sources(tmp_path, advanced__call_recording_query_string="limit=1")) == ()


def test_a_poll_over_the_whole_window_may_take_as_long_as_the_last_one(
    sources: ViewSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polls of the newest calls in between are short: their duration says nothing about it."""
    for seconds, is_whole in ((4000.0, True), (2.0, False)):
        sources.activity.record_poll_success({}, seconds, None)
        sources.activity.record_reach(600.0, is_whole=is_whole, seconds_to_whole=0.0)
    with sources.heartbeat.pause_while_waiting():
        for seconds, expected in ((4890, ()), (4910, ("no poll has succeeded for 4910 s",))):
            advance_clock(monkeypatch, seconds)
            sources.heartbeat.ticked = health.time.monotonic()  # type: ignore[attr-defined]
            assert readiness_problems(sources) == expected


def test_a_poll_may_take_as_long_as_it_makes_progress(sources: ViewSources, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the first one over a long window, and one that takes longer than any before it."""
    sources.activity.record_poll_start()
    advance_clock(monkeypatch, 4000)
    now = health.time.monotonic()  # type: ignore[attr-defined]
    sources.heartbeat.ticked = now
    sources.heartbeat.polled = now - 100
    assert readiness_problems(sources) == () and 3890 < poll_progress_metric(sources) < 4000
    sources.heartbeat.polled = now - 1000
    assert readiness_problems(sources)[-1].startswith("no poll has succeeded for 40")
    with sources.heartbeat.pause_while_waiting():
        assert 3990 < poll_progress_metric(sources) < 4100
    sources.activity.schedule_next_poll(5.0)
    assert poll_progress_metric(sources) == 0


def poll_progress_metric(sources: ViewSources) -> float:
    exposition = MuxerCollector(sources).render_exposition("")[0].decode()
    return parse_samples(exposition)["muxer_poll_progress_seconds"]
