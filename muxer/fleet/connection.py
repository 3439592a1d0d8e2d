"""Opens connections to RabbitMQ, declares the queues, and translates the errors of pika."""

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
# How long a publisher waits while RabbitMQ lacks memory or disk.
BLOCKED_SECONDS = 60.0
# A task whose worker dies is redelivered this number of times, then it is a dead letter. Regular stops count, too, before
# RabbitMQ 4.3. The limit is set because that of RabbitMQ 4 would be 20, and earlier versions have none.
MAX_DELIVERIES = 10
HOUR_MILLISECONDS = 3_600_000
WEEK_MILLISECONDS = 7 * 24 * HOUR_MILLISECONDS
# Events kept for a poller that does not run; it finds the outcome of older ones in RWS.
MAX_QUEUED_EVENTS = 500_000
# Heartbeats are repeated every few seconds.
MAX_HEARTBEATS, HEARTBEAT_MILLISECONDS = 10_000, 60_000
# The acknowledgement timeout. Before RabbitMQ 3.12 only rabbitmq.conf can set it.
MAX_JOB_MILLISECONDS = 24 * HOUR_MILLISECONDS
_REFUSED, _NOT_FOUND, _MISMATCH = 403, 404, 406
# The reply code for an exclusive queue that another connection has.
RESOURCE_LOCKED = 405
# Errors of the libraries. AssertionError and OSError come from a node that accepts a connection and does not respond.
LIBRARY_ERRORS = (AMQPError, AMQPConnectorException, BrokerConnectionError, OSError, AssertionError)

_QUORUM_ARGUMENTS = {"x-queue-type": "quorum"}


def silence_library_logging() -> None:
    """Silence the libraries, which log each connection attempt with a traceback; the circuit breaker logs an outage once."""
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    logging.getLogger("dramatiq").setLevel(logging.ERROR)


def connection_parameters(fleet: FleetOptions, name: str) -> list[dict[str, Any]]:
    """Return the parameters of pika for each node. Raises ValueError when `trusted_ca` cannot be read."""
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


def open_connection(nodes: list[dict[str, Any]]) -> Any:
    """Return a connection to the first node that responds. Raises the errors of pika."""
    install_tolerant_properties()
    return pika.BlockingConnection([pika.ConnectionParameters(**node) for node in nodes])


def declare_queues(channel: Any, queue: str) -> None:
    """Declare queues and exchanges. Raises the errors of pika, AccessDenied when they exist with other arguments."""
    dead_letters = {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": dead_letter_queue(queue),
        # A dead letter leaves its queue only when it has arrived; this needs the overflow behaviour.
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-delivery-limit": MAX_DELIVERIES,
        "x-consumer-timeout": MAX_JOB_MILLISECONDS,
    }
    try:
        channel.queue_declare(
            dead_letter_queue(queue), durable=True, arguments={**_QUORUM_ARGUMENTS, "x-message-ttl": WEEK_MILLISECONDS}
        )
        for name in queue_names(queue):
            channel.queue_declare(name, durable=True, arguments={**_QUORUM_ARGUMENTS, **dead_letters})
        for exchange in (EVENTS_SUFFIX, HEARTBEATS_SUFFIX):
            channel.exchange_declare(f"{queue}{exchange}", "fanout", durable=True)
    except ChannelClosed as error:
        raise _mismatch_error(error, queue) from error


def declare_event_queue(channel: Any, queue: str, mark: str, kept: int = WEEK_MILLISECONDS) -> str:
    """Declare the event queue of a poller, which outlives it by `kept` milliseconds; return its name."""
    name = f"{queue}{EVENTS_SUFFIX}.{mark}"
    limits = {"x-expires": kept, "x-message-ttl": kept, "x-max-length": MAX_QUEUED_EVENTS}
    try:
        channel.queue_declare(name, durable=True, arguments={**_QUORUM_ARGUMENTS, **limits})
        channel.queue_bind(name, f"{queue}{EVENTS_SUFFIX}")
    except ChannelClosed as error:
        raise _mismatch_error(error, queue) from error
    return name


