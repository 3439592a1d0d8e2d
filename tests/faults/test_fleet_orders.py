"""Orders of a fleet: each target is ordered as often as it must be, and muxed once, whatever becomes of messages."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.copies import Copies
from tests.support.crew import QUEUE, SECONDS, Crew, stopped
from tests.support.daemon import wait_until
from tests.support.media import KeptLab
from tests.support.queues import VirtualHost
from tests.support.stand_in import stand_in, waiting

from muxer.fleet.lanes import names
from muxer.lab.lab import Lab
from muxer.lab.switches import Switches

IMPATIENT = {"muxer.failures.FIRST_DELAY_SECONDS": 0.5, "muxer.fleet.worker.TRIAL_SECONDS": 1.0}
_MESSAGE = {"queue_name": QUEUE, "actor_name": "mux", "args": [], "kwargs": {}, "options": {}, "message_id": "1"}
_ORDER = {"version": 1, "recording": "r", "file": "f", "attempts": 1}
# No order, whoever sent it.
GARBAGE = [
    b"",
    b"\xff\xfe",
    b"null",
    b"[]",
    b"[" * 100_000,
    b"x" * 5_000_000,
    *(
        json.dumps({**_MESSAGE, "message_timestamp": 1, **changes}).encode()
        for changes in (
            {},
            {"actor_name": "another"},
            {"actor_name": ["mux"]},
            {"args": [1], "kwargs": _ORDER},
            {"kwargs": [1]},
            {"kwargs": {**_ORDER, "self": 1}},
            {"kwargs": {**_ORDER, "file": {"a": 1}}},
            {"kwargs": _ORDER, "options": {"eta": 1}},
            {"message_id": {}, "message_timestamp": "soon"},
        )
    ),
]
_EVENT = {"version": 1, "what": "done", "sender": "somebody", "recording": "r", "file": "f", "details": {}}
ODD_EVENTS = [
    *GARBAGE,
    *(
        json.dumps({**_EVENT, **changes}).encode()
        for changes in (
            {},
            {"what": "failed", "details": {"failure": 1, "more": False}},
            {"what": "queued", "details": {"lane": "first"}},
            {"what": "worker", "details": {"totals": [], "held": 1}},
            {"what": "postponed"},
            {"what": "gone"},
            {"what": "news"},
            {"version": 2},
        )
    ),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, kept_lab: type[KeptLab]) -> Iterator[Lab]:
    """Return a lab whose files are not encrypted: what becomes of the media is the matter of other tests."""
    with kept_lab(tmp_path_factory.mktemp("orders") / "lab", Switches(encryption_group="empty")) as lab:
        yield lab


@pytest.fixture(scope="module")
def shared(lab: Lab) -> Copies:
    return Copies(lab)


@pytest.fixture
def copies(shared: Copies) -> Iterator[Copies]:
    yield shared
    shared.forget()


def wait_for_all(copies: Copies, crew: Crew, ids: list[str] | None = None) -> None:
    """Wait until recordings are muxed."""
    wanted = set(ids or copies.made)
    wait_until(lambda: wanted <= copies.labelled, max(SECONDS, len(wanted)), "the end of the work", crew.log)
    wait_until(lambda: not copies.undone(ids), SECONDS, "the end of the work", crew.log)


def test_five_hundred_targets_over_four_workers(lab: Lab, copies: Copies, vhost: VirtualHost, tmp_path: Path) -> None:
    ids = copies.add(500)
    options = {"advanced__worker_threads": "2", "processing__min_poll_interval": "0.05"}
    with Crew(lab, vhost.url, "many", **options) as crew:
        poller, *workers = crew.poller(), *(crew.worker(FLEET_MUX_ONCE="1") for _ in range(4))
        wait_for_all(copies, crew)
        wait_until(lambda: crew.tell("status")["targets"] == {"done": 500}, SECONDS, "the books", crew.log)
        assert stopped(poller, *workers) == [0] * 5
    assert crew.muxed == dict.fromkeys(ids, 1)
    # Not even one is ordered again that is done after a poll has read it.
    assert sum(line["submitted"] for line in crew.polled("poll done")) == 500
    assert len(crew.worker_logs) == 4 and all("recording muxed" in log.read_text() for log in crew.worker_logs)
    assert [one for one in (QUEUE, f"{QUEUE}.XQ") if vhost.ready(one)] == []


def test_garbage_and_orders_of_another_form_are_dead_letters(lab: Lab, copies: Copies, vhost: VirtualHost) -> None:
    (id,) = copies.add()
    with Crew(lab, vhost.url, "letters", IMPATIENT, advanced__worker_threads="1") as crew:
        poller = crew.poller()
        wait_until(lambda: vhost.ready(QUEUE), SECONDS, "the order", crew.log)
        (body,) = vhost.messages(QUEUE)
        later = json.loads(body)
        later["kwargs"]["version"] = 2
        vhost.purge(QUEUE)
        letters = [json.dumps(later).encode(), *GARBAGE]
        put(vhost, QUEUE, *letters)
        put(vhost, f"{QUEUE}.events", *ODD_EVENTS, exchange=f"{QUEUE}.events")
        worker = crew.worker()
        wait_until(lambda: crew.tell("failed"), SECONDS, "the refusal", crew.log)
        wait_until(lambda: dead(vhost) == sorted(letters), SECONDS, "all dead letters, intact", crew.log)
        (failure,) = crew.tell("failed")
        assert (failure["recording"], failure["code"], failure["state"]) == (id, "MUX-351", "aside")
        assert copies.undone() == [id]
        assert crew.tell("retry", id) == {"put_back": [later["kwargs"]["file"]]}
        wait_for_all(copies, crew)
        # Its letter is done with; those that name no target stay.
        wait_until(lambda: dead(vhost) == sorted(GARBAGE), SECONDS, "the letter's end", crew.log)
        assert crew.tell("failed") == []
        assert stopped(poller, worker) == [0, 0]


def test_an_order_that_kills_its_workers_is_set_aside(
    lab: Lab, copies: Copies, vhost: VirtualHost, tmp_path: Path
) -> None:
    (id,) = copies.add()
    options = {"processing__ffmpeg": str(kills_its_worker(tmp_path)), "advanced__worker_threads": "1"}
    few = {"muxer.fleet.connection.DELIVERIES": 3, "muxer.fleet.dead.DELIVERIES": 3}
    with Crew(lab, vhost.url, "killer", {**IMPATIENT, **few}, **options) as crew:
        crew.poller()
        for _ in range(4):
            assert crew.tell("failed") == []
            worker = crew.worker()
            wait_until(lambda worker=worker: worker.process.poll() is not None, SECONDS, "the death", crew.log)
        wait_until(lambda: crew.tell("failed"), SECONDS, "the end of patience", crew.log)
        failed = crew.tell("failed")
        assert [(one["recording"], one["code"]) for one in failed] == [(id, "MUX-352")]
        assert "4 workers were given this order" in failed[0]["reason"]
        (tmp_path / "mercy").touch()
        assert crew.tell("retry", "--all")["put_back"]
        crew.worker()
        wait_for_all(copies, crew)
        wait_until(lambda: not vhost.ready(f"{QUEUE}.XQ"), SECONDS, "the letter's end", crew.log)


def test_a_duplicate_order_is_dropped(lab: Lab, copies: Copies, vhost: VirtualHost, tmp_path: Path) -> None:
    copies.add()
    options = {"processing__ffmpeg": str(waiting(tmp_path, "ffmpeg", "*excerpts*")), "advanced__worker_threads": "1"}
    with Crew(lab, vhost.url, "twice", IMPATIENT, **options) as crew:
        crew.poller()
        wait_until(lambda: vhost.ready(QUEUE), SECONDS, "the order", crew.log)
        (body,) = vhost.messages(QUEUE)
        crew.workers(2)
        wait_until((tmp_path / "waits").exists, SECONDS, "the work", crew.log)
        put(vhost, QUEUE, body)
        wait_until(lambda: crew.said("another order for the same file"), SECONDS, "the look at the lock", crew.log)
        (tmp_path / "go").touch()
        wait_for_all(copies, crew)
        wait_until(lambda: crew.tell("status")["targets"] == {"done": 1}, SECONDS, "the books", crew.log)
        put(vhost, QUEUE, body)
        wait_until(lambda: crew.said("recording brought up to date"), SECONDS, "another look at RWS", crew.log)
        wait_until(lambda: not vhost.ready(QUEUE), SECONDS, "the end of the order", crew.log)
        assert crew.tell("status")["targets"] == {"done": 1} and sum(crew.muxed.values()) == 1


def test_permanent_failures_are_tried_three_times_in_all(lab: Lab, copies: Copies, vhost: VirtualHost) -> None:
    (id,) = copies.add()
    whole = copies.source.read_bytes()
    copies.source.write_bytes(b"")
    try:
        patience = {**IMPATIENT, "muxer.failures.PERMANENT_DELAY_SECONDS": 0.5}
        with Crew(lab, vhost.url, "broken", patience, advanced__incomplete_after="0") as crew:
            crew.poller(), crew.workers(2)
            wait_until(lambda: crew.tell("failed", "--aside"), SECONDS, "the third failure", crew.log)
            polls = len(crew.polled("poll done"))
            wait_until(lambda: len(crew.polled("poll done")) > polls + 2, SECONDS, "more polls", crew.log)
            (failure,) = crew.tell("failed")
            assert (failure["recording"], failure["attempts"], failure["code"]) == (id, 3, "MUX-322")
            assert len(crew.said("attempt failed")) == 3
            copies.source.write_bytes(whole)
            assert crew.tell("retry", id)["put_back"]
            wait_for_all(copies, crew)
            assert len(crew.said("attempt failed")) == 3
    finally:
        copies.source.write_bytes(whole)


def test_an_outage_of_the_storage_costs_no_attempts(lab: Lab, copies: Copies, vhost: VirtualHost) -> None:
    with Crew(lab, vhost.url, "outage", IMPATIENT, advanced__worker_threads="1") as crew:
        crew.poller(), crew.workers(2)
        lab.store.fail_next("dav", "GET", "/", 503, times=10**6)
        copies.add(12)
        wait_until(lambda: crew.said("WebDAV"), SECONDS, "the outage", crew.log)
        polls = len(crew.polled("poll done"))
        wait_until(lambda: len(crew.polled("poll done")) > polls + 4, SECONDS, "more polls", crew.log)
        burnt = len(crew.said("attempt failed"))
        lab.store._failures.clear()
        wait_for_all(copies, crew)
        assert crew.tell("failed") == []
        # A log of the outage, and not of each order that waits for its end.
        assert not crew.said("not begun")
    # Three failures in a row tell each worker that it is out; after that, one order tries it now and then.
    assert burnt <= 2 * 3 + 4


def test_the_newest_calls_are_muxed_first(lab: Lab, copies: Copies, vhost: VirtualHost) -> None:
    old = copies.add(24, timedelta(days=2))
    options = {"fleet__max_queue": "10", "advanced__worker_threads": "1", "processing__window_past": "4320"}
    with Crew(lab, vhost.url, "backlog", IMPATIENT, **options) as crew:
        crew.poller()
        wait_until(lambda: queued(vhost), SECONDS, "the first orders", crew.log)
        most, new = 0, []
        crew.worker()
        deadline = time.monotonic() + 2 * SECONDS
        # A worker says it after it has labelled a recording.
        while set(crew.muxed) < set(copies.made) and time.monotonic() < deadline:
            most = max(most, queued(vhost))
            if not new and len(crew.muxed) >= 3:
                new = copies.add(4)
            time.sleep(0.1)
    order = [one["recording"] for one in crew.said("recording muxed")]
    assert most <= 10 and copies.undone() == []
    assert [one for one in order if one in new] == new[::-1] and [one for one in order if one in old] == old[::-1]
    assert order.index(new[0]) < 3 + 4 + 6, "new calls wait for a few old ones at most"


def test_a_poller_that_is_killed_orders_nothing_twice(lab: Lab, copies: Copies, vhost: VirtualHost, tmp_path: Path) -> None:
    ids = copies.add(4)
    options = {"processing__ffmpeg": str(waiting(tmp_path, "ffmpeg", "*excerpts*")), "advanced__worker_threads": "1"}
    with Crew(lab, vhost.url, "again", {**IMPATIENT, "muxer.fleet.held.SETTLE_SECONDS": 3.0}, **options) as crew:
        poller = crew.poller()
        wait_until(lambda: vhost.ready(QUEUE) == 4, SECONDS, "the orders", crew.log)
        crew.worker()
        wait_until((tmp_path / "waits").exists, SECONDS, "the work", crew.log)
        wait_until(lambda: crew.tell("status")["targets"] == {"running": 1, "queued": 3}, SECONDS, "the books", crew.log)
        poller.kill()
        (tmp_path / "go").touch()
        wait_for_all(copies, crew, ids[-2:])
        (tmp_path / "go").unlink()
        (tmp_path / "waits").rmdir()
        polls = len(crew.polled("poll done"))
        poller = crew.poller()
        wait_until(lambda: len(crew.polled("poll done")) > polls + 2, SECONDS, "polls", crew.log)
        assert sum(one["submitted"] for one in crew.polled("poll done")[polls:]) == 0
        (tmp_path / "go").touch()
        wait_until(lambda: crew.tell("status")["targets"] == {"done": 4}, SECONDS, "the books", crew.log)
        assert crew.muxed == dict.fromkeys(ids, 1)


def test_orders_that_an_administrator_deletes_are_given_again(lab: Lab, copies: Copies, vhost: VirtualHost) -> None:
    with Crew(lab, vhost.url, "deleted", {**IMPATIENT, "muxer.fleet.held.SETTLE_SECONDS": 2.0}) as crew:
        poller = crew.poller()
        for delete in (vhost.purge, vhost.delete):
            ids = copies.add(2)
            wait_until(lambda: vhost.ready(QUEUE) == 2, SECONDS, "the orders", crew.log)
            delete(QUEUE)
            wait_until(lambda: vhost.ready(QUEUE) == 2, SECONDS, "the same orders", crew.log)
            worker = crew.worker()
            wait_for_all(copies, crew, ids)
            assert stopped(worker) == [0]
        assert len(crew.polled("the order for a file has vanished")) == 4
        assert stopped(poller) == [0]


def dead(vhost: VirtualHost) -> list[bytes]:
    """Return the dead letters, in some order."""
    return sorted(vhost.messages(f"{QUEUE}.XQ"))


def queued(vhost: VirtualHost) -> int:
    """Return how many orders wait in all lanes."""
    return sum(vhost.ready(lane) for lane in names(QUEUE))


def put(vhost: VirtualHost, queue: str, *bodies: bytes, exchange: str = "") -> None:
    """Put messages into a queue, or an exchange."""
    with vhost.channel() as channel:
        channel.confirm_delivery()
        for body in bodies:
            channel.basic_publish(exchange, queue, body)


def kills_its_worker(folder: Path) -> Path:
    """Write a program like ffmpeg that kills the worker when it is to check a file, until there is ``mercy``."""
    return stand_in(folder / "ffmpeg", "ffmpeg", "*excerpts*", f'[ -e "{folder}/mercy" ] || kill -9 $PPID')
