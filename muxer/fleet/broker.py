"""The broker of dramatiq with the durable queues of a fleet. Its retries are not used: the journal decides about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any

from dramatiq.broker import Consumer
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from muxer.config.schema import FleetOptions
from muxer.errors import ServiceUnavailable
from muxer.fleet import orders
from muxer.fleet.connection import broker_call, connection_parameters, declare_queues
from muxer.fleet.consumer import OrderConsumer
from muxer.fleet.orders import Order
from muxer.fleet.priority_queues import queue_names
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.system.thread_helpers import TaskThreads

ACTOR = "mux"
# pika waits for a confirmation without a limit. Longer than BLOCKED_SECONDS, whose error says more.
CONFIRM_SECONDS = 75.0
CLOSE_SECONDS = 5.0


class FleetBroker(RabbitmqBroker):
    """The broker of a fleet, for its poller and its workers."""

    def __init__(
        self,
        fleet: FleetOptions,
        name: str,
        circuit_breaker: CircuitBreaker,
        middleware: Sequence[Middleware] = (),
        may_take: Callable[[], bool] = lambda: True,
    ) -> None:
        """Send nothing yet. `name` is that of the connections. `middleware` and `may_take` (a task, now) are for workers."""
        self._parameters = connection_parameters(fleet, name)
        super().__init__(confirm_delivery=True, parameters=self._parameters, middleware=list(middleware))
        self._queue, self._circuit_breaker, self._may_take = fleet.queue, circuit_breaker, may_take
        self._consumer: OrderConsumer | None = None
        self._publisher = TaskThreads("publisher", 1)
        self._sending: Future[Any] | None = None

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:
        """Register a queue; with `ensure`, declare it in RabbitMQ together with all others of the fleet."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.queues_pending.add(queue_name)
            self.emit_after("declare_queue", queue_name)
        if ensure and queue_name in self.queues_pending:
            declare_queues(self.channel, self._queue)
            self.queues_pending.discard(queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Return the consumer of all queues, with at most `prefetch` tasks in flight."""
        self._consumer = OrderConsumer(self._parameters, self._queue, prefetch, self._may_take)
        return self._consumer

    @property
    def held_targets(self) -> list[str]:
        """The targets of the tasks in flight at this worker, started or not."""
        return [] if self._consumer is None else self._consumer.held_targets

    def create_message(self, order: Order, lane: int) -> Message[Any]:
        """Return the message of a task for the queue with the number `lane`."""
        return Message(queue_names(self._queue)[lane], ACTOR, (), orders.order_to_dict(order), {})

    def send_message(self, message: Message[Any]) -> None:
        """Send a message and wait until RabbitMQ has stored it. Raises the errors of :func:`broker_call`.

        A message that is not confirmed in time may still arrive; none is sent before it has, or has failed.
        """
        with broker_call(self._circuit_breaker):
            if self._sending is not None:
                _wait_for_confirmation(self._sending)
            self._sending = self._publisher.start_task(lambda: self.enqueue(message))
            _wait_for_confirmation(self._sending)
            self._sending.result()

    def close_idle(self) -> None:
        """Close the connection for messages until it is needed again, or as soon as it is not in use any more."""
        closing = self._publisher.start_task(self._close_connection)
        if self._sending is not None and self._sending.done():
            wait([closing], CLOSE_SECONDS)

    def _close_connection(self) -> None:
        del self.connection


def _wait_for_confirmation(sending: Future[Any]) -> None:
    if wait([sending], CONFIRM_SECONDS).not_done:
        raise ServiceUnavailable(
            f"RabbitMQ has not confirmed a task within {CONFIRM_SECONDS:g} s; most of its nodes must run to store one"
        )
