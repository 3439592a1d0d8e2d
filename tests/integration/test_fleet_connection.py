"""What the errors of RabbitMQ and of its client mean, and what is declared."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from dramatiq.message import Message
from tests.support.queues import VirtualHost, wait_until
from tests.support.rabbitmq import RabbitNode

from muxer.activity import Activity
from muxer.books import Books
from muxer.config.schema import Fleet
from muxer.errors import AccessDenied, Code, Forbidden, LoginRefused, MuxerError, ServiceUnavailable, Transient
from muxer.fleet import connection
from muxer.fleet.connection import (
    WEEK_MILLISECONDS,
    connect,
    declare,
    declare_events,
    declare_standings,
    parameters,
    talking,
)
from muxer.fleet.dead import DeadLetters, Fate, Letter
from muxer.fleet.events import QUEUED, Event
from muxer.fleet.lanes import dead, names
from muxer.fleet.line import Line
from muxer.fleet.locks import Locks
from muxer.fleet.outcomes import Outcomes
from muxer.fleet.pool import FleetPool
from muxer.fleet.view import BROKER
from muxer.journal import ASIDE, JOURNAL, Journal
from muxer.outages import FAILURES_IN_A_ROW, Outages

OPTIONS = Fleet("broker", "", "orders", True, 1, 100)


def opened(url: str, trusted_ca: bool | Path = True) -> None:
    every = parameters(replace(OPTIONS, broker_url=url, trusted_ca=trusted_ca), "test")
    with talking(Outages()), closing(connect(every)) as one:
        declare(one.channel(), OPTIONS.queue)


@pytest.fixture
def silent() -> Iterator[int]:
    """Yield the port of a server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_refused_login_and_a_closed_virtual_host_are_told_apart(rabbit: RabbitNode) -> None:
    rabbit.start()
    with pytest.raises(LoginRefused) as caught:
        opened(rabbit.url(password="not-the-password"))
    assert "not-the-password" not in str(caught.value) and caught.value.service == BROKER
    with pytest.raises(Forbidden, match="virtual host"):
        opened(rabbit.url(vhost="nowhere"))


def test_an_account_without_rights_is_forbidden(vhost: VirtualHost) -> None:
    account, rights = f'<<"{vhost.name}">>', '<<"^$">>, <<".*">>, <<".*">>'
    vhost.node.evaluate(f'rabbit_auth_backend_internal:set_permissions({account}, {account}, {rights}, <<"test">>)')
    with pytest.raises(Forbidden, match="ACCESS_REFUSED"):
        opened(vhost.url)


def test_a_worker_that_may_make_no_locks_says_so(vhost: VirtualHost) -> None:
    opened(vhost.url)
    account, rights = f'<<"{vhost.name}">>', r'<<"^orders(\\.XQ|\\.today|\\.backlog)?$">>, <<".*">>, <<".*">>'
    vhost.node.evaluate(f'rabbit_auth_backend_internal:set_permissions({account}, {account}, {rights}, <<"test">>)')
    outages = Outages()
    for _ in range(FAILURES_IN_A_ROW):
        with pytest.raises(Forbidden, match=r"orders\.running"), talking(outages), vhost.channel() as channel:
            Locks("orders").opened(channel.connection)
    assert outages.is_out(BROKER)


