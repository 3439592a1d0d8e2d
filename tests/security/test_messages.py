"""Messages that make no sense in the queues of a fleet: none stops the poller or a worker, and none is believed."""

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
from tests.support.copies import Copies
from tests.support.crew import QUEUE, SECONDS, Crew, Member, stopped
from tests.support.daemon import wait_until as wait
from tests.support.queues import VirtualHost, wait_until

from muxer.activity import Activity, Durations, Totals
from muxer.books import Books
from muxer.config.schema import Fleet
from muxer.errors import GivenUp
from muxer.failures import failure_of
from muxer.fleet import events
from muxer.fleet.connection import connect, declare, parameters
from muxer.fleet.consumer import LaneConsumer
from muxer.fleet.dead import DeadLetters, Fate, Letter
from muxer.fleet.events import Event
from muxer.fleet.lanes import EVENTS, STANDINGS, dead, names
from muxer.fleet.outcomes import Outcomes
from muxer.fleet.workers import MOST_NAMES, MOST_WORKERS, Workers
from muxer.journal import ASIDE, DONE, JOURNAL, WANTED, Journal, Key
from muxer.lab.lab import Lab

OPTIONS = Fleet("broker", "", "orders", True, 1, 100)
Make = Callable[..., Lab]


def nested(depth: int) -> bytes:
    """Return the content of a header table that holds so many tables within each other."""
    content = b""
    for _ in range(depth):
        content = b"\x01kF" + struct.pack(">I", len(content)) + content
    return content


HEADERS = {
    "a time after the year 9999": b"\x01tT" + struct.pack(">Q", 10**12),
    "the latest time there is": b"\x01tT" + struct.pack(">Q", 2**64 - 1),
    "5,000 nested tables": nested(5000),
    "an unsigned byte": b"\x01kB\xff",
    "a number of 16 bits": b"\x01ku\xff\xff",
    "bytes": b"\x01kx" + struct.pack(">I", 3) + b"\xff\xfe\xfd",
    "a name that is no text": b"\x03\xff\xfe\xfdI" + struct.pack(">i", 7),
    "a text that is no text": b"\x01kS" + struct.pack(">I", 3) + b"\xff\xfe\xfd",
    "a decimal of many places": b"\x01kD\xff" + struct.pack(">i", 7),
    "a death that is none": b"\x07x-deathS" + struct.pack(">I", 1) + b"x",
}


class Raw(pika.BasicProperties):
    """Properties whose headers are written as they are."""

    def __init__(self, table: bytes) -> None:
        super().__init__()
        self._table = table

    def encode(self) -> list[bytes]:
        flags = pika.BasicProperties.FLAG_HEADERS | pika.BasicProperties.FLAG_DELIVERY_MODE
        return [struct.pack(">H", flags), struct.pack(">I", len(self._table)), self._table, b"\x02"]


def poison(vhost: VirtualHost, exchange: str, key: str, table: bytes, body: bytes = b"{}") -> bool:
    """Publish a message with such headers; return whether RabbitMQ takes it."""
    try:
        with vhost.channel() as channel:
            channel.confirm_delivery()
            channel.basic_publish(exchange, key, body, Raw(table))
    except pika.exceptions.AMQPError:
        return False
    return True


@pytest.fixture
def declared(vhost: VirtualHost) -> VirtualHost:
    with closing(connect(parameters(replace(OPTIONS, broker_url=vhost.url), "test"))) as one:
        declare(one.channel(), OPTIONS.queue)
    return vhost


