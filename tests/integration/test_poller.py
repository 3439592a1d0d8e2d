"""A poll on the lab, without muxing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace

import pytest

from lab.lab import Lab
from muxer.config import load_config
from muxer.errors import ServiceUnavailable
from muxer.gir.rws import RwsClient
from muxer.gir.session import ServiceAccount, ServiceSession
from muxer.gir.targets import MuxTarget
from muxer.journal.journal import Journal
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.polling.poller import Poller
from muxer.scheduling.executor import TargetSink
from tests.support.calls import add_short, write_config
from tests.support.fake_sink import FakeSink

Make = Callable[..., Lab]
MIGRATION = {"advanced__call_recording_query_string": "startTime=0"}


def poller_of(lab: Lab, circuit_breaker: CircuitBreaker, taken: list[MuxTarget], **options: str) -> Poller:
    def take_target(target: MuxTarget) -> bool:
        taken.append(target)
        return True

    return poller_for(lab, circuit_breaker, FakeSink(take_target), **options)


def poller_for(lab: Lab, circuit_breaker: CircuitBreaker, engine: TargetSink, **options: str) -> Poller:
    config = load_config(write_config(lab, **options), {}, {}).config
    user = lab.site.rws_account
    account = ServiceAccount("RWS", lab.rws_url, user.username, user.password, False, 30)
    return Poller(
        config, RwsClient(ServiceSession(account, threading.Event()), lab.ccid), Journal(None), circuit_breaker, engine
    )


@pytest.mark.parametrize(("options", "submitted"), [({}, 0), (MIGRATION, 2)], ids=["poll", "migration"])
def test_only_migration_takes_targets_during_outage(make_lab: Make, options: dict[str, str], submitted: int) -> None:
    """A later poll finds the target again; a migration has only one poll."""
    lab, circuit_breaker, taken = make_lab(), CircuitBreaker(), []
    add_short(lab, range(2))
    error = ServiceUnavailable("the storage is down")
    error.service = f"WebDAV {lab.dav_url}"
    circuit_breaker.trip(error)
    result = poller_of(lab, circuit_breaker, taken, **options).poll()
    assert (result.found, result.submitted, result.waiting) == (2, submitted, 2 - submitted)
    assert len(taken) == submitted


def test_a_recording_that_rws_fails_for_is_distinguished_from_one_without_screen(make_lab: Make) -> None:
    lab, taken = make_lab(), []
    good, bad = add_short(lab, range(2))
    lab.store.add_call((lab.store.get_call(good.id) or {}) | {"id": "without-screen"})
    lab.store.fail_next("rws", "GET", f"/screen-recordings/{bad.id}", 500, times=3)
    poller = poller_of(lab, CircuitBreaker(), taken, processing__batch_read_screen_recording_metadata="0")
    result = poller.poll()
    assert (result.found, result.without_screen, result.skipped, result.submitted) == (3, 1, 1, 1)
    assert list(poller.skipped) == [bad.id] and "500" in poller.skipped[bad.id]
    assert (poller.pending, result.target_count) == (0, 1)


# ---- for a fleet -------------------------------------------------------------------------------------

FLEET_OPTIONS = {"fleet__mode": "broker", "fleet__broker_url": "amqp://unused", "processing__window_past": "2000"}
AGES = {"new": 10, "early": 100, "morning": 600, "yesterday": 1600}


class RecordingIntake(TargetSink):
    """Takes targets at the end of a pass, until it is closed for calls of a certain age."""

    def __init__(self, closed_beyond: float = float("inf")) -> None:
        self.passes: list[list[str]] = [[]]
        self._closed_beyond = closed_beyond

    def submit(self, target: MuxTarget) -> bool:
        self.passes[-1].append(target.recording_id)
        return False

    def flush(self) -> int:
        self.passes.append([])
        return len(self.passes[-2])

    def rejects_older_than(self, minutes: float) -> bool:
        return minutes >= self._closed_beyond


def lab_with_ages(make_lab: Make) -> tuple[Lab, dict[str, str]]:
    lab = make_lab()
    ages = enumerate(AGES.items())
    return lab, {add_short(lab, [number], timedelta(minutes=age))[0].id: name for number, (name, age) in ages}


def test_fleet_receives_newest_calls_first(make_lab: Make) -> None:
    lab, names = lab_with_ages(make_lab)
    engine = RecordingIntake()
    result = poller_for(lab, CircuitBreaker(), engine, **FLEET_OPTIONS).poll()
    met = [[names[one] for one in each] for each in engine.passes if each]
    assert met == [["new"], ["early"], ["morning"], ["yesterday"]]
    assert (result.found, result.ours, result.submitted, result.waiting) == (4, 4, 4, 0)


def test_older_calls_are_not_read_while_the_queue_is_full(make_lab: Make) -> None:
    lab, names = lab_with_ages(make_lab)
    engine = RecordingIntake(closed_beyond=240)
    result = poller_for(lab, CircuitBreaker(), engine, **FLEET_OPTIONS).poll()
    assert [[names[one] for one in each] for each in engine.passes if each] == [["new"], ["early"]]
    assert result.found == 2


def test_slow_reads_of_newest_calls_do_not_starve_older_calls(make_lab: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make_lab()
    add_short(lab, range(6), timedelta(minutes=100))
    engine, clock = RecordingIntake(), [0.0]

    def end_pass() -> int:
        clock[0] += 400  # a pass
        return RecordingIntake.flush(engine)

    engine.flush = end_pass
    monkeypatch.setattr("muxer.polling.poller.time", SimpleNamespace(monotonic=lambda: clock[0]))
    options = {**FLEET_OPTIONS, "processing__window_past": "200", "processing__min_poll_interval": "5"}
    poller_for(lab, CircuitBreaker(), engine, processing__query_slice_size="1", **options).poll()
    assert len(engine.passes) - 1 == 2


def test_newest_calls_are_read_again_during_a_long_poll(make_lab: Make) -> None:
    lab, names = lab_with_ages(make_lab)
    engine = RecordingIntake()
    poller = poller_for(lab, CircuitBreaker(), engine, processing__min_poll_interval="0", **FLEET_OPTIONS)
    late: list[str] = []

    def submit_and_add(target: MuxTarget) -> bool:
        if names.get(target.recording_id) == "morning":  # while it is looked at, a call ends
            late.append(add_short(lab, [99], timedelta(minutes=5))[0].id)
        return RecordingIntake.submit(engine, target)

    engine.submit = submit_and_add
    poller.poll()
    met = [one for each in engine.passes for one in each]
    assert met.index(late[0]) == len(met) - 2 and names[met[-1]] == "yesterday"


def test_found_targets_are_submitted_although_rws_fails_during_pass(make_lab: Make) -> None:
    lab = make_lab(scroll_empty_first_page=False, scroll_repeats_ids=False)
    calls = add_short(lab, range(4))
    engine = RecordingIntake()
    options = {**FLEET_OPTIONS, "advanced__pagination": "2", "advanced__call_recording_extra_query_string": "disable"}
    poller = poller_for(lab, CircuitBreaker(), engine, **options)
    lab.store.fail_next("rws", "GET", "offset=2", 500, times=100, headers={"Retry-After": "0"})
    with pytest.raises(ServiceUnavailable):
        poller.poll()
    assert len(engine.passes[0]) == poller.result.submitted == 2 and set(engine.passes[0]) < {call.id for call in calls}


def test_found_targets_are_submitted_at_once_while_workers_are_idle(make_lab: Make) -> None:
    lab = make_lab()
    add_short(lab, range(5))

    class IdleIntake(RecordingIntake):
        @property
        def needs_targets_now(self) -> bool:
            return bool(self.passes[-1])

    engine = IdleIntake()
    result = poller_for(lab, CircuitBreaker(), engine, processing__query_slice_size="2", **FLEET_OPTIONS).poll()
    assert [len(each) for each in engine.passes if each] == [2, 2, 1]
    assert (result.submitted, result.waiting) == (5, 0)


def test_screen_added_during_a_poll_is_found_by_it(make_lab: Make) -> None:
    lab, names = lab_with_ages(make_lab)
    (late,) = add_short(lab, [99], timedelta(minutes=5))
    screen = lab.store._screens.pop(late.id)
    engine = RecordingIntake()
    poller = poller_for(lab, CircuitBreaker(), engine, processing__min_poll_interval="0", **FLEET_OPTIONS)

    def submit_and_add_screen(target: MuxTarget) -> bool:
        if names.get(target.recording_id) == "morning":
            lab.store._screens[late.id] = screen
        return RecordingIntake.submit(engine, target)

    engine.submit = submit_and_add_screen
    result = poller.poll()
    assert [one for each in engine.passes for one in each].count(late.id) == 1
    assert (result.found, result.ours, result.submitted, result.without_screen) == (5, 5, 5, 0)
    assert (poller.pending, result.target_count) == (0, 5)


def test_newest_calls_are_read_again_while_nothing_new_is_found(make_lab: Make) -> None:
    lab = make_lab(scroll_empty_first_page=False, scroll_repeats_ids=False)
    add_short(lab, range(4))
    engine = RecordingIntake()
    options = {**FLEET_OPTIONS, "advanced__pagination": "1", "advanced__call_recording_extra_query_string": "disable"}
    poller_for(lab, CircuitBreaker(), engine, processing__min_poll_interval="0", **options).poll()
    met = [one for each in engine.passes for one in each]
    assert len(met) == len(set(met)) == 4
    assert len(engine.passes) - 1 >= 4 + 3 * 4, "four passes, and within the later ones one more for each page"
