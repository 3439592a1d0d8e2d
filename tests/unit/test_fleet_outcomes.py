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
        self.books = OutcomeRecorder(self.journal, only_ours)
        self.outcomes = EventHandler("host/poller/one", only_ours, self.journal, self.books, Activity())

    def handle_event(self, what: str, key: TargetKey = KEY, sender: str = "host/worker-0/7", **details: Any) -> None:
        self.outcomes.handle(Event(what, sender, key.recording, key.name, details))

    @property
    def outstanding_names(self) -> set[str]:
        return {held.key.name for held in self.outcomes.holdings.all_orders}


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the poller's clock; the test sets its one element."""
    at = [NOW]
    monkeypatch.setattr("muxer.fleet.event_handler.epoch_now", lambda: at[0])
    return at


@pytest.fixture
def made(tmp_path: Path, now: list[float]) -> Callable[[bool], OutcomeScenario]:
    return lambda only_ours: OutcomeScenario(tmp_path, only_ours)


def test_a_poller_knows_the_tasks_of_another_poller(made: Callable[[bool], OutcomeScenario]) -> None:
    told = made(False)
    told.handle_event(events.QUEUED, message="m1", sender="host/poller/two")
    assert told.outstanding_names == {KEY.name} and told.journal.state_of(KEY.name) == QUEUED
    told.handle_event(events.DONE, **MUXED_DETAILS)
    assert (told.outstanding_names, told.journal.state_of(KEY.name), told.books.muxed) == (set(), DONE, 1)
    assert told.outcomes.is_taken(KEY.name), "what this poll has read of it is older"
    told.outcomes.begin_poll()
    assert not told.outcomes.is_taken(KEY.name)


def test_a_task_reported_after_its_end_is_not_outstanding(made: Callable[[bool], OutcomeScenario]) -> None:
    told = made(False)
    told.handle_event(events.DONE, **MUXED_DETAILS)
    told.handle_event(events.QUEUED, message="m1", sender="host/poller/two")
    assert (told.outstanding_names, told.journal.state_of(KEY.name)) == (set(), DONE)


@pytest.mark.parametrize(("what", "details"), [(events.FAILED, FAILED_DETAILS), (events.POSTPONED, {})])
def test_a_task_reported_after_its_failure_is_not_outstanding(
    made: Callable[[bool], OutcomeScenario], what: str, details: dict[str, Any]
) -> None:
    """Otherwise it would count as waiting for hours."""
    told = made(False)
    told.handle_event(what, message="m1", **details)
    told.handle_event(events.QUEUED, message="m1", sender="host/poller/two")
    assert told.outstanding_names == set()
    told.handle_event(events.QUEUED, message="m2", sender="host/poller/two")
    assert told.outstanding_names == {KEY.name}


def test_a_poller_ignores_its_own_events(made: Callable[[bool], OutcomeScenario]) -> None:
    told = made(False)
    told.handle_event(events.QUEUED, message="m1", sender="host/poller/one")
    assert told.outstanding_names == set()


def test_a_migration_handles_only_its_own_targets(made: Callable[[bool], OutcomeScenario]) -> None:
    told = made(True)
    told.outcomes.record_order(KEY, "m1")
    told.handle_event(events.QUEUED, OTHER, message="m9", sender="host/poller/two")
    told.handle_event(events.BEGUN, OTHER, message="m9")
    assert told.outstanding_names == {KEY.name}
    told.handle_event(events.FAILED, OTHER, message="m9", **FAILED_DETAILS)
    told.handle_event(events.DONE, OTHER, message="m9", **MUXED_DETAILS)
    assert (told.books.muxed, told.books.failures) == (0, {})


def test_a_migration_ignores_the_failure_of_another_task_for_its_target(made: Callable[[bool], OutcomeScenario]) -> None:
    told = made(True)
    told.outcomes.record_order(KEY, "m1")
    for what, details in ((events.FAILED, FAILED_DETAILS), (events.POSTPONED, {}), (events.DROPPED, {})):
        told.handle_event(what, message="m9", **details)
    assert (told.outstanding_names, told.books.failures) == ({KEY.name}, {})
    told.handle_event(events.FAILED, message="m1", **FAILED_DETAILS)
    assert told.outstanding_names == set() and list(told.books.failures) == [KEY.name]


def test_a_target_of_a_migration_counts_as_done_whoever_muxed_it(made: Callable[[bool], OutcomeScenario]) -> None:
    told = made(True)
    told.outcomes.record_order(KEY, "m1")
    told.handle_event(events.DONE, message="m9", **MUXED_DETAILS)
    assert (told.outstanding_names, told.books.muxed) == (set(), 1)


@pytest.mark.parametrize("only_ours", [False, True])
def test_a_dropped_task_is_sent_again_when_no_worker_has_its_target(
    made: Callable[[bool], OutcomeScenario], now: list[float], only_ours: bool
) -> None:
    told = made(only_ours)
    told.outcomes.record_order(KEY, "m1")
    told.handle_event(events.DROPPED, message="m1")
    now[0] += SILENT_SECONDS
    assert told.outcomes.find_lost(None) == []
    now[0] += 1
    assert [held.key for held in told.outcomes.find_lost(None)] == [KEY]
    told.outcomes.release_target(KEY)
    assert told.outstanding_names == set() and told.journal.state_of(KEY.name) == WANTED


def test_queues_count_as_empty_as_long_as_each_check_finds_them_empty() -> None:
    lanes = IdleTimer()
    lanes.record_check(True, NOW)
    lanes.record_check(True, NOW + 2)
    assert lanes.since == NOW
    lanes.record_check(False, NOW + 4)
    assert lanes.since is None
    lanes.record_check(True, NOW + 6)
    lanes.since = None  # an order is sent
    lanes.record_check(True, NOW + 8)
    assert lanes.since == NOW + 8
    # RabbitMQ was out: the time in between is unknown, and workers have not reported yet what they have.
    lanes.record_check(True, NOW + 8 + MAX_GAP_SECONDS + 1)
    assert lanes.since == NOW + 8 + MAX_GAP_SECONDS + 1
    lanes.record_check(True, NOW - 3600)
    assert lanes.since == NOW - 3600


def test_a_target_whose_worker_left_waits_again() -> None:
    held = OutstandingOrder(KEY, "m1", NOW - 600, begun=NOW)
    assert held.is_worked_on(NOW + SILENT_SECONDS, set())
    assert not held.is_worked_on(NOW + SILENT_SECONDS + 1, set())
    assert held.is_worked_on(NOW + 9999, {KEY.name})
    assert not OutstandingOrder(KEY, "m1", NOW).is_worked_on(NOW, set())
    assert OutstandingOrder(KEY, "m1", NOW).is_worked_on(NOW, {KEY.name}), (
        "a poller that was started again has not heard the beginning"
    )


def test_a_clock_that_was_set_back_delays_no_task(made: Callable[[bool], OutcomeScenario], now: list[float]) -> None:
    told = made(False)
    told.outcomes.record_order(KEY, "m1")
    told.handle_event(events.BEGUN, message="m1")
    assert told.journal.state_of(KEY.name) == RUNNING
    now[0] -= 3600
    assert told.outcomes.find_lost(now[0]) == []
    assert [held.key for held in told.outcomes.find_lost(now[0] - SETTLE_SECONDS)] == [KEY]
    assert [held.key for held in told.outcomes.find_lost(NOW)] == [KEY], "the lanes were seen empty before that"