@pytest.mark.parametrize("name", HEADERS)
def test_no_header_keeps_a_worker_from_the_orders_behind_it(
    declared: VirtualHost, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    if not poison(declared, "", names("orders")[0], HEADERS[name]):
        pytest.skip("this RabbitMQ does not take such a message")
    every = parameters(replace(OPTIONS, broker_url=declared.url), "test")
    consumer = LaneConsumer(every, "orders", 1, lambda: True)
    with closing(consumer):
        assert next(consumer) is None
        wait_until(lambda: declared.ready(dead("orders")) == 1)
        with declared.channel() as channel:
            channel.basic_publish("", "orders", Message("orders", "mux", (), {"file": "f"}, {}).encode())
        wait_until(lambda: next(consumer) is not None)
    assert "in orders that is no order" in caplog.text and "RabbitMQ is out" not in caplog.text


@pytest.mark.parametrize("name", HEADERS)
def test_no_header_of_a_dead_letter_keeps_a_poller_from_looking(declared: VirtualHost, name: str) -> None:
    if not poison(declared, "", dead("orders"), HEADERS[name]):
        pytest.skip("this RabbitMQ does not take such a message")
    letters, met = DeadLetters(), []

    def settle(letter: Letter) -> Fate:
        met.append(letter)
        return Fate.LEFT

    for _ in range(2):
        with declared.channel() as channel:
            letters.look(channel.connection, "orders", declared.ready(dead("orders")), settle)
    # It is looked at once, and stays for whoever wants to read it.
    assert len(met) == 1 and letters.count == declared.ready(dead("orders")) == 1


def polling(crew: Crew, vhost: VirtualHost) -> list[Member]:
    """Start a poller and a worker, and wait until the queues are there and a poll is done."""
    members = [crew.poller(), crew.worker()]
    wait(lambda: vhost.counts(dead(QUEUE)) is not None, SECONDS, "the queues", crew.log)
    wait(lambda: len(crew.polled("poll done")) > 1, SECONDS, "a poll", crew.log)
    return members


def test_a_fleet_with_poison_in_every_queue_does_its_work(make_lab: Make, vhost: VirtualHost, tmp_path: Path) -> None:
    lab = make_lab()
    copies = Copies(lab)
    with Crew(lab, vhost.url) as crew:
        members = polling(crew, vhost)
        taken = 0
        for table in HEADERS.values():
            for exchange, key in (
                (f"{QUEUE}{EVENTS}", ""),
                (f"{QUEUE}{STANDINGS}", ""),
                *(("", lane) for lane in (*names(QUEUE), dead(QUEUE))),
            ):
                taken += poison(vhost, exchange, key, table)
        assert taken > 20
        ids = copies.add(3)
        wait(lambda: not copies.undone(ids), SECONDS, "the work behind them", crew.log)
        assert stopped(*members) == [0, 0]
        said = crew.log.read_text()
    assert "cannot be decoded" in said and "RabbitMQ is out" not in said


# Events that claim what is not so

KEY = Key("c1_muxed.mp4", "c1", "agent")
MUXED = {"outcome": "muxed", "facts": {}}
FAILED = {"failure": vars(failure_of(GivenUp("never"))), "level": 40, "more": False}
TOTALS = {"steps": {}, "moved": [], "errors": []}
WORKER, LIAR = "host/worker-0/7", "host/worker-9/1"


def heard(tmp_path: Path, only_ours: bool) -> tuple[Outcomes, Journal, Books]:
    journal = Journal(tmp_path / JOURNAL)
    books = Books(journal, only_ours)
    outcomes = Outcomes("host/poller/one", only_ours, journal, books, Activity())
    outcomes.ordered(KEY, "m1")
    outcomes.heard(Event(events.BEGUN, WORKER, KEY.recording, KEY.name, {"message": "m1"}))
    return outcomes, journal, books


@pytest.mark.parametrize("what", [events.DONE, events.FAILED, events.POSTPONED])
@pytest.mark.parametrize("begins", [False, True])
def test_the_end_of_the_work_of_another_worker_is_not_believed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str, begins: bool
) -> None:
    outcomes, journal, books = heard(tmp_path, only_ours=False)
    if begins:
        outcomes.heard(Event(events.WORKER, WORKER, details={"totals": TOTALS, "held": [KEY.name]}))
        outcomes.heard(Event(events.BEGUN, LIAR, KEY.recording, KEY.name, {"message": "m1"}))
    told = {"message": "m1", **(MUXED if what == events.DONE else FAILED)}
    outcomes.heard(Event(what, LIAR, KEY.recording, KEY.name, told))
    assert journal.state_of(KEY.name) == WANTED and not outcomes.is_taken(KEY.name)
    assert (books.muxed, books.failures) == (0, {}) and LIAR in caplog.text


def test_in_a_migration_it_is_ordered_again(tmp_path: Path) -> None:
    outcomes, _, books = heard(tmp_path, only_ours=True)
    outcomes.heard(Event(events.DONE, LIAR, KEY.recording, KEY.name, {"message": "m1", **MUXED}))
    assert [held.key for held in outcomes.lost(None)] == [KEY] and books.muxed == 0


