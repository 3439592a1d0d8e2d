"""Connections to RabbitMQ: how they are opened, the queues that must be there, and what the errors of pika mean."""

from __future__ import annotations

import logging
import ssl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika
from dramatiq.errors import BrokerConnectionError
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelClosed,
    ConnectionBlockedTimeout,
    NackError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from muxer.config.fleet_options import parse_nodes
from muxer.config.schema import FleetOptions
from muxer.errors import AccessDenied, AuthenticationFailed, Code, Forbidden, MuxerError, ServiceUnavailable
from muxer.fleet.message_properties import install_tolerant_properties
from muxer.fleet.priority_queues import EVENTS_SUFFIX, HEARTBEATS_SUFFIX, dead_letter_queue, queue_names
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.net.tls import client_context
from muxer.status.fleet_status import BROKER

# A peer that is gone without a word is noticed after two of these.
HEARTBEAT_SECONDS = 30
CONNECT_SECONDS, OPEN_SECONDS = 10.0, 20.0
# So long a publisher waits while RabbitMQ lacks memory or disk.
BLOCKED_SECONDS = 60.0
# An order whose worker dies is handed out again so often; then it is a dead letter. Regular stops of workers count too.
MAX_DELIVERIES = 10
HOUR_MILLISECONDS = 3_600_000
WEEK_MILLISECONDS = 7 * 24 * HOUR_MILLISECONDS
# What is told to a poller that is not there is kept for it, the newest so many; what it has not heard it finds in RWS.
MAX_QUEUED_EVENTS = 500_000
# How workers stand is told anew every few seconds.
MAX_HEARTBEATS, HEARTBEAT_MILLISECONDS = 10_000, 60_000
# From RabbitMQ 3.12 on, a queue may say how long a job may last; before, rabbitmq.conf does.
MAX_JOB_MILLISECONDS = 24 * HOUR_MILLISECONDS
_REFUSED, _MISMATCH = 403, 406
# What RabbitMQ answers to whom it does not let at an exclusive queue, because another connection has it.
RESOURCE_LOCKED = 405
# What the libraries raise. pika's own tree does not hold what a node that accepts a connection and says nothing comes to.
LIBRARY_ERRORS = (AMQPError, AMQPConnectorException, BrokerConnectionError, OSError, AssertionError)

_QUORUM_ARGUMENTS = {"x-queue-type": "quorum"}


def silence_library_logging() -> None:
    """Keep the libraries' own words about connections out of the log: they tell each attempt, with a traceback; what is out
    is told once, by :class:`Outages`."""
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    logging.getLogger("dramatiq").setLevel(logging.ERROR)


def connection_parameters(fleet: FleetOptions, name: str) -> list[dict[str, Any]]:
    """Given the options of a fleet and what RabbitMQ is to call the connection, return pika's parameters for each node.
    Raise ``ValueError`` when the certificates of ``trusted_ca`` cannot be read."""
    return [
        {
            "host": node.host,
            "port": node.port,
            "virtual_host": node.virtual_host,
            "credentials": pika.PlainCredentials(node.username, node.password),
            "ssl_options": pika.SSLOptions(client_context(fleet.trusted_ca), node.host) if node.tls else None,
            "heartbeat": HEARTBEAT_SECONDS,
            "socket_timeout": CONNECT_SECONDS,
            "stack_timeout": OPEN_SECONDS,
            "blocked_connection_timeout": BLOCKED_SECONDS,
            "client_properties": {"connection_name": name},
        }
        for node in parse_nodes(fleet.broker_url)
    ]


def open_connection(every: list[dict[str, Any]]) -> Any:
    """Given the parameters of each node, return a connection to the first that answers. Raise the errors of pika."""
    install_tolerant_properties()
    return pika.BlockingConnection([pika.ConnectionParameters(**one) for one in every])


def declare_queues(channel: Any, queue: str) -> None:
    """Given a channel and the option ``queue``, see to it that lanes, dead letters and the exchanges of the events are
    there. Raise the errors of pika, :class:`AccessDenied` when they are there in another form."""
    dead_letters = {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead_letter_queue(queue),
        # A dead letter leaves its lane when it has arrived, not before; this wants the overflow behaviour.
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-delivery-limit": MAX_DELIVERIES,
        "x-consumer-timeout": MAX_JOB_MILLISECONDS,
    }
    try:
        channel.queue_declare(
            dead_letter_queue(queue), durable=True, arguments={**_QUORUM_ARGUMENTS, "x-message-ttl": WEEK_MILLISECONDS}
        )
        for lane in queue_names(queue):
            channel.queue_declare(lane, durable=True, arguments={**_QUORUM_ARGUMENTS, **dead_letters})
        for exchange in (EVENTS_SUFFIX, HEARTBEATS_SUFFIX):
            channel.exchange_declare(f"{queue}{exchange}", "fanout", durable=True)
    except ChannelClosed as error:
        raise _mismatch_error(error, queue) from error