@pytest.mark.parametrize("secure", [False, True])
def test_a_server_that_says_nothing_is_given_up(silent: int, secure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(connection, "OPEN_SECONDS", 0.5)
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        opened(f"amqp{'s' if secure else ''}://127.0.0.1:{silent}")


def test_a_certificate_of_another_authority_is_refused(rabbit: RabbitNode) -> None:
    rabbit.start()
    with pytest.raises(ServiceUnavailable) as caught:
        opened(rabbit.url(secure=True))
    assert caught.value.code is Code.TLS


def test_queues_of_another_form_are_said(vhost: VirtualHost) -> None:
    with vhost.channel() as channel:
        channel.queue_declare("orders", durable=True)
    with pytest.raises(AccessDenied, match=r"delete them, or choose another \[fleet\] queue"):
        opened(vhost.url)


def test_all_queues_are_durable_and_replicated(vhost: VirtualHost) -> None:
    opened(vhost.url)
    with vhost.channel() as channel:
        events = declare_events(channel, "orders", "mark")
        standings = declare_standings(channel, "orders")
        assert channel.queue_declare(standings, passive=True).method.message_count == 0
    assert events == "orders.events.mark" and vhost.counts(standings) is None, "it ends with its connection"
    for name in (*names("orders"), dead("orders"), events):
        form = vhost.node.evaluate(
            "[{amqqueue:is_durable(Q), amqqueue:get_type(Q)} || Q <- rabbit_amqqueue:list(), "
            f'element(4, amqqueue:get_name(Q)) == <<"{name}">>, element(2, amqqueue:get_name(Q)) == <<"{vhost.name}">>]'
        )
        assert form == "[{true, rabbit_quorum_queue}]", name


def test_another_node_is_taken_when_the_first_is_down(vhost: VirtualHost) -> None:
    opened(f"amqp://127.0.0.1:1,{vhost.url}")


def test_what_nobody_expects_is_still_an_error_of_ours() -> None:
    for error in (OSError("gone"), AssertionError(), EOFError()):
        assert isinstance(connection.meaning(error), MuxerError)


def refused(vhost: VirtualHost, *ids: str) -> None:
    """Let orders become dead letters, as a worker does that cannot read them."""
    with vhost.channel() as channel:
        channel.confirm_delivery()
        for id in ids:
            channel.basic_publish("", "orders", Message("orders", "mux", (), {"file": id}, {}, id).encode())
            channel.basic_nack(channel.basic_get("orders")[0].delivery_tag, requeue=False)
    wait_until(lambda: all(any(id in str(one) for one in vhost.messages(dead("orders"))) for id in ids))


def test_many_dead_letters_are_looked_at_some_at_a_time_and_each_once(
    vhost: VirtualHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muxer.fleet.dead.LOOKED_AT", 2)
    opened(vhost.url)
    letters, met, fate = DeadLetters(), [], {"b": Fate.DROPPED}

    def settle(letter: Letter) -> Fate:
        met.append(letter.key.name)
        return fate.get(letter.key.name, Fate.LEFT)

    def look() -> list[str]:
        """Look once; return which letters were looked at."""
        met.clear()
        with vhost.channel() as channel:
            letters.look(channel.connection, "orders", vhost.ready(dead("orders")), settle)
        return list(met)

    assert look() == []
    refused(vhost, "a", "b", "c")
    assert look() == ["a", "b"] and letters.count == 2
    refused(vhost, "d")
    assert (look(), letters.count) == (["c"], 3)
    # One has come meanwhile: they are looked at once more.
    assert sorted(look() + look()) == ["a", "c", "d"]
    assert look() == [] and letters.count == 3
    with vhost.channel() as channel:
        _, properties, _ = channel.basic_get(dead("orders"))
        assert 0 < int(properties.expiration) <= WEEK_MILLISECONDS
    letters.look_again("no letter of this one")
    assert look() == []
    fate["a"] = Fate.DROPPED
    letters.look_again("a")
    assert sorted(look() + look()) == ["a", "c", "d"] and letters.count == 2
    assert look() == []
    with vhost.channel() as channel:
        channel.queue_purge(dead("orders"))
    assert look() == [] and letters.count == 0
    refused(vhost, "e")
    assert look() == ["e"]


def test_letters_that_another_poller_looks_at_are_no_new_ones(vhost: VirtualHost) -> None:
    """Else two pollers with many of them would look at all without end, each because of the other."""
    opened(vhost.url)
    refused(vhost, "a", "b")
    one, other, met = DeadLetters(), DeadLetters(), []

    def look(letters: DeadLetters, settle: Callable[[Letter], Fate]) -> None:
        with vhost.channel() as channel:
            letters.look(channel.connection, "orders", vhost.ready(dead("orders")), settle)

    def meet(letter: Letter) -> Fate:
        met.append(letter.key.name)
        return Fate.LEFT

    def meet_meanwhile(letter: Letter) -> Fate:
        look(one, meet)
        return Fate.LEFT

    look(one, meet)
    look(other, meet_meanwhile)
    look(one, meet)
    assert met == ["a", "b"]


def test_a_dead_letter_whose_order_is_told_later_sets_its_target_aside(vhost: VirtualHost, tmp_path: Path) -> None:
    opened(vhost.url)
    refused(vhost, "a")
    journal = Journal(tmp_path / JOURNAL)
    outcomes = Outcomes("host/poller/one", False, journal, Books(journal, False), Activity())
    with vhost.channel() as channel:
        for state in ("", ASIDE):
            outcomes.letters.look(channel.connection, "orders", vhost.ready(dead("orders")), outcomes.settle)
            assert journal.state_of("a") == state
            outcomes.heard(Event(QUEUED, "host/poller/two", "r", "a", {"message": "a"}))


@contextmanager
def pooled(vhost: VirtualHost) -> Iterator[FleetPool]:
    """Yield the poller's side of a fleet, with room for one order."""
    fleet, journal = replace(OPTIONS, broker_url=vhost.url, max_queue=1), Journal(None)
    told = (journal, Books(journal, False), Activity(), Outages())
    pool = FleetPool(fleet, "mark", 1, *told, threading.Event())
    try:
        yield pool
    finally:
        pool.drain(5)


def test_older_calls_that_are_not_read_for_lack_of_room_are_wanted_when_there_is_some(
    vhost: VirtualHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muxer.fleet.pool.LOOK_SECONDS", 0.2)
    opened(vhost.url)
    with vhost.channel() as channel:
        channel.basic_publish("", "orders", b"an order")
        wait_until(lambda: vhost.ready("orders"))
        with pooled(vhost) as pool:
            wait_until(lambda: pool.view().lanes["orders"])
            assert pool.is_closed(60.0) and not pool.is_hungry
            channel.queue_purge("orders")
            wait_until(lambda: pool.is_hungry)


def test_a_poller_whose_queue_of_events_was_deleted_listens_again(
    vhost: VirtualHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muxer.fleet.line.RECONNECT_SECONDS", 0.1)
    events = "orders.events.mark"

    def is_heard() -> bool:
        return getattr(vhost.counts(events), "consumers", 0) == 1

    with pooled(vhost):
        wait_until(is_heard)
        vhost.delete(events)
        wait_until(is_heard)


def test_what_breaks_the_line_is_not_told_as_what_broke_it_before(
    vhost: VirtualHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muxer.fleet.line.RECONNECT_SECONDS", 0.1)
    errors: list[MuxerError] = [LoginRefused("the password was another one then")]

    def let_in(_: object) -> None:
        if errors:
            raise errors.pop()

    line = Line(replace(OPTIONS, broker_url=vhost.url), "test", Outages(), let_in, lambda _: None, 60.0)
    line.start()
    try:
        wait_until(lambda: line.is_connected)
        with pytest.raises(Transient) as caught:
            line.ask(lambda connection: connection.channel().queue_declare("nowhere", passive=True))
        assert type(caught.value) is ServiceUnavailable and "nowhere" in str(caught.value)
    finally:
        line.close(5)
