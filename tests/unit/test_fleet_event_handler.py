"""How a poller handles events of workers and other pollers; a migration handles only those for its own targets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muxer.errors import ServiceUnavailable
from muxer.fleet import events
from muxer.fleet.event_handler import EventHandler
from muxer.fleet.events import Event
from muxer.fleet.outstanding_orders import MAX_GAP_SECONDS, SETTLE_SECONDS, IdleTimer, OutstandingOrder
from muxer.journal.journal import DONE, JOURNAL_FILE, QUEUED, RUNNING, WANTED, Journal, TargetKey
from muxer.journal.retry_policy import classify_error
from muxer.scheduling.outcome_recorder import OutcomeRecorder
from muxer.status.activity import Activity
from muxer.status.fleet_status import SILENT_SECONDS

NOW = 1_000_000.0
KEY, OTHER = TargetKey("c1_muxed.mp4", "c1", "agent"), TargetKey("c2_muxed.mp4", "c2", "agent")
MUXED_DETAILS = {"outcome": "muxed", "facts": {}}
FAILED_DETAILS = {"failure": vars(classify_error(ServiceUnavailable("no answer"))), "level": 40, "more": False}


class OutcomeScenario:
    """An event handler with a journal; the clock is set by the test."""

    def __init__(self, path: Path, only_ours: bool) -> None:
        self.journal = Journal(path / JOURNAL_FILE)
        self.recorder = OutcomeRecorder(self.journal, only_ours)
        self.outcomes = EventHandler("host/poller/one", only_ours, self.journal, self.recorder, Activity())

    def handle_event(self, what: str, key: TargetKey = KEY, sender: str = "host/worker-0/7", **details: Any) -> None:
        self.outcomes.handle(Event(what, sender, key.recording, key.name, details))

    @property
    def outstanding_names(self) -> set[str]:
        return {held.key.name for held in self.outcomes.outstanding.all_orders}


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the poller's clock; the test sets its one element."""
    at = [NOW]
    monkeypatch.setattr("muxer.fleet.event_handler.epoch_now", lambda: at[0])
    return at


@pytest.fixture
def create_scenario(tmp_path: Path, now: list[float]) -> Callable[[bool], OutcomeScenario]:
    return lambda only_ours: OutcomeScenario(tmp_path, only_ours)


def test_a_poller_knows_the_tasks_of_another_poller(create_scenario: Callable[[bool], OutcomeScenario]) -> None:
    scenario = create_scenario(False)
    scenario.handle_event(events.QUEUED, message="m1", sender="host/poller/two")
    assert scenario.outstanding_names == {KEY.name} and scenario.journal.state_of(KEY.name) == QUEUED
    scenario.handle_event(events.DONE, **MUXED_DETAILS)
    assert (scenario.outstanding_names, scenario.journal.state_of(KEY.name), scenario.recorder.muxed) == (set(), DONE, 1)
    assert scenario.outcomes.is_taken(KEY.name), "this poll has read an older state"
    scenario.outcomes.begin_poll()
    assert not scenario.outcomes.is_taken(KEY.name)


def test_a_task_reported_after_its_end_is_not_outstanding(create_scenario: Callable[[bool], OutcomeScenario]) -> None:
    scenario = create_scenario(False)
    scenario.handle_event(events.DONE, **MUXED_DETAILS)
    scenario.handle_event(events.QUEUED, message="m1", sender="host/poller/two")
    assert (scenario.outstanding_names, scenario.journal.state_of(KEY.name)) == (set(), DONE)


@pytest.mark.parametrize(("what", "details"), [(events.FAILED, FAILED_DETAILS), (events.POSTPONED, {})])
def test_a_task_reported_after_its_failure_is_not_outstanding(
    create_scenario: Callable[[bool], OutcomeScenario], what: str, details: dict[str, Any]
) -> None:
    """Otherwise it would count as waiting for hours."""
    scenario = create_scenario(False)
    scenario.handle_event(what, message="m1", **details)
    scenario.handle_event(events.QUEUED, message="m1", sender="host/poller/two")
    assert scenario.outstanding_names == set()
    scenario.handle_event(events.QUEUED, message="m2", sender="host/poller/two")
    assert scenario.outstanding_names == {KEY.name}


def test_a_poller_ignores_its_own_events(create_scenario: Callable[[bool], OutcomeScenario]) -> None:
    scenario = create_scenario(False)
    scenario.handle_event(events.QUEUED, message="m1", sender="host/poller/one")
    assert scenario.outstanding_names == set()


