"""How a worker takes orders: it looks into the lanes in their order whenever it has a thread free, and takes one.

It asks (``basic.get``) and is not sent anything: whatever RabbitMQ sends ahead would lie reserved in a busy worker while
others idle, and an old order that waits behind newer ones would run into the acknowledgement time-out.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from dramatiq.broker import Consumer, MessageProxy
from dramatiq.errors import ConnectionClosed, DecodeError
from dramatiq.message import Message
from pika.exceptions import AMQPError

from muxer.errors import MuxerError
from muxer.fleet.connection import connect, declare, talking
from muxer.fleet.lanes import names
from muxer.outages import Outages

log = logging.getLogger(__name__)

# How long a worker without work waits between two looks: at first, and at most. Each look is a command for the quorum.
LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.1, 1.0
CLOSE_SECONDS = 5.0


class Taken(MessageProxy):
    """An order that this worker holds. ``give_back``: it goes back into its lane, for whoever takes it next."""

    def __init__(self, message: Message[Any], tag: int, consumer: LaneConsumer, redelivered: bool) -> None:
        super().__init__(message)
        self.tag, self.consumer, self.redelivered = tag, consumer, redelivered
        self.give_back = False


class LaneConsumer(Consumer):
    """Takes orders over a connection of its own, as many as the worker may hold at a time."""

    def __init__(
        self, parameters: list[dict[str, Any]], queue: str, held: int, may_take: Callable[[], bool], outages: Outages
    ) -> None:
        """Given the parameters of the connection, the option ``queue``, how many orders may be held and what says whether
        one may be taken now, connect. Raise ``ConnectionClosed``."""
        self._queue, self._held, self._may_take, self._outages = queue, held, may_take, outages
        self._tags: dict[int, str] = {}
        self._look = LOOK_SECONDS
        try:
            with talking(outages):
                self._connection = connect(parameters)
                self._channel = self._connection.channel()
                declare(self._channel, queue)
        except MuxerError as error:
            raise _closed(error) from None

    def __next__(self) -> MessageProxy | None:
        """Return the next order; None when there is none, or none may be taken, after a moment."""
        try:
            with talking(self._outages):
                self._connection.process_data_events(0)
                if len(self._tags) < self._held and self._may_take():
                    for lane in names(self._queue):
                        method, _, body = self._channel.basic_get(lane)
                        if method is not None:
                            self._look = LOOK_SECONDS
                            return self._taken(method, body)
                self._connection.process_data_events(self._look)
        except MuxerError as error:
            raise _closed(error) from None
        self._look = min(2 * self._look, LONGEST_LOOK_SECONDS)
        return None

    @property
    def files(self) -> list[str]:
        """The targets of the orders that are held."""
        return list(dict(self._tags).values())

    def ack(self, message: MessageProxy) -> None:
        """The work on an order is over: drop it, or give it back when it was not done."""
        self._settle(message, requeue=True if getattr(message, "give_back", False) else None)

    def nack(self, message: MessageProxy) -> None:
        """Refuse an order: it becomes a dead letter."""
        self._settle(message, requeue=False)

    def close(self) -> None:
        """Send what is still to be said, and close; RabbitMQ hands out again what was not said to be over."""
        with suppress(AMQPError, OSError, AssertionError):
            done = threading.Event()
            self._connection.add_callback_threadsafe(done.set)
            self._connection.process_data_events(CLOSE_SECONDS)
            while not done.is_set():
                self._connection.process_data_events(0.1)
        with suppress(AMQPError, OSError, AssertionError):
            self._connection.close()

    def _taken(self, method: Any, body: bytes) -> MessageProxy | None:
        self._tags[method.delivery_tag] = ""
        try:
            message = Message.decode(body)
            if not (isinstance(message.kwargs, dict) and message.options == {} and isinstance(message.actor_name, str)):
                raise TypeError("its fields are of another kind")
        except (DecodeError, TypeError) as error:
            log.error("a message that is no order is put among the dead letters: %s", error)
            self._answer(method.delivery_tag, requeue=False)
            return None
        self._tags[method.delivery_tag] = str(message.kwargs.get("file", ""))
        # The thread of dramatiq that settles it is found by this name.
        return Taken(message.copy(queue_name=self._queue), method.delivery_tag, self, method.redelivered)

    def _settle(self, message: MessageProxy, requeue: bool | None) -> None:
        if not isinstance(message, Taken) or message.consumer is not self:
            log.info("the connection over which an order came is gone; RabbitMQ hands it out again")
            return
        try:
            self._connection.add_callback_threadsafe(lambda: self._answer(message.tag, requeue))
        except (AMQPError, OSError) as error:
            log.info("an order cannot be settled, RabbitMQ hands it out again: %s", error)

    def _answer(self, tag: int, requeue: bool | None) -> None:
        """Say that the work on an order is over (None), that it goes back, or that it is refused."""
        self._tags.pop(tag, None)
        if requeue is None:
            self._channel.basic_ack(tag)
        else:
            self._channel.basic_nack(tag, requeue=requeue)


def _closed(error: Exception) -> ConnectionClosed:
    """Return what lets dramatiq open another connection, after a moment."""
    return ConnectionClosed(error)  # type: ignore[no-untyped-call]