def declare_event_queue(channel: Any, queue: str, mark: str, kept: int = WEEK_MILLISECONDS) -> str:
    """Given a channel, the option ``queue``, the mark of a poller and for how many milliseconds its queue of events outlives
    it, see to it that this is there; return its name. Raise as :func:`declare` does."""
    name = f"{queue}{EVENTS_SUFFIX}.{mark}"
    limits = {"x-expires": kept, "x-message-ttl": kept, "x-max-length": MAX_QUEUED_EVENTS}
    try:
        channel.queue_declare(name, durable=True, arguments={**_QUORUM_ARGUMENTS, **limits})
        channel.queue_bind(name, f"{queue}{EVENTS_SUFFIX}")
    except ChannelClosed as error:
        raise _mismatch_error(error, queue) from error
    return name


def declare_heartbeat_queue(channel: Any, queue: str) -> str:
    """Given a channel and the option ``queue``, make a queue for what workers tell of themselves, which ends with the
    connection; return its name. Raise the errors of pika."""
    name = f"{queue}{HEARTBEATS_SUFFIX}.{uuid.uuid4().hex}"
    limits = {"x-max-length": MAX_HEARTBEATS, "x-message-ttl": HEARTBEAT_MILLISECONDS}
    channel.queue_declare(name, exclusive=True, arguments=limits)
    channel.queue_bind(name, f"{queue}{HEARTBEATS_SUFFIX}")
    return name


def take_lock(channel: Any, name: str) -> bool:
    """Given a channel and the name of a lock, take it: an exclusive queue, which ends with its connection. Return False when
    another connection has it, which closes the channel. Raise the errors of pika."""
    try:
        channel.queue_declare(name, exclusive=True)
    except ChannelClosed as error:
        if error.reply_code != RESOURCE_LOCKED:
            raise
        return False
    return True


def count_waiting(channel: Any, queue: str) -> int:
    """Given a channel and the name of a queue, return how many messages wait in it. Raise the errors of pika, one of them
    for a queue that is not there."""
    return int(channel.queue_declare(queue, passive=True).method.message_count)


@contextmanager
def broker_call(outages: CircuitBreaker) -> Iterator[None]:
    """Within this block the broker is talked to: what the libraries raise becomes an error of :mod:`muxer.errors`, and says
    whether the broker is out."""
    with outages.call(BROKER, login_backoff=False), translate_errors():
        yield


@contextmanager
def translate_errors() -> Iterator[None]:
    """Within this block, what the libraries raise becomes an error of :mod:`muxer.errors`."""
    try:
        yield
    except MuxerError:
        raise
    except LIBRARY_ERRORS as error:
        raise to_muxer_error(error) from error


def to_muxer_error(error: Exception) -> MuxerError:
    """Given what pika, dramatiq or the system has raised, return what it means."""
    root = error
    while isinstance(root, BrokerConnectionError) and root.args and isinstance(root.args[0], Exception):
        root = root.args[0]
    if isinstance(root, ProbableAuthenticationError | AuthenticationError):
        return AuthenticationFailed("RabbitMQ refuses the login of [fleet] broker_url")
    if isinstance(root, ProbableAccessDeniedError):
        return Forbidden("RabbitMQ does not let the user of [fleet] broker_url into the virtual host")
    if isinstance(root, ChannelClosed) and root.reply_code == _REFUSED:
        return Forbidden(f"RabbitMQ: {root.reply_text}")
    if isinstance(root, ConnectionBlockedTimeout):
        return ServiceUnavailable("RabbitMQ takes no messages, because it lacks memory or disk")
    if isinstance(root, NackError):
        return ServiceUnavailable("RabbitMQ has not taken a message")
    tls = next((one for one in _nested_errors(root) if isinstance(one, ssl.SSLError)), None)
    if tls is not None:
        return ServiceUnavailable(f"no secure connection to RabbitMQ: {tls}", code=Code.TLS)
    return ServiceUnavailable(f"RabbitMQ does not answer: {_error_text(root)}")


def _mismatch_error(error: ChannelClosed, queue: str) -> MuxerError:
    if error.reply_code != _MISMATCH:
        return to_muxer_error(error)
    text = f"RabbitMQ has queues {queue}… of another form ({error.reply_text}): delete them, or choose another [fleet] queue"
    return AccessDenied(text)


def _error_text(error: Exception) -> str:
    """Return what an error of pika says; some say it only in an error within."""
    texts = [str(one) for one in _nested_errors(error) if str(one)]
    return f"{type(error).__name__}{': ' + texts[-1] if texts else ''}"[:300]


def _nested_errors(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those within it, which pika has for arguments, ``exception`` or causes."""
    for _ in range(8):
        if error is None:
            return
        yield error
        within = [one for one in (*error.args, getattr(error, "exception", None)) if isinstance(one, BaseException)]
        error = within[0] if within else error.__cause__