def declare_heartbeat_queue(channel: Any, queue: str) -> str:
    """Create a queue for heartbeats, which ends with the connection, and return its name. Raises the errors of pika."""
    name = f"{queue}{HEARTBEATS_SUFFIX}.{uuid.uuid4().hex}"
    limits = {"x-max-length": MAX_HEARTBEATS, "x-message-ttl": HEARTBEAT_MILLISECONDS}
    channel.queue_declare(name, exclusive=True, arguments=limits)
    channel.queue_bind(name, f"{queue}{HEARTBEATS_SUFFIX}")
    return name


def take_lock(channel: Any, name: str) -> bool:
    """Take a lock (an exclusive queue). Returns False when it is taken; RabbitMQ closes the channel then."""
    try:
        channel.queue_declare(name, exclusive=True)
    except ChannelClosed as error:
        if error.reply_code != RESOURCE_LOCKED:
            raise
        return False
    return True


def count_waiting(channel: Any, queue: str) -> int:
    """Return the number of messages in a queue. Raises the errors of pika, also when the queue does not exist."""
    return int(channel.queue_declare(queue, passive=True).method.message_count)


def count_if_exists(connection: Any, queue: str) -> int | None:
    """Return the number of messages in a queue, on a separate channel of `connection`; None when it does not exist."""
    try:
        return count_waiting(connection.channel(), queue)
    except ChannelClosed as error:
        if error.reply_code != _NOT_FOUND:
            raise
        return None


@contextmanager
def broker_call(circuit_breaker: CircuitBreaker) -> Iterator[None]:
    """Within this block, translate errors of the libraries and count them as failures of the broker."""
    with circuit_breaker.call(BROKER, login_backoff=False), translate_errors():
        yield


@contextmanager
def translate_errors() -> Iterator[None]:
    """Within this block, translate errors of the libraries into those of :mod:`muxer.errors`."""
    try:
        yield
    except MuxerError:
        raise
    except LIBRARY_ERRORS as error:
        raise to_muxer_error(error) from error


def to_muxer_error(error: Exception) -> MuxerError:
    """Translate an error of pika, dramatiq or the system."""
    root = error
    while isinstance(root, BrokerConnectionError) and root.args and isinstance(root.args[0], Exception):
        root = root.args[0]
    if isinstance(root, ProbableAuthenticationError | AuthenticationError):
        return AuthenticationFailed("RabbitMQ rejects the credentials of [fleet] broker_url")
    if isinstance(root, ProbableAccessDeniedError):
        return Forbidden("RabbitMQ denies the user of [fleet] broker_url access to the virtual host")
    if isinstance(root, ChannelClosed) and root.reply_code == _REFUSED:
        return Forbidden(f"RabbitMQ: {root.reply_text}")
    if isinstance(root, ConnectionBlockedTimeout):
        return ServiceUnavailable("RabbitMQ accepts no messages because it lacks memory or disk")
    if isinstance(root, NackError):
        return ServiceUnavailable("RabbitMQ has rejected a message")
    tls = next((nested for nested in _nested_errors(root) if isinstance(nested, ssl.SSLError)), None)
    if tls is not None:
        return ServiceUnavailable(f"TLS connection to RabbitMQ failed: {tls}", code=Code.TLS)
    return ServiceUnavailable(f"RabbitMQ does not respond: {_error_text(root)}")


def _mismatch_error(error: ChannelClosed, queue: str) -> MuxerError:
    if error.reply_code != _MISMATCH:
        return to_muxer_error(error)
    text = (
        f"RabbitMQ has queues {queue}… with other arguments ({error.reply_text}): delete them or set another [fleet] queue"
    )
    return AccessDenied(text)


def _error_text(error: Exception) -> str:
    texts = [str(nested) for nested in _nested_errors(error) if str(nested)]
    return f"{type(error).__name__}{': ' + texts[-1] if texts else ''}"[:300]


def _nested_errors(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those nested in its arguments, its attribute ``exception`` or its cause."""
    for _ in range(8):
        if error is None:
            return
        yield error
        parts = (*error.args, getattr(error, "exception", None))
        nested = [part for part in parts if isinstance(part, BaseException)]
        error = nested[0] if nested else error.__cause__