def test_the_worker_that_began_it_is_believed(tmp_path: Path) -> None:
    outcomes, journal, books = heard(tmp_path, only_ours=False)
    outcomes.heard(Event(events.DONE, WORKER, KEY.recording, KEY.name, {"message": "m1", **MUXED}))
    assert journal.state_of(KEY.name) == DONE and books.muxed == 1


def test_a_worker_that_takes_over_from_a_dead_one_is_believed(tmp_path: Path) -> None:
    outcomes, journal, _ = heard(tmp_path, only_ours=False)
    outcomes.heard(Event(events.BEGUN, LIAR, KEY.recording, KEY.name, {"message": "m1"}))
    outcomes.heard(Event(events.FAILED, LIAR, KEY.recording, KEY.name, {"message": "m1", **FAILED}))
    assert journal.state_of(KEY.name) == ASIDE


@pytest.mark.parametrize("what", [events.QUEUED, events.BEGUN, events.POSTPONED, events.FAILED])
def test_nothing_finished_is_set_aside_or_begun_again_by_what_is_told(tmp_path: Path, what: str) -> None:
    outcomes, journal, books = heard(tmp_path, only_ours=False)
    outcomes.heard(Event(events.DONE, WORKER, KEY.recording, KEY.name, {"message": "m1", **MUXED}))
    outcomes.begin_poll()
    outcomes.heard(Event(what, LIAR, KEY.recording, KEY.name, {"message": "m2", **FAILED}))
    assert journal.state_of(KEY.name) == DONE and not outcomes.is_taken(KEY.name)
    # Nor by a dead letter after that.
    assert outcomes.settle(Letter("m2", KEY, GivenUp("never"))) is Fate.DROPPED
    assert journal.state_of(KEY.name) == DONE and books.failures == {}


@pytest.mark.parametrize("count", [10**400, -(10**30), float("nan"), float("inf"), True, "1"])
@pytest.mark.parametrize("of", ["counts", "seconds", "moved", "errors"])
def test_sums_that_cannot_be_added_up_are_not_counted(count: object, of: str) -> None:
    def standing(value: object) -> Event:
        found = {name: value if of == name else 1 for name in ("counts", "seconds", "moved", "errors")}
        steps = {"mux": {"counts": [found["counts"]] * len(Durations().counts), "seconds": found["seconds"]}}
        totals = {"steps": steps, "moved": [["fetched", "RWS", found["moved"]]], "errors": [["RWS", "X", found["errors"]]]}
        return Event(events.WORKER, WORKER, details={"totals": totals, "held": []})

    workers = Workers()
    workers.heard(standing(1), 0.0)
    assert workers.heard(standing(count), 1.0) == Totals()
    assert workers.heard(standing(3), 2.0) != Totals()


def test_a_flood_of_workers_and_names_is_bounded() -> None:
    nothing = {"steps": {}, "moved": [], "errors": []}
    workers = Workers()
    for number in range(MOST_WORKERS + 50):
        workers.heard(Event(events.WORKER, f"w{number}", details={"totals": nothing, "held": [f"f{number}"]}), 0.0)
    assert len(workers.held(0.0)) == MOST_WORKERS
    many = nothing | {"errors": [[f"s{number}", "X", 1] for number in range(MOST_NAMES + 1)]}
    workers.heard(Event(events.WORKER, "w0", details={"totals": many, "held": ["other"]}), 1.0)
    assert "other" not in workers.held(1.0)
    # Those that say nothing any more make room.
    workers.heard(Event(events.WORKER, "late", details={"totals": nothing, "held": ["late"]}), 10_000.0)
    assert workers.held(10_000.0) == {"late"}


# Bodies

GOOD = {"version": 1, "recording": "c1", "file": "f1", "attempts": 1}


def order(**fields: object) -> bytes:
    """Return the message of an order, with other fields."""
    whole = {
        "queue_name": "orders", "actor_name": "mux", "args": [], "kwargs": GOOD, "options": {},
        "message_id": "m", "message_timestamp": 1,
    }
    return json.dumps(whole | fields).encode()


def event(what: str, **fields: object) -> bytes:
    """Return the message of an event, with other fields."""
    whole = {"version": 1, "what": what, "sender": "host/x/1", "recording": "c1", "file": "f1", "details": {}}
    return json.dumps(whole | fields).encode()


