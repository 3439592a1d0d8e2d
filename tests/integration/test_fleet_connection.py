"""The errors of RabbitMQ and of its client, and the declared queues."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from dramatiq.message import Message

from muxer.config.schema import FleetOptions
from muxer.errors import AccessDenied, AuthenticationFailed, Code, Forbidden, MuxerError, ServiceUnavailable, Transient
from muxer.fleet import connection
from muxer.fleet.connection import (
    WEEK_MILLISECONDS,
    broker_call,
    connection_parameters,
    declare_event_queue,
    declare_heartbeat_queue,
    declare_queues,
    open_connection,
)
from muxer.fleet.control_connection import ControlConnection
from muxer.fleet.dead_letters import DeadLetter, DeadLetterScanner, Disposition
from muxer.fleet.event_handler import EventHandler
from muxer.fleet.events import QUEUED, Event
from muxer.fleet.executor import FleetPool
from muxer.fleet.locks import TargetLocks
from muxer.fleet.priority_queues import dead_letter_queue, queue_names
from muxer.journal.journal import JOURNAL_FILE, SET_ASIDE, Journal
from muxer.net.circuit_breaker import FAILURE_THRESHOLD, CircuitBreaker
from muxer.scheduling.outcome_recorder import OutcomeRecorder
from muxer.status.activity import Activity
from muxer.status.fleet_status import BROKER
from tests.support.queues import VirtualHost, wait_until
from tests.support.rabbitmq import RabbitNode

OPTIONS = FleetOptions("broker", "", "orders", True, 1, 100)


def connect_to_site(url: str, trusted_ca: bool | Path = True) -> None:
    every = connection_parameters(replace(OPTIONS, broker_url=url, trusted_ca=trusted_ca), "test")
    with broker_call(CircuitBreaker()), closing(open_connection(every)) as one:
        declare_queues(one.channel(), OPTIONS.queue)


@pytest.fixture
def silent() -> Iterator[int]:
    """Yield the port of a server that accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_authentication_failure_and_forbidden_virtual_host_are_distinguished(rabbit: RabbitNode) -> None:
    rabbit.start()
    with pytest.raises(AuthenticationFailed) as caught:
        connect_to_site(rabbit.node_url(password="not-the-password"))
    assert "not-the-password" not in str(caught.value) and caught.value.service == BROKER
    with pytest.raises(Forbidden, match="virtual host"):
        connect_to_site(rabbit.node_url(vhost="nowhere"))


def test_account_without_permissions_is_forbidden(vhost: VirtualHost) -> None:
    account, rights = f'<<"{vhost.name}">>', '<<"^$">>, <<".*">>, <<".*">>'
    vhost.node.evaluate_erlang(f'rabbit_auth_backend_internal:set_permissions({account}, {account}, {rights}, <<"test">>)')
    with pytest.raises(Forbidden, match="ACCESS_REFUSED"):
        connect_to_site(vhost.url)


def test_worker_without_lock_permission_reports_it(vhost: VirtualHost) -> None:
    connect_to_site(vhost.url)
    account, rights = f'<<"{vhost.name}">>', r'<<"^orders(\\.XQ|\\.today|\\.backlog)?$">>, <<".*">>, <<".*">>'
    vhost.node.evaluate_erlang(f'rabbit_auth_backend_internal:set_permissions({account}, {account}, {rights}, <<"test">>)')
    circuit_breaker = CircuitBreaker()
    for _ in range(FAILURE_THRESHOLD):
        with (
            pytest.raises(Forbidden, match=r"orders\.running"),
            broker_call(circuit_breaker),
            vhost.open_channel() as channel,
        ):
            TargetLocks("orders").restore_locks(channel.connection)
    assert circuit_breaker.is_open(BROKER)


