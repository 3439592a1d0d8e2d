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

from muxer.config.schema import Fleet
from muxer.errors import ServiceUnavailable, Transient
from muxer.fleet.connection import RAISED, connect, declare, parameters, talking
from muxer.fleet.events import PASSING, Event, encode
from muxer.fleet.lanes import EVENTS, STANDINGS
from muxer.fleet.view import BROKER
from muxer.outages import Outages

log = logging.getLogger(__name__)

LOOP_SECONDS = 0.5
RECONNECT_SECONDS = 2.0
ASK_SECONDS = 30.0
# A line that has not come round for so long waits for RabbitMQ, which lacks memory or says nothing.
STUCK_SECONDS = 10.0
# So many events wait for a broker that is out; the oldest are forgotten first. What they told shows in RWS.
LONGEST_OUTBOX = 100_000
NO_ANSWER = "RabbitMQ does not answer"

T = TypeVar("T")


class Line:
    """A connection that is always there or coming back. Its methods may be called from any thread.

    ``opened`` is called with each new connection, ``tick`` every ``tick_seconds``, both in the thread of the line; what they
    and the tasks raise of pika's errors closes the connection.
    """

    def __init__(
        self,
        fleet: Fleet,
        name: str,
        outages: Outages,
        opened: Callable[[Any], None],
        tick: Callable[[Any], None],
        tick_seconds: float,
    ) -> None:
        self._parameters, self._queue = parameters(fleet, name), fleet.queue
        self._outages, self._opened, self._tick, self._tick_seconds = outages, opened, tick, tick_seconds
        self._outbox: deque[Event] = deque(maxlen=LONGEST_OUTBOX)
        self._tasks: deque[tuple[Callable[[Any], Any], Future[Any]]] = deque()
        self._lock = threading.Lock()
        self._connection: Any = None
        self._why: Transient = ServiceUnavailable(NO_ANSWER)
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

    def tell(self, event: Event) -> None:
        """Given an event, send it to all pollers as soon as possible; how a worker stands is sent at once or never."""
        if event.what in PASSING and not self._opens:
            return
        self._outbox.append(event)
        self._wake()

    def ask(self, task: Callable[[Any], T]) -> T:
        """Given what to do with the connection, do it in the thread of the line and return its result. Raise
        :class:`Transient` when there is no connection, or it breaks."""
        self._tried.wait(ASK_SECONDS)  # at the start, for the first connection
        try:
            return self.post(task).result(ASK_SECONDS)
        except TimeoutError:
            raise self._gone() from None

    def post(self, task: Callable[[Any], T]) -> Future[T]:
        """Like :meth:`ask`, but do not wait for it. Raise :class:`Transient` when there is no connection."""
        future: Future[T] = Future()
        with self._lock:
            if self._connection is None:
                raise self._gone()
            self._tasks.append((task, future))
        self._wake()
        return future

    def close(self, seconds: float) -> bool:
        """Send what is still to be told, and close; return whether that was done in so many seconds."""
        self._closing.set()
        self._wake()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _wake(self) -> None:
        with suppress(AttributeError, *RAISED):
            self._connection.add_callback_threadsafe(_nothing)

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._serve()
            except Transient as error:
                self._why = error
                log.debug("the line to RabbitMQ broke: %s", error)
            except Exception:
                log.exception("the line to RabbitMQ met an error that nobody expected; it is opened again")
            self._give_up()
            self._tried.set()
            self._closing.wait(RECONNECT_SECONDS)

    def _serve(self) -> None:
        """Serve over one connection until it breaks or the line is closed."""
        connection = None
        try:
            # Only who can ask already is told that the broker is back.
            with talking(self._outages):
                connection = connect(self._parameters)
                channel = self._open(connection)
                self._came_round = time.monotonic()
                with self._lock:
                    self._connection, self._why = connection, ServiceUnavailable(NO_ANSWER)
            self._tried.set()
            due = time.monotonic() + self._tick_seconds
            while not (self._closing.is_set() and not self._outbox):
                with talking(self._outages):
                    self._work(connection, channel)
                    if time.monotonic() >= due:
                        due = time.monotonic() + self._tick_seconds
                        self._tick(connection)
                    connection.process_data_events(0 if self._outbox or self._tasks else LOOP_SECONDS)
                    self._came_round = time.monotonic()
        finally:
            self._opens = False
            if connection is not None:
                with suppress(*RAISED):
                    connection.close()

    def _open(self, connection: Any) -> Any:
        """Return a channel when all is there and RabbitMQ has taken what is to be told: one that lets us in may lack memory,
        or not let us write."""
        channel = connection.channel()
        channel.confirm_delivery()
        declare(channel, self._queue)
        self._opened(connection)
        self._opens = True
        self._tick(connection)
        self._work(connection, channel)
        return channel

    def _work(self, connection: Any, channel: Any) -> None:
        while self._outbox:
            event = self._outbox[0]
            exchange, mode = (STANDINGS, 1) if event.what in PASSING else (EVENTS, 2)
            properties = pika.BasicProperties(delivery_mode=mode, content_type="application/json")
            channel.basic_publish(f"{self._queue}{exchange}", "", encode(event), properties)
            with suppress(IndexError):  # a full outbox may have dropped it meanwhile
                self._outbox.popleft()
        while self._tasks:
            # One that breaks the line is told so with the others, when it is known why.
            task, future = self._tasks[0]
            future.set_result(task(connection))
            self._tasks.popleft()

    def _give_up(self) -> None:
        """The connection is gone: nobody waits for it."""
        with self._lock:
            self._connection = None
            waiting = list(self._tasks)
            self._tasks.clear()
        for _, future in waiting:
            future.set_exception(self._gone())

    def _gone(self) -> Transient:
        """Return an error that says what has broken the line last."""
        error = type(self._why)(str(self._why), code=self._why.code)
        error.service = BROKER
        return error


def _nothing() -> None:
    """Wakes a connection that waits."""
