"""The line of a worker or poller to RabbitMQ, beside its orders: events, locks, looks at the queues. One connection, in a
thread of its own that opens it again whenever it breaks.
"""

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
# A line that has not come round for so long waits for RabbitMQ, which lacks memory or says nothing.
STUCK_SECONDS = 10.0
# So many events wait for a broker that is out; the oldest are forgotten first. What they told shows in RWS.
MAX_OUTBOX_EVENTS = 100_000
NO_RESPONSE = "RabbitMQ does not answer"

T = TypeVar("T")


class ControlConnection:
    """A connection that is always there or coming back. Its methods may be called from any thread.

    ``opened`` is called with each new connection, ``tick`` every ``tick_seconds``, both in the thread of the line; what they
    and the tasks raise of pika's errors closes the connection.
    """

    def __init__(
        self,
        fleet: FleetOptions,
        name: str,
        outages: CircuitBreaker,
        opened: Callable[[Any], None],
        tick: Callable[[Any], None],
        tick_seconds: float,
    ) -> None:
        self._parameters, self._queue = connection_parameters(fleet, name), fleet.queue
        self._outages, self._opened, self._tick, self._tick_seconds = outages, opened, tick, tick_seconds
        self._outbox: deque[Event] = deque(maxlen=MAX_OUTBOX_EVENTS)
        self._tasks: deque[tuple[Callable[[Any], Any], Future[Any]]] = deque()
        self._lock = threading.Lock()
        self._connection: Any = None
        self._why: Transient = ServiceUnavailable(NO_RESPONSE)
        self._opens, self._came_round = False, 0.0
        self._closing, self._tried = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    @property
    def is_connected(self) -> bool:
        """Whether the connection is there, and serves."""
        return self._connection is not None and time.monotonic() - self._came_round < STUCK_SECONDS

    def send_event(self, event: Event) -> None:
        """Given an event, send it to all pollers as soon as possible; how a worker stands is sent at once or never."""
        if event.what in TRANSIENT_EVENTS and not self._opens:
            return
        self._outbox.append(event)
        self._wake_thread()

    def run_task(self, task: Callable[[Any], T]) -> T:
        """Given what to do with the connection, do it in the thread of the line and return its result. Raise
        :class:`Transient` when there is no connection, or it breaks."""
        self._tried.wait(TASK_TIMEOUT_SECONDS)  # at the start, for the first connection
        try:
            return self.submit_task(task).result(TASK_TIMEOUT_SECONDS)
        except TimeoutError:
            raise self._last_error() from None

    def submit_task(self, task: Callable[[Any], T]) -> Future[T]:
        """Like :meth:`ask`, but do not wait for it. Raise :class:`Transient` when there is no connection."""
        future: Future[T] = Future()
        with self._lock:
            if self._connection is None:
                raise self._last_error()
            self._tasks.append((task, future))
        self._wake_thread()
        return future

    def close(self, seconds: float) -> bool:
        """Send what is still to be told, and close; return whether that was done in so many seconds."""
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
                self._why = error
                log.debug("the line to RabbitMQ broke: %s", error)
            except Exception:
                log.exception("the line to RabbitMQ met an error that nobody expected; it is opened again")
            self._fail_pending_tasks()
            self._tried.set()
            self._closing.wait(RECONNECT_SECONDS)

    def _serve_connection(self) -> None:
        """Serve over one connection until it breaks or the line is closed."""
        connection = None
        try:
            # Only who can ask already is told that the broker is back.
            with broker_call(self._outages):
                connection = open_connection(self._parameters)
                channel = self._open_channel(connection)
                self._came_round = time.monotonic()
                with self._lock:
                    self._connection, self._why = connection, ServiceUnavailable(NO_RESPONSE)
            self._tried.set()
            due = time.monotonic() + self._tick_seconds
            while not (self._closing.is_set() and not self._outbox):
                with broker_call(self._outages):
                    self._process_pending(connection, channel)
                    if time.monotonic() >= due:
                        due = time.monotonic() + self._tick_seconds
                        self._tick(connection)
                    connection.process_data_events(0 if self._outbox or self._tasks else EVENT_LOOP_SECONDS)
                    self._came_round = time.monotonic()
        finally:
            self._opens = False
            if connection is not None:
                with suppress(*LIBRARY_ERRORS):
                    connection.close()

    def _open_channel(self, connection: Any) -> Any:
        """Return a channel when all is there and RabbitMQ has taken what is to be told: one that lets us in may lack memory,
        or not let us write."""
        channel = connection.channel()
        channel.confirm_delivery()
        declare_queues(channel, self._queue)
        self._opened(connection)
        self._opens = True
        self._tick(connection)
        self._process_pending(connection, channel)
        return channel

    def _process_pending(self, connection: Any, channel: Any) -> None:
        while self._outbox:
            event = self._outbox[0]
            exchange, mode = (HEARTBEATS_SUFFIX, 1) if event.what in TRANSIENT_EVENTS else (EVENTS_SUFFIX, 2)
            properties = pika.BasicProperties(delivery_mode=mode, content_type="application/json")
            channel.basic_publish(f"{self._queue}{exchange}", "", encode_event(event), properties)
            with suppress(IndexError):  # a full outbox may have dropped it meanwhile
                self._outbox.popleft()
        while self._tasks:
            # One that breaks the line is told so with the others, when it is known why.
            task, future = self._tasks[0]
            future.set_result(task(connection))
            self._tasks.popleft()

    def _fail_pending_tasks(self) -> None:
        """The connection is gone: nobody waits for it."""
        with self._lock:
            self._connection = None
            waiting = list(self._tasks)
            self._tasks.clear()
        for _, future in waiting:
            future.set_exception(self._last_error())

    def _last_error(self) -> Transient:
        """Return an error that says what has broken the line last."""
        error = type(self._why)(str(self._why), code=self._why.code)
        error.service = BROKER
        return error


def _do_nothing() -> None:
    """Wakes a connection that waits."""