@pytest.mark.parametrize("secure", [False, True])
def test_silent_server_meets_the_time_limit(silent: int, secure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(connection, "OPEN_SECONDS", 0.5)
    with pytest.raises(ServiceUnavailable, match="does not respond"):
        connect_to_site(f"amqp{'s' if secure else ''}://127.0.0.1:{silent}")


def test_a_certificate_of_another_authority_is_refused(rabbit: RabbitNode) -> None:
    rabbit.start()
    with pytest.raises(ServiceUnavailable) as caught:
        connect_to_site(rabbit.node_url(secure=True))
    assert caught.value.code is Code.TLS


def test_queues_with_other_arguments_are_reported(vhost: VirtualHost) -> None:
    with vhost.open_channel() as channel:
        channel.queue_declare("orders", durable=True)
    with pytest.raises(AccessDenied, match=r"delete them or set another \[fleet\] queue"):
        connect_to_site(vhost.url)


def test_all_queues_are_durable_and_replicated(vhost: VirtualHost) -> None:
    connect_to_site(vhost.url)
    with vhost.open_channel() as channel:
        events = declare_event_queue(channel, "orders", "mark")
        standings = declare_heartbeat_queue(channel, "orders")
        assert channel.queue_declare(standings, passive=True).method.message_count == 0
    assert events == "orders.events.mark" and vhost.queue_counts(standings) is None, "it ends with its connection"
    for name in (*queue_names("orders"), dead_letter_queue("orders"), events):
        form = vhost.node.evaluate_erlang(
            "[{amqqueue:is_durable(Q), amqqueue:get_type(Q)} || Q <- rabbit_amqqueue:list(), "
            f'element(4, amqqueue:get_name(Q)) == <<"{name}">>, element(2, amqqueue:get_name(Q)) == <<"{vhost.name}">>]'
        )
        assert form == "[{true, rabbit_quorum_queue}]", name


def test_second_node_is_used_when_the_first_is_unavailable(vhost: VirtualHost) -> None:
    connect_to_site(f"amqp://127.0.0.1:1,{vhost.url}")


def test_unexpected_error_becomes_broker_error() -> None:
    for error in (OSError("gone"), AssertionError(), EOFError()):
        assert isinstance(connection.to_muxer_error(error), MuxerError)


def refuse_orders(vhost: VirtualHost, *ids: str) -> None:
    """Turn tasks into dead letters, like a worker that cannot read them."""
    with vhost.open_channel() as channel:
        channel.confirm_delivery()
        for id in ids:
            channel.basic_publish("", "orders", Message("orders", "mux", (), {"file": id}, {}, id).encode())
            channel.basic_nack(channel.basic_get("orders")[0].delivery_tag, requeue=False)
    wait_until(lambda: all(any(id in str(one) for one in vhost.message_bodies(dead_letter_queue("orders"))) for id in ids))


def test_many_dead_letters_are_scanned_in_batches_and_each_once(vhost: VirtualHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxer.fleet.dead_letters.SCAN_BATCH_SIZE", 2)
    connect_to_site(vhost.url)
    letters, met, dispositions = DeadLetterScanner(), [], {"b": Disposition.DROPPED}

    def settle_letter(letter: DeadLetter) -> Disposition:
        met.append(letter.key.name)
        return dispositions.get(letter.key.name, Disposition.LEFT)

    def scan_once() -> list[str]:
        """Scan once. Returns the dead letters that were scanned."""
        met.clear()
        with vhost.open_channel() as channel:
            letters.scan_next(channel.connection, "orders", vhost.ready_count(dead_letter_queue("orders")), settle_letter)
        return list(met)

    assert scan_once() == []
    refuse_orders(vhost, "a", "b", "c")
    assert scan_once() == ["a", "b"] and letters.count == 2
    refuse_orders(vhost, "d")
    assert (scan_once(), letters.count) == (["c"], 3)
    # A new one arrived meanwhile: all are scanned again.
    assert sorted(scan_once() + scan_once()) == ["a", "c", "d"]
    assert scan_once() == [] and letters.count == 3
    with vhost.open_channel() as channel:
        _, properties, _ = channel.basic_get(dead_letter_queue("orders"))
        assert 0 < int(properties.expiration) <= WEEK_MILLISECONDS
    letters.request_full_scan("no letter of this one")
    assert scan_once() == []
    dispositions["a"] = Disposition.DROPPED
    letters.request_full_scan("a")
    assert sorted(scan_once() + scan_once()) == ["a", "c", "d"] and letters.count == 2
    assert scan_once() == []
    with vhost.open_channel() as channel:
        channel.queue_purge(dead_letter_queue("orders"))
    assert scan_once() == [] and letters.count == 0
    refuse_orders(vhost, "e")
    assert scan_once() == ["e"]


def test_letters_held_by_another_poller_are_not_new(vhost: VirtualHost) -> None:
    """Otherwise two pollers with many dead letters would trigger each other to scan them endlessly."""
    connect_to_site(vhost.url)
    refuse_orders(vhost, "a", "b")
    one, other, met = DeadLetterScanner(), DeadLetterScanner(), []

    def scan_letters(letters: DeadLetterScanner, settle: Callable[[DeadLetter], Disposition]) -> None:
        with vhost.open_channel() as channel:
            letters.scan_next(channel.connection, "orders", vhost.ready_count(dead_letter_queue("orders")), settle)

    def keep_letter(letter: DeadLetter) -> Disposition:
        met.append(letter.key.name)
        return Disposition.LEFT

    def meet_meanwhile(letter: DeadLetter) -> Disposition:
        scan_letters(one, keep_letter)
        return Disposition.LEFT

    scan_letters(one, keep_letter)
    scan_letters(other, meet_meanwhile)
    scan_letters(one, keep_letter)
    assert met == ["a", "b"]


def test_dead_letter_sets_target_aside_when_its_task_is_known_later(vhost: VirtualHost, tmp_path: Path) -> None:
    connect_to_site(vhost.url)
    refuse_orders(vhost, "a")
    journal = Journal(tmp_path / JOURNAL_FILE)
    outcomes = EventHandler("host/poller/one", False, journal, OutcomeRecorder(journal, False), Activity())
    with vhost.open_channel() as channel:
        for state in ("", SET_ASIDE):
            outcomes.letters.scan_next(
                channel.connection, "orders", vhost.ready_count(dead_letter_queue("orders")), outcomes.settle_letter
            )
            assert journal.state_of("a") == state
            outcomes.handle(Event(QUEUED, "host/poller/two", "r", "a", {"message": "a"}))


@contextmanager
def poller_pool(vhost: VirtualHost) -> Iterator[FleetPool]:
    """Yield the poller's side of a fleet, with capacity for one task."""
    fleet, journal = replace(OPTIONS, broker_url=vhost.url, max_queue=1), Journal(None)
    recorders = (journal, OutcomeRecorder(journal, False), Activity(), CircuitBreaker())
    pool = FleetPool(fleet, "mark", 1, *recorders, threading.Event())
    try:
        yield pool
    finally:
        pool.wait_for_running(5)


def test_older_calls_are_read_when_the_queue_has_capacity_again(vhost: VirtualHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxer.fleet.executor.QUEUE_POLL_INTERVAL", 0.2)
    connect_to_site(vhost.url)
    with vhost.open_channel() as channel:
        channel.basic_publish("", "orders", b"a task")
        wait_until(lambda: vhost.ready_count("orders"))
        with poller_pool(vhost) as pool:
            wait_until(lambda: pool.fleet_status().lanes["orders"])
            assert pool.rejects_older_than(60.0) and not pool.has_capacity_again
            channel.queue_purge("orders")
            wait_until(lambda: pool.has_capacity_again)


def test_poller_consumes_again_after_its_event_queue_was_deleted(
    vhost: VirtualHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muxer.fleet.control_connection.RECONNECT_SECONDS", 0.1)
    events = "orders.events.mark"

    def is_heard() -> bool:
        return getattr(vhost.queue_counts(events), "consumers", 0) == 1

    with poller_pool(vhost):
        wait_until(is_heard)
        vhost.delete_queue(events)
        wait_until(is_heard)


def test_new_connection_error_is_not_reported_as_the_previous_one(
    vhost: VirtualHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muxer.fleet.control_connection.RECONNECT_SECONDS", 0.1)
    errors: list[MuxerError] = [AuthenticationFailed("the password was another one then")]

    def let_in(_: object) -> None:
        if errors:
            raise errors.pop()

    line = ControlConnection(replace(OPTIONS, broker_url=vhost.url), "test", CircuitBreaker(), let_in, lambda _: None, 60.0)
    line.start()
    try:
        wait_until(lambda: line.is_connected)
        with pytest.raises(Transient) as caught:
            line.run_task(lambda connection: connection.channel().queue_declare("nowhere", passive=True))
        assert type(caught.value) is ServiceUnavailable and "nowhere" in str(caught.value)
    finally:
        line.close(5)
