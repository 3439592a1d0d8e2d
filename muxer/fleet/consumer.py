"""How a worker takes orders: it looks into the lanes in their order whenever it has a thread free, and takes one.

It asks (``basic.get``) and is not sent anything: whatever RabbitMQ sends ahead would lie reserved in a busy worker while
others idle, and an old order that waits behind newer ones would run into the acknowledgement time-out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from dramatiq.broker import Consumer, MessageProxy
from dramatiq.errors import DecodeError
from dramatiq.message import Message

from muxer.errors import MuxerError
from muxer.fleet.connection import LIBRARY_ERRORS, declare_queues, open_connection, translate_errors
from muxer.fleet.message_properties import log_unreadable
from muxer.fleet.priority_queues import queue_names

log = logging.getLogger(__name__)

# How long a worker without work waits between two looks: at first, and at most. Each look is a command for the quorum.
MIN_POLL_INTERVAL, MAX_POLL_INTERVAL = 0.1, 1.0
RECONNECT_SECONDS = 2.0


class ReceivedOrder(MessageProxy):
    """An order that this worker holds, by its tag on the connection with this number. ``give_back``: it goes back into its
    lane, for whoever takes it next."""

    def __init__(self, message: Message[Any], tag: int, connection: int, redelivered: bool) -> None:
        super().__init__(message)
        self.tag, self.connection, self.redelivered = tag, connection, redelivered
        self.give_back = False


class OrderConsumer(Consumer):
    """Takes orders over a connection of its own, as many as the worker may hold at a time, and opens it again when it
    breaks: dramatiq's consumer threads would tell each attempt as critical."""

    def __init__(self, parameters: list[dict[str, Any]], queue: str, held: int, may_take: Callable[[], bool]) -> None:
        """Given the parameters of the connection, the option ``queue``, how many orders may be held and what says whether
        one may be taken now, connect to nothing yet."""
        self._parameters, self._queue, self._held = parameters, queue, held
        self._may_take = may_take
        self._tags: dict[int, str] = {}
        self._connection: Any = None
        self._channel: Any = None
        self._number = 0
        self._look = MIN_POLL_INTERVAL

    def __next__(self) -> MessageProxy | None:
        """Return the next order; None when there is none, or none may be taken, after a moment."""
        try:
            with translate_errors():
                return self._next_order()
        except MuxerError as error:
            log.debug("no orders: %s", error)
            self._disconnect()
            time.sleep(RECONNECT_SECONDS)
            return None

    def _next_order(self) -> MessageProxy | None:
        if self._connection is None:
            self._connect()
        self._connection.process_data_events(0)
        if len(self._tags) < self._held and self._may_take():
            for lane in queue_names(self._queue):
                method, properties, body = self._channel.basic_get(lane)
                if method is not None:
                    log_unreadable(properties, lane)
                    self._look = MIN_POLL_INTERVAL
                    return self._receive_order(method, body)
        self._connection.process_data_events(self._look)
        self._look = min(2 * self._look, MAX_POLL_INTERVAL)
        return None

    def _connect(self) -> None:
        self._connection = open_connection(self._parameters)
        self._channel = self._connection.channel()
        declare_queues(self._channel, self._queue)

    def _disconnect(self) -> None:
        """Forget the connection; RabbitMQ hands out again what was taken over it."""
        connection, self._connection = self._connection, None
        self._number += 1
        self._tags.clear()
        if connection is not None:
            with suppress(*LIBRARY_ERRORS):
                connection.close()

    @property
    def held_targets(self) -> list[str]:
        """The targets of the orders that are held."""
        return list(dict(self._tags).values())

    def ack(self, message: MessageProxy) -> None:
        """The work on an order is over: drop it, or give it back when it was not done."""
        self._schedule_settlement(message, requeue=True if getattr(message, "give_back", False) else None)

    def nack(self, message: MessageProxy) -> None:
        """Refuse an order: it becomes a dead letter."""
        self._schedule_settlement(message, requeue=False)

    def close(self) -> None:
        """Send what is still to be said, and close; RabbitMQ hands out again what was not said to be over."""
        if self._connection is not None:
            with suppress(*LIBRARY_ERRORS):
                self._connection.process_data_events(0.1)
        self._disconnect()

    def _receive_order(self, method: Any, body: bytes) -> MessageProxy | None:
        self._tags[method.delivery_tag] = ""
        try:
            message = Message.decode(body)
            if not (isinstance(message.kwargs, dict) and message.options == {} and isinstance(message.actor_name, str)):
                raise TypeError("its fields are of another kind")
        except (DecodeError, TypeError):
            log.error("a message of %d bytes in %s that is no order is put among the dead letters", len(body), self._queue)
            self._settle_delivery(method.delivery_tag, requeue=False)
            return None
        self._tags[method.delivery_tag] = str(message.kwargs.get("file", ""))
        # The thread of dramatiq that settles it is found by this name.
        return ReceivedOrder(message.copy(queue_name=self._queue), method.delivery_tag, self._number, method.redelivered)

    def _schedule_settlement(self, message: MessageProxy, requeue: bool | None) -> None:
        connection = self._connection
        if not isinstance(message, ReceivedOrder) or message.connection != self._number or connection is None:
            log.info("the connection over which an order came is gone; RabbitMQ hands it out again")
            return
        try:
            connection.add_callback_threadsafe(lambda: self._settle_delivery(message.tag, requeue))
        except LIBRARY_ERRORS as error:
            log.info("an order cannot be settled, RabbitMQ hands it out again: %s", error)

    def _settle_delivery(self, tag: int, requeue: bool | None) -> None:
        """Say that the work on an order is over (None), that it goes back, or that it is refused."""
        self._tags.pop(tag, None)
        if requeue is None:
            self._channel.basic_ack(tag)
        else:
            self._channel.basic_nack(tag, requeue=requeue)