def test_a_migration_handles_only_its_own_targets(create_scenario: Callable[[bool], OutcomeScenario]) -> None:
    scenario = create_scenario(True)
    scenario.outcomes.record_order(KEY, "m1")
    scenario.handle_event(events.QUEUED, OTHER, message="m9", sender="host/poller/two")
    scenario.handle_event(events.BEGUN, OTHER, message="m9")
    assert scenario.outstanding_names == {KEY.name}
    scenario.handle_event(events.FAILED, OTHER, message="m9", **FAILED_DETAILS)
    scenario.handle_event(events.DONE, OTHER, message="m9", **MUXED_DETAILS)
    assert (scenario.recorder.muxed, scenario.recorder.failures) == (0, {})


def test_a_migration_ignores_the_failure_of_another_task_for_its_target(
    create_scenario: Callable[[bool], OutcomeScenario],
) -> None:
    scenario = create_scenario(True)
    scenario.outcomes.record_order(KEY, "m1")
    for what, details in ((events.FAILED, FAILED_DETAILS), (events.POSTPONED, {}), (events.DROPPED, {})):
        scenario.handle_event(what, message="m9", **details)
    assert (scenario.outstanding_names, scenario.recorder.failures) == ({KEY.name}, {})
    scenario.handle_event(events.FAILED, message="m1", **FAILED_DETAILS)
    assert scenario.outstanding_names == set() and list(scenario.recorder.failures) == [KEY.name]


def test_a_target_of_a_migration_counts_as_done_whoever_muxed_it(create_scenario: Callable[[bool], OutcomeScenario]) -> None:
    scenario = create_scenario(True)
    scenario.outcomes.record_order(KEY, "m1")
    scenario.handle_event(events.DONE, message="m9", **MUXED_DETAILS)
    assert (scenario.outstanding_names, scenario.recorder.muxed) == (set(), 1)


@pytest.mark.parametrize("only_ours", [False, True])
def test_a_dropped_task_is_sent_again_when_no_worker_has_its_target(
    create_scenario: Callable[[bool], OutcomeScenario], now: list[float], only_ours: bool
) -> None:
    scenario = create_scenario(only_ours)
    scenario.outcomes.record_order(KEY, "m1")
    scenario.handle_event(events.DROPPED, message="m1")
    now[0] += SILENT_SECONDS
    assert scenario.outcomes.find_lost(None) == []
    now[0] += 1
    assert [held.key for held in scenario.outcomes.find_lost(None)] == [KEY]
    scenario.outcomes.release_target(KEY)
    assert scenario.outstanding_names == set() and scenario.journal.state_of(KEY.name) == WANTED


def test_queues_count_as_empty_as_long_as_each_check_finds_them_empty() -> None:
    idle_timer = IdleTimer()
    idle_timer.record_check(True, NOW)
    idle_timer.record_check(True, NOW + 2)
    assert idle_timer.since == NOW
    idle_timer.record_check(False, NOW + 4)
    assert idle_timer.since is None
    idle_timer.record_check(True, NOW + 6)
    idle_timer.since = None  # a task is sent
    idle_timer.record_check(True, NOW + 8)
    assert idle_timer.since == NOW + 8
    # After an outage of RabbitMQ: the time before is unknown, and workers have not reported their targets yet.
    idle_timer.record_check(True, NOW + 8 + MAX_GAP_SECONDS + 1)
    assert idle_timer.since == NOW + 8 + MAX_GAP_SECONDS + 1
    idle_timer.record_check(True, NOW - 3600)
    assert idle_timer.since == NOW - 3600


def test_a_target_whose_worker_left_waits_again() -> None:
    held = OutstandingOrder(KEY, "m1", NOW - 600, begun=NOW)
    assert held.is_worked_on(NOW + SILENT_SECONDS, set())
    assert not held.is_worked_on(NOW + SILENT_SECONDS + 1, set())
    assert held.is_worked_on(NOW + 9999, {KEY.name})
    assert not OutstandingOrder(KEY, "m1", NOW).is_worked_on(NOW, set())
    assert OutstandingOrder(KEY, "m1", NOW).is_worked_on(NOW, {KEY.name}), (
        "a restarted poller has not received the start event"
    )


def test_a_clock_that_was_set_back_delays_no_task(
    create_scenario: Callable[[bool], OutcomeScenario], now: list[float]
) -> None:
    scenario = create_scenario(False)
    scenario.outcomes.record_order(KEY, "m1")
    scenario.handle_event(events.BEGUN, message="m1")
    assert scenario.journal.state_of(KEY.name) == RUNNING
    now[0] -= 3600
    assert scenario.outcomes.find_lost(now[0]) == []
    assert [held.key for held in scenario.outcomes.find_lost(now[0] - SETTLE_SECONDS)] == [KEY]
    assert [held.key for held in scenario.outcomes.find_lost(NOW)] == [KEY], "the queues were empty before that"
