"""Takes tasks for a worker: whenever it has a free thread, it reads the queues by priority and takes one task.

It polls: tasks sent ahead to a subscription would be reserved in a busy worker while others are idle.
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

# The first and the longest delay between two polls of an idle worker. Each poll is a command for the quorum.
MIN_POLL_INTERVAL, MAX_POLL_INTERVAL = 0.1, 1.0
RECONNECT_SECONDS = 2.0


class ReceivedOrder(MessageProxy):
    """A task in flight, by its delivery tag on the connection with this number. With `requeue` it returns to its queue."""

    def __init__(self, message: Message[Any], tag: int, connection: int, redelivered: bool) -> None:
        super().__init__(message)
        self.tag, self.connection, self.redelivered = tag, connection, redelivered
        self.requeue = False


class OrderConsumer(Consumer):
    """Takes tasks over a separate connection and reconnects; dramatiq would log each attempt as critical."""

    def __init__(self, parameters: list[dict[str, Any]], queue: str, max_held: int, may_take: Callable[[], bool]) -> None:
        self._parameters, self._queue, self._max_held = parameters, queue, max_held
        self._may_take = may_take
        self._tags: dict[int, str] = {}
        self._connection: Any = None
        self._channel: Any = None
        self._number = 0
        self._delay = MIN_POLL_INTERVAL

    def __next__(self) -> MessageProxy | None:
        """Return the next task; after a short delay None when there is none or none may be taken."""
        try:
            with translate_errors():
                return self._next_order()
        except MuxerError as error:
            log.debug("cannot take tasks: %s", error)
            self._disconnect()
            time.sleep(RECONNECT_SECONDS)
            return None

    def _next_order(self) -> MessageProxy | None:
        if self._connection is None:
            self._connect()
        self._connection.process_data_events(0)
        if len(self._tags) < self._max_held and self._may_take():
            for name in queue_names(self._queue):
                method, properties, body = self._channel.basic_get(name)
                if method is not None:
                    log_unreadable(properties, name)
                    self._delay = MIN_POLL_INTERVAL
                    return self._receive_order(method, body)
        self._connection.process_data_events(self._delay)
        self._delay = min(2 * self._delay, MAX_POLL_INTERVAL)
        return None

    def _connect(self) -> None:
        self._connection = open_connection(self._parameters)
        self._channel = self._connection.channel()
        declare_queues(self._channel, self._queue)

    def _disconnect(self) -> None:
        """Close the connection; RabbitMQ requeues the tasks that were taken over it."""
        connection, self._connection = self._connection, None
        self._number += 1
        self._tags.clear()
        if connection is not None:
            with suppress(*LIBRARY_ERRORS):
                connection.close()

    @property
    def held_targets(self) -> list[str]:
        """The targets of the tasks in flight."""
        return list(dict(self._tags).values())

    def ack(self, message: MessageProxy) -> None:
        """Acknowledge a task, or requeue it when the worker stops."""
        self._schedule_settlement(message, requeue=True if getattr(message, "requeue", False) else None)

    def nack(self, message: MessageProxy) -> None:
        """Reject a task: it becomes a dead letter."""
        self._schedule_settlement(message, requeue=False)

    def close(self) -> None:
        """Send pending acknowledgements and close; RabbitMQ requeues the other tasks."""
        if self._connection is not None:
            with suppress(*LIBRARY_ERRORS):
                self._connection.process_data_events(0.1)
        self._disconnect()

    def _receive_order(self, method: Any, body: bytes) -> MessageProxy | None:
        self._tags[method.delivery_tag] = ""
        try:
            message = Message.decode(body)
            if not (isinstance(message.kwargs, dict) and message.options == {} and isinstance(message.actor_name, str)):
                raise TypeError("unexpected fields")
        except (DecodeError, TypeError):
            log.error("a message of %d bytes in %s is not a task and becomes a dead letter", len(body), self._queue)
            self._settle_delivery(method.delivery_tag, requeue=False)
            return None
        self._tags[method.delivery_tag] = str(message.kwargs.get("file", ""))
        # dramatiq finds the thread that settles it by this name.
        return ReceivedOrder(message.copy(queue_name=self._queue), method.delivery_tag, self._number, method.redelivered)

    def _schedule_settlement(self, message: MessageProxy, requeue: bool | None) -> None:
        connection = self._connection
        if not isinstance(message, ReceivedOrder) or message.connection != self._number or connection is None:
            log.info("the connection of a task is closed; RabbitMQ requeues the task")
            return
        try:
            connection.add_callback_threadsafe(lambda: self._settle_delivery(message.tag, requeue))
        except LIBRARY_ERRORS as error:
            log.info("cannot settle a task, RabbitMQ requeues it: %s", error)

    def _settle_delivery(self, tag: int, requeue: bool | None) -> None:
        """Acknowledge a task (`requeue` is None), requeue it (True) or reject it (False)."""
        self._tags.pop(tag, None)
        if requeue is None:
            self._channel.basic_ack(tag)
        else:
            self._channel.basic_nack(tag, requeue=requeue)