ODD_ORDERS = [
    *(order(message_id=one) for one in (None, 7, [], {}, "", "x" * 10_000, "\ud800")),
    *(order(message_timestamp=one) for one in (None, "x", [], 10**30, float("nan"))),
    *(order(args=one) for one in (None, 7, "x", [1], {"a": 1})),
    *(order(kwargs=one) for one in (None, [], {}, {"self": 1}, {"message": 1}, GOOD | {"more": 1})),
    order(kwargs=GOOD | {"file": "\ud800"}),
    *(order(kwargs=GOOD | {"file": one}) for one in ("\0", "..", "x" * 200, "amq.lock", None, 10**400, [[]])),
    *(order(kwargs=GOOD | {"attempts": one}) for one in (0, 101, 10**400, True, "1", float("inf"))),
    *(order(actor_name=one) for one in ("other", None, [], {}, "")),
    *(order(queue_name=one) for one in (None, [], "", "dead")),
    *(order(options=one) for one in (None, [], {"eta": "x"}, {"on_failure": 7}, {"pipe_target": []})),
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"\xff\xfe",
    b"9" * 5000,
    order(kwargs=GOOD | {"file": "x" * 5_000_000}),
]
WHATS = ["queued", "begun", "postponed", "dropped", "done", "failed", "refused", "worker", "gone", "poller", "other"]
ODD_DETAILS: list[object] = [
    *(None, [], 7, {}, {"message": []}, {"agent": {"a": []}}),
    *({"outcome": [], "facts": []}, {"outcome": "muxed", "facts": 7}),
    *({"outcome": "muxed", "facts": dict.fromkeys(("length", "padding", "agent"), one)} for one in (None, "x", [])),
    *({"failure": one, "level": 40, "more": False} for one in (None, [], {}, 7)),
    *(FAILED | {"level": one} for one in (None, "x", float("nan"), 10**400, -5)),
    *(FAILED | {"failure": vars(failure_of(GivenUp("x"))) | {"retry_after": one}} for one in (10**400, "x", -1e300)),
    *({"totals": one, "held": []} for one in (None, [], {}, {"steps": {"x": 7}, "moved": [], "errors": []})),
    *({"totals": TOTALS, "held": one} for one in (None, 7, {}, [[]])),
    {"totals": TOTALS, "held": [], "running": [[], 7, {}], "out": [], "host": [], "pid": "x"},
    {"reason": "x" * 1_000_000},
    {"reason": "x" * 200_000},
    FAILED | {"failure": {**vars(failure_of(GivenUp("x" * 200_000)))}},
    {"reason": [[]]},
]
ODD_EVENTS = [
    *(event(what, details=details) for what in WHATS for details in ODD_DETAILS),
    *(event("begun", file=one) for one in (None, [], "", "\0", "\ud800", "x" * 1_000_000)),
    *(event(one) for one in ("", "x" * 1_000_000)),
    b"[" * 100_000,
    b'{"version":' * 100_000,
    b"null",
]


def test_a_fleet_with_nonsense_in_every_queue_does_its_work(make_lab: Make, vhost: VirtualHost) -> None:
    lab = make_lab()
    copies = Copies(lab)
    with Crew(lab, vhost.url) as crew:
        members = polling(crew, vhost)
        with vhost.channel() as channel:
            for body in ODD_ORDERS:
                for lane in (*names(QUEUE), dead(QUEUE)):
                    channel.basic_publish("", lane, body)
            for body in ODD_EVENTS:
                for exchange in (EVENTS, STANDINGS):
                    channel.basic_publish(f"{QUEUE}{exchange}", "", body)
        ids = copies.add(3)
        wait(lambda: not copies.undone(ids), SECONDS, "the work behind them", crew.log)
        assert stopped(*members) == [0, 0]
        said = crew.log.read_text()
    assert "Traceback" not in said and "RabbitMQ is out" not in said
    assert "cannot be read, it is passed over" in said and max(map(len, said.splitlines())) < 10_000


def test_a_target_whose_end_was_not_believed_is_done_when_a_poll_finds_it_done(tmp_path: Path) -> None:
    outcomes, journal, _ = heard(tmp_path, only_ours=False)
    outcomes.heard(Event(events.DONE, LIAR, KEY.recording, KEY.name, {"message": "m1", **MUXED}))
    assert journal.state_of(KEY.name) == WANTED
    outcomes.finished("another")
    assert journal.state_of(KEY.name) == WANTED
    outcomes.finished(KEY.name)
    assert journal.state_of(KEY.name) == DONE
