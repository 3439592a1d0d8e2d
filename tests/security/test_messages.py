"""Invalid messages in the queues of a fleet: none stops the poller or a worker, and none is accepted."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pika
import pytest
from dramatiq.message import Message

from lab.lab import Lab
from muxer.config.schema import FleetOptions
from muxer.errors import OrderFailed
from muxer.fleet import events
from muxer.fleet.connection import connection_parameters, declare_queues, open_connection
from muxer.fleet.consumer import OrderConsumer
from muxer.fleet.dead_letters import DeadLetter, DeadLetterScanner, Disposition
from muxer.fleet.event_handler import EventHandler
from muxer.fleet.events import Event
from muxer.fleet.heartbeats import MAX_NAMES, MAX_WORKERS, WorkerRegistry
from muxer.fleet.priority_queues import EVENTS_SUFFIX, HEARTBEATS_SUFFIX, dead_letter_queue, queue_names
from muxer.journal.journal import DONE, JOURNAL_FILE, SET_ASIDE, WANTED, Journal, TargetKey
from muxer.journal.retry_policy import classify_error
from muxer.scheduling.outcome_recorder import OutcomeRecorder
from muxer.status.activity import Activity, DurationHistogram, WorkTotals
from tests.support.daemon import wait_until as wait
from tests.support.fleet_processes import QUEUE, TIMEOUT_SECONDS, FleetProcess, FleetProcesses, stop_processes
from tests.support.queues import VirtualHost, wait_until
from tests.support.recording_copies import RecordingCopies

OPTIONS = FleetOptions("broker", "", "orders", True, 1, 100)
Make = Callable[..., Lab]


def nested_table(depth: int) -> bytes:
    """Return the content of a header table of nested tables."""
    content = b""
    for _ in range(depth):
        content = b"\x01kF" + struct.pack(">I", len(content)) + content
    return content


HOSTILE_HEADERS = {
    "a time after the year 9999": b"\x01tT" + struct.pack(">Q", 10**12),
    "the latest possible time": b"\x01tT" + struct.pack(">Q", 2**64 - 1),
    "5,000 nested tables": nested_table(5000),
    "an unsigned byte": b"\x01kB\xff",
    "a number of 16 bits": b"\x01ku\xff\xff",
    "bytes": b"\x01kx" + struct.pack(">I", 3) + b"\xff\xfe\xfd",
    "a name that is not text": b"\x03\xff\xfe\xfdI" + struct.pack(">i", 7),
    "an invalid text": b"\x01kS" + struct.pack(">I", 3) + b"\xff\xfe\xfd",
    "a decimal with many digits": b"\x01kD\xff" + struct.pack(">i", 7),
    "an invalid death": b"\x07x-deathS" + struct.pack(">I", 1) + b"x",
}


class RawProperties(pika.BasicProperties):  # type: ignore[misc]
    """Properties whose headers are written as they are."""

    def __init__(self, table: bytes) -> None:
        super().__init__()
        self._table = table

    def encode(self) -> list[bytes]:
        flags = pika.BasicProperties.FLAG_HEADERS | pika.BasicProperties.FLAG_DELIVERY_MODE
        return [struct.pack(">H", flags), struct.pack(">I", len(self._table)), self._table, b"\x02"]


def publish_poison(vhost: VirtualHost, exchange: str, key: str, table: bytes, body: bytes = b"{}") -> bool:
    """Publish a message with these headers; return whether RabbitMQ accepts it."""
    try:
        with vhost.open_channel() as channel:
            channel.confirm_delivery()
            channel.basic_publish(exchange, key, body, RawProperties(table))
    except pika.exceptions.AMQPError:
        return False
    return True


@pytest.fixture
def declared(vhost: VirtualHost) -> VirtualHost:
    with closing(open_connection(connection_parameters(replace(OPTIONS, broker_url=vhost.url), "test"))) as one:
        declare_queues(one.channel(), OPTIONS.queue)
    return vhost


@pytest.mark.parametrize("name", HOSTILE_HEADERS)
def test_no_header_keeps_a_worker_from_the_tasks_behind_it(
    declared: VirtualHost, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    if not publish_poison(declared, "", queue_names("orders")[0], HOSTILE_HEADERS[name]):
        pytest.skip("this RabbitMQ does not take such a message")
    every = connection_parameters(replace(OPTIONS, broker_url=declared.url), "test")
    consumer = OrderConsumer(every, "orders", 1, lambda: True)
    with closing(consumer):
        assert next(consumer) is None
        wait_until(lambda: declared.ready_count(dead_letter_queue("orders")) == 1)
        with declared.open_channel() as channel:
            channel.basic_publish("", "orders", Message("orders", "mux", (), {"file": "f"}, {}).encode())
        wait_until(lambda: next(consumer) is not None)
    assert "in orders is not a task" in caplog.text and "RabbitMQ is unavailable" not in caplog.text


@pytest.mark.parametrize("name", HOSTILE_HEADERS)
def test_no_header_of_a_dead_letter_stops_the_scan_of_a_poller(declared: VirtualHost, name: str) -> None:
    if not publish_poison(declared, "", dead_letter_queue("orders"), HOSTILE_HEADERS[name]):
        pytest.skip("this RabbitMQ does not take such a message")
    letters, met = DeadLetterScanner(), []

    def keep_letter(dead_letter: DeadLetter) -> Disposition:
        met.append(dead_letter)
        return Disposition.LEFT

    for _ in range(2):
        with declared.open_channel() as channel:
            letters.scan_next(channel.connection, "orders", declared.ready_count(dead_letter_queue("orders")), keep_letter)
    # It is read once and stays in the queue for an operator.
    assert len(met) == 1 and letters.count == declared.ready_count(dead_letter_queue("orders")) == 1


def start_fleet(fleet: FleetProcesses, vhost: VirtualHost) -> list[FleetProcess]:
    """Start a poller and a worker; wait until the queues exist and a poll is done."""
    members = [fleet.start_poller(), fleet.start_worker()]
    wait(lambda: vhost.queue_counts(dead_letter_queue(QUEUE)) is not None, TIMEOUT_SECONDS, "the queues", fleet.log)
    wait(lambda: len(fleet.poller_lines("poll done")) > 1, TIMEOUT_SECONDS, "a poll", fleet.log)
    return members


@pytest.mark.long
def test_a_fleet_with_poison_messages_in_every_queue_does_its_work(
    make_lab: Make, vhost: VirtualHost, tmp_path: Path
) -> None:
    lab = make_lab()
    copies = RecordingCopies(lab)
    with FleetProcesses(lab, vhost.url) as fleet:
        members = start_fleet(fleet, vhost)
        taken = 0
        for table in HOSTILE_HEADERS.values():
            for exchange, key in (
                (f"{QUEUE}{EVENTS_SUFFIX}", ""),
                (f"{QUEUE}{HEARTBEATS_SUFFIX}", ""),
                *(("", lane) for lane in (*queue_names(QUEUE), dead_letter_queue(QUEUE))),
            ):
                taken += publish_poison(vhost, exchange, key, table)
        assert taken > 20
        ids = copies.add_copies(3)
        wait(lambda: not copies.unfinished_ids(ids), TIMEOUT_SECONDS, "the work behind them", fleet.log)
        assert stop_processes(*members) == [0, 0]
        log_text = fleet.log.read_text()
    assert "cannot decode the headers" in log_text and "RabbitMQ is unavailable" not in log_text


# Events with false content

KEY = TargetKey("c1_muxed.mp4", "c1", "agent")
MUXED_DETAILS = {"outcome": "muxed", "facts": {}}
FAILED_DETAILS = {"failure": vars(classify_error(OrderFailed("never"))), "level": 40, "more": False}
TOTALS = {"steps": {}, "moved": [], "errors": []}
WORKER, LIAR = "host/worker-0/7", "host/worker-9/1"


def started_outcomes(tmp_path: Path, only_ours: bool) -> tuple[EventHandler, Journal, OutcomeRecorder]:
    journal = Journal(tmp_path / JOURNAL_FILE)
    recorder = OutcomeRecorder(journal, only_ours)
    outcomes = EventHandler("host/poller/one", only_ours, journal, recorder, Activity())
    outcomes.record_order(KEY, "m1")
    outcomes.handle(Event(events.BEGUN, WORKER, KEY.recording, KEY.name, {"message": "m1"}))
    return outcomes, journal, recorder


@pytest.mark.parametrize("what", [events.DONE, events.FAILED, events.POSTPONED])
@pytest.mark.parametrize("is_started", [False, True])
def test_an_outcome_event_of_another_worker_is_not_accepted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str, is_started: bool
) -> None:
    outcomes, journal, recorder = started_outcomes(tmp_path, only_ours=False)
    if is_started:
        outcomes.handle(Event(events.WORKER, WORKER, details={"totals": TOTALS, "held": [KEY.name]}))
        outcomes.handle(Event(events.BEGUN, LIAR, KEY.recording, KEY.name, {"message": "m1"}))
    event_details = {"message": "m1", **(MUXED_DETAILS if what == events.DONE else FAILED_DETAILS)}
    outcomes.handle(Event(what, LIAR, KEY.recording, KEY.name, event_details))
    assert journal.state_of(KEY.name) == WANTED and not outcomes.is_taken(KEY.name)
    assert (recorder.muxed, recorder.failures) == (0, {}) and LIAR in caplog.text


def test_in_a_migration_the_task_is_sent_again(tmp_path: Path) -> None:
    outcomes, _, recorder = started_outcomes(tmp_path, only_ours=True)
    outcomes.handle(Event(events.DONE, LIAR, KEY.recording, KEY.name, {"message": "m1", **MUXED_DETAILS}))
    assert [held.key for held in outcomes.find_lost(None)] == [KEY] and recorder.muxed == 0


def test_the_outcome_event_of_the_worker_that_started_the_target_is_accepted(tmp_path: Path) -> None:
    outcomes, journal, recorder = started_outcomes(tmp_path, only_ours=False)
    outcomes.handle(Event(events.DONE, WORKER, KEY.recording, KEY.name, {"message": "m1", **MUXED_DETAILS}))
    assert journal.state_of(KEY.name) == DONE and recorder.muxed == 1


def test_the_outcome_event_of_a_worker_that_took_over_from_a_dead_one_is_accepted(tmp_path: Path) -> None:
    outcomes, journal, _ = started_outcomes(tmp_path, only_ours=False)
    outcomes.handle(Event(events.BEGUN, LIAR, KEY.recording, KEY.name, {"message": "m1"}))
    outcomes.handle(Event(events.FAILED, LIAR, KEY.recording, KEY.name, {"message": "m1", **FAILED_DETAILS}))
    assert journal.state_of(KEY.name) == SET_ASIDE


@pytest.mark.parametrize("what", [events.QUEUED, events.BEGUN, events.POSTPONED, events.FAILED])
def test_no_event_sets_a_finished_target_aside_or_restarts_it(tmp_path: Path, what: str) -> None:
    outcomes, journal, recorder = started_outcomes(tmp_path, only_ours=False)
    outcomes.handle(Event(events.DONE, WORKER, KEY.recording, KEY.name, {"message": "m1", **MUXED_DETAILS}))
    outcomes.begin_poll()
    outcomes.handle(Event(what, LIAR, KEY.recording, KEY.name, {"message": "m2", **FAILED_DETAILS}))
    assert journal.state_of(KEY.name) == DONE and not outcomes.is_taken(KEY.name)
    # A later dead letter has no effect either.
    assert outcomes.settle_letter(DeadLetter("m2", KEY, OrderFailed("never"))) is Disposition.DROPPED
    assert journal.state_of(KEY.name) == DONE and recorder.failures == {}


@pytest.mark.parametrize("count", [10**400, -(10**30), float("nan"), float("inf"), True, "1"])
@pytest.mark.parametrize("of", ["counts", "seconds", "moved", "errors"])
def test_invalid_totals_are_not_counted(count: object, of: str) -> None:
    def standing_event(value: object) -> Event:
        found = {name: value if of == name else 1 for name in ("counts", "seconds", "moved", "errors")}
        steps = {"mux": {"counts": [found["counts"]] * len(DurationHistogram().counts), "seconds": found["seconds"]}}
        totals = {"steps": steps, "moved": [["fetched", "RWS", found["moved"]]], "errors": [["RWS", "X", found["errors"]]]}
        return Event(events.WORKER, WORKER, details={"totals": totals, "held": []})

    workers = WorkerRegistry()
    workers.record_heartbeat(standing_event(1), 0.0)
    assert workers.record_heartbeat(standing_event(count), 1.0) == WorkTotals()
    assert workers.record_heartbeat(standing_event(3), 2.0) != WorkTotals()


def test_a_flood_of_workers_and_names_is_bounded() -> None:
    nothing = {"steps": {}, "moved": [], "errors": []}
    workers = WorkerRegistry()
    for number in range(MAX_WORKERS + 50):
        workers.record_heartbeat(
            Event(events.WORKER, f"w{number}", details={"totals": nothing, "held": [f"f{number}"]}), 0.0
        )
    assert len(workers.held_targets(0.0)) == MAX_WORKERS
    many = nothing | {"errors": [[f"s{number}", "X", 1] for number in range(MAX_NAMES + 1)]}
    workers.record_heartbeat(Event(events.WORKER, "w0", details={"totals": many, "held": ["other"]}), 1.0)
    assert "other" not in workers.held_targets(1.0)
    # Silent workers are dropped to make room.
    workers.record_heartbeat(Event(events.WORKER, "late", details={"totals": nothing, "held": ["late"]}), 10_000.0)
    assert workers.held_targets(10_000.0) == {"late"}


# Message bodies

GOOD_ORDER = {"version": 1, "recording": "c1", "file": "f1", "attempts": 1}


def order_body(**fields: object) -> bytes:
    """Return the body of a task with changed fields."""
    whole = {
        "queue_name": "orders",
        "actor_name": "mux",
        "args": [],
        "kwargs": GOOD_ORDER,
        "options": {},
        "message_id": "m",
        "message_timestamp": 1,
    }
    return json.dumps(whole | fields).encode()


def event_body(what: str, **fields: object) -> bytes:
    """Return the body of an event with changed fields."""
    whole = {"version": 1, "what": what, "sender": "host/x/1", "recording": "c1", "file": "f1", "details": {}}
    return json.dumps(whole | fields).encode()


ODD_ORDERS = [
    *(order_body(message_id=value) for value in (None, 7, [], {}, "", "x" * 10_000, "\ud800")),
    *(order_body(message_timestamp=value) for value in (None, "x", [], 10**30, float("nan"))),
    *(order_body(args=value) for value in (None, 7, "x", [1], {"a": 1})),
    *(order_body(kwargs=value) for value in (None, [], {}, {"self": 1}, {"message": 1}, GOOD_ORDER | {"more": 1})),
    order_body(kwargs=GOOD_ORDER | {"file": "\ud800"}),
    *(order_body(kwargs=GOOD_ORDER | {"file": value}) for value in ("\0", "..", "x" * 200, "amq.lock", None, 10**400, [[]])),
    *(order_body(kwargs=GOOD_ORDER | {"attempts": value}) for value in (0, 101, 10**400, True, "1", float("inf"))),
    *(order_body(actor_name=value) for value in ("other", None, [], {}, "")),
    *(order_body(queue_name=value) for value in (None, [], "", "dead")),
    *(order_body(options=value) for value in (None, [], {"eta": "x"}, {"on_failure": 7}, {"pipe_target": []})),
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"\xff\xfe",
    b"9" * 5000,
    order_body(kwargs=GOOD_ORDER | {"file": "x" * 5_000_000}),
]
EVENT_NAMES = ["queued", "begun", "postponed", "dropped", "done", "failed", "refused", "worker", "gone", "poller", "other"]
ODD_DETAILS: list[object] = [
    *(None, [], 7, {}, {"message": []}, {"agent": {"a": []}}),
    *({"outcome": [], "facts": []}, {"outcome": "muxed", "facts": 7}),
    *({"outcome": "muxed", "facts": dict.fromkeys(("length", "padding", "agent"), value)} for value in (None, "x", [])),
    *({"failure": value, "level": 40, "more": False} for value in (None, [], {}, 7)),
    *(FAILED_DETAILS | {"level": value} for value in (None, "x", float("nan"), 10**400, -5)),
    *(
        FAILED_DETAILS | {"failure": vars(classify_error(OrderFailed("x"))) | {"retry_after": value}}
        for value in (10**400, "x", -1e300)
    ),
    *({"totals": value, "held": []} for value in (None, [], {}, {"steps": {"x": 7}, "moved": [], "errors": []})),
    *({"totals": TOTALS, "held": value} for value in (None, 7, {}, [[]])),
    {"totals": TOTALS, "held": [], "running": [[], 7, {}], "out": [], "host": [], "pid": "x"},
    {"reason": "x" * 1_000_000},
    {"reason": "x" * 200_000},
    FAILED_DETAILS | {"failure": {**vars(classify_error(OrderFailed("x" * 200_000)))}},
    {"reason": [[]]},
]
ODD_EVENTS = [
    *(event_body(what, details=details) for what in EVENT_NAMES for details in ODD_DETAILS),
    *(event_body("begun", file=value) for value in (None, [], "", "\0", "\ud800", "x" * 1_000_000)),
    *(event_body(value) for value in ("", "x" * 1_000_000)),
    b"[" * 100_000,
    b'{"version":' * 100_000,
    b"null",
]


def test_a_fleet_with_invalid_messages_in_every_queue_does_its_work(make_lab: Make, vhost: VirtualHost) -> None:
    lab = make_lab()
    copies = RecordingCopies(lab)
    with FleetProcesses(lab, vhost.url) as fleet:
        members = start_fleet(fleet, vhost)
        with vhost.open_channel() as channel:
            for body in ODD_ORDERS:
                for lane in (*queue_names(QUEUE), dead_letter_queue(QUEUE)):
                    channel.basic_publish("", lane, body)
            for body in ODD_EVENTS:
                for exchange in (EVENTS_SUFFIX, HEARTBEATS_SUFFIX):
                    channel.basic_publish(f"{QUEUE}{exchange}", "", body)
        ids = copies.add_copies(3)
        wait(lambda: not copies.unfinished_ids(ids), TIMEOUT_SECONDS, "the work behind them", fleet.log)
        assert stop_processes(*members) == [0, 0]
        log_text = fleet.log.read_text()
    assert "Traceback" not in log_text and "RabbitMQ is unavailable" not in log_text
    assert "cannot read an event in" in log_text and max(map(len, log_text.splitlines())) < 10_000


def test_a_target_whose_outcome_event_was_not_accepted_is_done_when_a_poll_finds_it_done(tmp_path: Path) -> None:
    outcomes, journal, _ = started_outcomes(tmp_path, only_ours=False)
    outcomes.handle(Event(events.DONE, LIAR, KEY.recording, KEY.name, {"message": "m1", **MUXED_DETAILS}))
    assert journal.state_of(KEY.name) == WANTED
    outcomes.record_finished("another")
    assert journal.state_of(KEY.name) == WANTED
    outcomes.record_finished(KEY.name)
    assert journal.state_of(KEY.name) == DONE
