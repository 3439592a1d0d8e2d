"""The control connection to RabbitMQ, for events, locks and queue depths; served by a separate thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import pika

from muxer.config.schema import FleetOptions
from muxer.errors import ServiceUnavailable, Transient
from muxer.fleet.connection import LIBRARY_ERRORS, broker_call, connection_parameters, declare_queues, open_connection
from muxer.fleet.events import TRANSIENT_EVENTS, Event, encode_event
from muxer.fleet.priority_queues import EVENTS_SUFFIX, HEARTBEATS_SUFFIX
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.status.fleet_status import BROKER

log = logging.getLogger(__name__)

EVENT_LOOP_SECONDS = 0.5
RECONNECT_SECONDS = 2.0
TASK_TIMEOUT_SECONDS = 30.0
# After this time without a loop, RabbitMQ does not respond or lacks memory.
STUCK_SECONDS = 10.0
# Events kept while the broker is unavailable. The oldest are dropped first; RWS shows their outcome.
MAX_OUTBOX_EVENTS = 100_000
NO_RESPONSE = "RabbitMQ does not respond"

T = TypeVar("T")


class ControlConnection:
    """A connection that reconnects by itself. Safe to use from any thread.

    `opened` and `tick` are called in the thread of the connection. Errors of pika in them and in tasks close it.
    """

    def __init__(
        self,
        fleet: FleetOptions,
        name: str,
        circuit_breaker: CircuitBreaker,
        opened: Callable[[Any], None],
        tick: Callable[[Any], None],
        tick_seconds: float,
    ) -> None:
        self._parameters, self._queue = connection_parameters(fleet, name), fleet.queue
        self._circuit_breaker, self._opened, self._tick, self._tick_seconds = circuit_breaker, opened, tick, tick_seconds
        self._outbox: deque[Event] = deque(maxlen=MAX_OUTBOX_EVENTS)
        self._tasks: deque[tuple[Callable[[Any], Any], Future[Any]]] = deque()
        self._lock = threading.Lock()
        self._connection: Any = None
        self._failure: Transient = ServiceUnavailable(NO_RESPONSE)
        self._is_open, self._last_loop = False, 0.0
        self._closing, self._first_attempt = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)

    def start(self) -> None:
        """Start to connect."""
        self._thread.start()

    @property
    def is_connected(self) -> bool:
        """Whether the connection is open and responds."""
        return self._connection is not None and time.monotonic() - self._last_loop < STUCK_SECONDS

    def send_event(self, event: Event) -> None:
        """Send an event to all pollers as soon as possible; heartbeats are dropped without a connection."""
        if event.what in TRANSIENT_EVENTS and not self._is_open:
            return
        self._outbox.append(event)
        self._wake_thread()

    def run_task(self, task: Callable[[Any], T]) -> T:
        """Call `task` with the connection in its thread; return the result. Raises Transient without a connection."""
        self._first_attempt.wait(TASK_TIMEOUT_SECONDS)  # Waits for the first connection after the start.
        try:
            return self.submit_task(task).result(TASK_TIMEOUT_SECONDS)
        except TimeoutError:
            raise self._last_error() from None

    def submit_task(self, task: Callable[[Any], T]) -> Future[T]:
        """Like :meth:`run_task`, but return without waiting. Raises Transient when there is no connection."""
        future: Future[T] = Future()
        with self._lock:
            if self._connection is None:
                raise self._last_error()
            self._tasks.append((task, future))
        self._wake_thread()
        return future

    def close(self, seconds: float) -> bool:
        """Send pending events and close the connection; return whether that took less than `seconds`."""
        self._closing.set()
        self._wake_thread()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _wake_thread(self) -> None:
        with suppress(AttributeError, *LIBRARY_ERRORS):
            self._connection.add_callback_threadsafe(_do_nothing)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._serve_connection()
            except Transient as error:
                self._failure = error
                log.debug("the control connection to RabbitMQ broke: %s", error)
            except Exception:
                log.exception("the control connection to RabbitMQ failed with an unexpected error; reconnecting")
            self._fail_pending_tasks()
            self._first_attempt.set()
            self._closing.wait(RECONNECT_SECONDS)

    def _serve_connection(self) -> None:
        connection = None
        try:
            # The broker counts as available only when tasks can be submitted.
            with broker_call(self._circuit_breaker):
                connection = open_connection(self._parameters)
                channel = self._open_channel(connection)
                self._last_loop = time.monotonic()
                with self._lock:
                    self._connection, self._failure = connection, ServiceUnavailable(NO_RESPONSE)
            self._first_attempt.set()
            due = time.monotonic() + self._tick_seconds
            while not (self._closing.is_set() and not self._outbox):
                with broker_call(self._circuit_breaker):
                    self._process_pending(connection, channel)
                    if time.monotonic() >= due:
                        due = time.monotonic() + self._tick_seconds
                        self._tick(connection)
                    connection.process_data_events(0 if self._outbox or self._tasks else EVENT_LOOP_SECONDS)
                    self._last_loop = time.monotonic()
        finally:
            self._is_open = False
            if connection is not None:
                with suppress(*LIBRARY_ERRORS):
                    connection.close()

    def _open_channel(self, connection: Any) -> Any:
        """Return a channel once RabbitMQ has accepted declarations and events: it may lack memory or deny writing."""
        channel = connection.channel()
        channel.confirm_delivery()
        declare_queues(channel, self._queue)
        self._opened(connection)
        self._is_open = True
        self._tick(connection)
        self._process_pending(connection, channel)
        return channel

    def _process_pending(self, connection: Any, channel: Any) -> None:
        while self._outbox:
            event = self._outbox[0]
            exchange, mode = (HEARTBEATS_SUFFIX, 1) if event.what in TRANSIENT_EVENTS else (EVENTS_SUFFIX, 2)
            properties = pika.BasicProperties(delivery_mode=mode, content_type="application/json")
            channel.basic_publish(f"{self._queue}{exchange}", "", encode_event(event), properties)
            with suppress(IndexError):  # A full outbox may have dropped it.
                self._outbox.popleft()
        while self._tasks:
            # A task that breaks the connection stays in the list, so that it receives the reason with the others.
            task, future = self._tasks[0]
            future.set_result(task(connection))
            self._tasks.popleft()

    def _fail_pending_tasks(self) -> None:
        with self._lock:
            self._connection = None
            waiting = list(self._tasks)
            self._tasks.clear()
        for _, future in waiting:
            future.set_exception(self._last_error())

    def _last_error(self) -> Transient:
        error = type(self._failure)(str(self._failure), code=self._failure.code)
        error.service = BROKER
        return error


def _do_nothing() -> None:
    """Wake a waiting connection."""
