"""How a poller tracks outstanding targets, dead letters and workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from muxer.errors import Code, MediaError, ServiceUnavailable
from muxer.fleet import dead_letters, events, orders
from muxer.fleet.connection import WEEK_MILLISECONDS
from muxer.fleet.dead_letters import Disposition, choose_disposition
from muxer.fleet.event_reporter import EventReporter
from muxer.fleet.events import Event
from muxer.fleet.heartbeats import WorkerRegistry, parse_totals, subtract_totals
from muxer.fleet.orders import Order
from muxer.fleet.outstanding_orders import MAX_OUTSTANDING_SECONDS, SETTLE_SECONDS, OutstandingOrder, OutstandingOrders
from muxer.journal.journal import DONE, JOURNAL_FILE, QUEUED, RUNNING, SET_ASIDE, WANTED, Journal, TargetKey
from muxer.journal.retry_policy import classify_error
from muxer.status.activity import Activity, DurationHistogram, WorkTotals
from muxer.status.fleet_status import FORGOTTEN_SECONDS, SILENT_SECONDS
from muxer.system.masking import Mask

NOW = 1_000_000.0
KEY = TargetKey("c1_muxed.mp4", "c1", "agent1")


# ---- outstanding targets -----------------------------------------------------------------------------


@pytest.fixture
def outstanding_orders() -> OutstandingOrders:
    outstanding = OutstandingOrders()
    outstanding.put(OutstandingOrder(KEY, "m1", NOW - 600))
    return outstanding


def test_a_started_target_keeps_the_key_of_its_task(outstanding_orders: OutstandingOrders) -> None:
    held = outstanding_orders.record_start(TargetKey(KEY.name, KEY.recording), NOW)
    assert (held.key, held.message, held.begun) == (KEY, "m1", NOW)
    assert outstanding_orders.record_start(TargetKey("other", "c2", "a"), NOW).message == ""
    assert len(outstanding_orders) == 2
    assert (
        outstanding_orders.remove_order(KEY.name) == held
        and KEY.name not in outstanding_orders
        and outstanding_orders.remove_order(KEY.name) is None
    )


@pytest.mark.parametrize(
    ("empty_for", "at_workers", "waited", "lost"),
    [
        (SETTLE_SECONDS, set(), 600, True),
        (SETTLE_SECONDS - 1, set(), 600, False),
        (None, set(), 600, False),
        (SETTLE_SECONDS, {KEY.name}, 600, False),
        (SETTLE_SECONDS, set(), SETTLE_SECONDS - 1, False),
        (None, set(), MAX_OUTSTANDING_SECONDS, True),
        (None, {KEY.name}, MAX_OUTSTANDING_SECONDS, False),
    ],
)
def test_a_task_is_lost_when_it_is_in_no_queue_and_at_no_worker(
    empty_for: float | None, at_workers: set[str], waited: float, lost: bool
) -> None:
    outstanding = OutstandingOrders()
    outstanding.put(OutstandingOrder(KEY, "m1", NOW - waited))
    since = None if empty_for is None else NOW - empty_for
    assert bool(outstanding.find_lost(NOW, since, at_workers)) is lost


def test_a_recently_started_target_is_not_lost(outstanding_orders: OutstandingOrders) -> None:
    outstanding_orders.record_start(KEY, NOW - SETTLE_SECONDS + 1)
    assert outstanding_orders.find_lost(NOW, NOW - 3600, set()) == []


# ---- the journal -------------------------------------------------------------------------------------


def test_a_restarted_poller_knows_the_outstanding_targets(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNAL_FILE, left=QUEUED)
    journal.record_queued(KEY, NOW, "m1")
    other = TargetKey("b", "c2")
    journal.record_queued(other, NOW, "m2")
    journal.record_running(other, NOW + 5, "m2")
    journal.record_wanted(TargetKey("w", "c3"), NOW)
    assert (journal.state_of("b"), journal.state_of("w"), journal.state_of("none")) == (RUNNING, WANTED, "")
    again = Journal(tmp_path / JOURNAL_FILE, left=QUEUED)  # the first was killed, not closed
    assert set(again.outstanding()) == {(TargetKey("b", "c2"), NOW + 5, "m2"), (KEY, NOW, "m1")}
    again.close()
    assert Journal(tmp_path / JOURNAL_FILE, left=QUEUED).state_of("b") == QUEUED


def test_without_a_fleet_running_targets_are_wanted_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNAL_FILE)
    journal.record_running(KEY, NOW)
    journal.close()
    again = Journal(tmp_path / JOURNAL_FILE)
    assert again.state_of(KEY.name) == WANTED and again.outstanding() == []


# ---- dead letters ------------------------------------------------------------------------------------


def order_body(message: str = "m1") -> bytes:
    return json.dumps({"message_id": message, "kwargs": orders.order_to_dict(Order(KEY.recording, KEY.name))}).encode()


@pytest.mark.parametrize(("reason", "code"), [("rejected", Code.UNKNOWN_ORDER), ("delivery_limit", Code.NEVER_FINISHED)])
def test_a_dead_letter_contains_its_target_and_the_reason(reason: str, code: Code) -> None:
    dead_letter = dead_letters.parse_dead_letter(order_body(), {"x-first-death-reason": reason})
    assert (dead_letter.message, dead_letter.key, dead_letter.error.code) == ("m1", TargetKey(KEY.name, KEY.recording), code)


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"7", b'{"message_id": 1}', b'{"message_id": "x", "kwargs": []}'])
def test_a_dead_letter_may_contain_anything(garbage: bytes) -> None:
    dead_letter = dead_letters.parse_dead_letter(garbage, {})
    assert dead_letter.key == TargetKey("", "") and choose_disposition(dead_letter, None, "") is Disposition.LEFT


@pytest.mark.parametrize(
    ("held", "state", "expected"),
    [
        (OutstandingOrder(KEY, "m1", NOW), QUEUED, Disposition.SET_ASIDE),
        (OutstandingOrder(KEY, "", NOW), QUEUED, Disposition.SET_ASIDE),
        (OutstandingOrder(KEY, "m2", NOW), QUEUED, Disposition.DROPPED),
        (None, SET_ASIDE, Disposition.LEFT),
        (None, WANTED, Disposition.LEFT),
        (None, DONE, Disposition.DROPPED),
        (None, "", Disposition.LEFT),
    ],
)
def test_only_the_dead_letter_of_the_outstanding_task_sets_its_target_aside(
    held: OutstandingOrder | None, state: str, expected: Disposition
) -> None:
    assert choose_disposition(dead_letters.parse_dead_letter(order_body(), {}), held, state) is expected


def test_a_target_given_up_by_the_fleet_is_set_aside_at_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNAL_FILE)
    entry = journal.record_failure(KEY, classify_error(dead_letters.parse_dead_letter(order_body(), {}).error), NOW)
    assert (entry.retry_at, entry.attempts, entry.code) == (None, 1, "MUX-351")


@pytest.mark.parametrize(
    ("age", "expected"),
    [(0, WEEK_MILLISECONDS), (86_400, 6 * 86_400_000), (8 * 86_400, 1), (-3600, WEEK_MILLISECONDS)],
)
def test_a_dead_letter_is_kept_for_a_week_however_often_it_is_read(age: int, expected: int) -> None:
    died = datetime.fromtimestamp(NOW - age, UTC).replace(tzinfo=None)  # as pika gives it
    assert dead_letters.remaining_ttl({"x-death": [{"time": died}]}, NOW) == str(expected)


@pytest.mark.parametrize("headers", [{}, {"x-death": []}, {"x-death": [{"time": "soon"}]}, {"x-death": 7}])
def test_the_week_of_a_dead_letter_without_a_date_starts_again(headers: dict[str, object]) -> None:
    assert dead_letters.remaining_ttl(headers, NOW) is None


# ---- event reporter ----------------------------------------------------------------------------------


@pytest.fixture
def sent_events() -> list[Event]:
    return []


@pytest.fixture
def reporter(sent_events: list[Event]) -> Iterator[EventReporter]:
    yield EventReporter(sent_events.append, "host/worker-0/1", Mask(["secret-word"]))


def test_a_reason_is_sent_without_secrets(reporter: EventReporter, sent_events: list[Event]) -> None:
    assert reporter.record_failure(KEY, classify_error(ServiceUnavailable("echoes secret-word")), 40, None, last=True)
    [event] = sent_events
    assert "secret-word" not in events.encode_event(event).decode() and event.details["failure"]["reason"] == "echoes ***"
    assert event.details["more"] is False


def test_a_permanent_error_is_tried_at_most_three_times_in_a_row(reporter: EventReporter, sent_events: list[Event]) -> None:
    failure = classify_error(MediaError("broken"))
    assert [reporter.record_failure(KEY, failure, 40, None, last=False) for _ in range(3)] == [True, True, False]
    assert [event.details["more"] for event in sent_events] == [True, True, False]
    reporter.record_done(KEY, "muxed", {})
    assert reporter.record_failure(KEY, failure, 40, None, last=False)


# ---- workers -----------------------------------------------------------------------------------------


def standing_event(name: str = "h/worker-0/1", held: tuple[str, ...] = (), steps: int = 0, moved: int = 0) -> Event:
    counts = [steps, *[0] * (len(DurationHistogram().counts) - 1)]
    durations = {"mux": {"counts": counts, "seconds": float(steps)}}
    totals = {"steps": durations, "moved": [["fetched", "RWS", moved]], "errors": []}
    who = {"host": "h", "pid": 1, "version": "1", "threads": 2, "started": NOW, "running": [], "out": {}}
    return Event(events.WORKER, name, details={**who, "held": list(held), "totals": totals})


def test_the_work_of_a_worker_is_counted_once() -> None:
    workers, activity = WorkerRegistry(), Activity()
    for at, (steps, moved) in enumerate([(5, 100), (7, 130), (7, 130)]):
        activity.add_totals(workers.record_heartbeat(standing_event(steps=steps, moved=moved), NOW + at))
    totals = activity.take_snapshot().totals
    assert (sum(totals.steps["mux"].counts), totals.steps["mux"].seconds, totals.moved["fetched", "RWS"]) == (2, 2.0, 30)


def test_the_targets_in_flight_at_live_workers_are_known() -> None:
    workers = WorkerRegistry()
    workers.record_heartbeat(standing_event("a", ("x",)), NOW)
    workers.record_heartbeat(standing_event("b", ("y",)), NOW + SILENT_SECONDS)
    assert workers.held_targets(NOW + SILENT_SECONDS) == {"x", "y"}
    assert workers.held_targets(NOW + SILENT_SECONDS + 1) == {"y"}
    workers.remove_worker("b")
    assert workers.held_targets(NOW + SILENT_SECONDS + 1) == frozenset()


def test_the_rate_covers_the_last_ten_minutes() -> None:
    workers = WorkerRegistry()
    workers.record_heartbeat(standing_event("a"), NOW)
    for number in range(30):
        workers.record_finished("a", "muxed" if number % 3 else "failed", NOW + 10 * number)
    workers.record_heartbeat(standing_event("a"), NOW + 300)
    [view] = workers.worker_statuses(NOW + 300)
    assert (view.muxed, view.failed, view.rate) == (20, 10, 360.0)
    workers.record_heartbeat(standing_event("a"), NOW + 1200)
    assert workers.worker_statuses(NOW + 1200)[0].rate == 0.0
    assert workers.worker_statuses(NOW + 1200 + FORGOTTEN_SECONDS)
    workers.record_heartbeat(standing_event("b"), NOW + 1201 + FORGOTTEN_SECONDS)
    assert [worker.name for worker in workers.worker_statuses(NOW + 1201 + FORGOTTEN_SECONDS)] == ["b"]


@pytest.mark.parametrize("missing", ["totals", "held", "host", "threads", "running", "started"])
def test_a_malformed_heartbeat_is_ignored(missing: str) -> None:
    event = standing_event()
    del event.details[missing]
    workers = WorkerRegistry()
    since = workers.record_heartbeat(event, NOW)
    assert (since.moved, since.errors, workers.worker_statuses(NOW)) == ({}, {}, ())


def test_totals_of_another_form_are_refused() -> None:
    with pytest.raises(ValueError, match="buckets"):
        parse_totals({"steps": {"mux": {"counts": [1], "seconds": 1}}, "moved": [], "errors": []})
    assert subtract_totals(WorkTotals(), WorkTotals()) == WorkTotals()
