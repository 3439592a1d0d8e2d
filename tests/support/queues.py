"""What stands in the queues of a virtual host, asked of a real RabbitMQ with pika."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from tests.support import daemon
from tests.support.rabbitmq import RabbitNode

SECONDS = 30
NOT_FOUND = 404


@dataclass(frozen=True)
class Counts:
    """The messages of a queue that nobody holds, and its consumers."""

    ready: int
    consumers: int


@dataclass(frozen=True)
class VirtualHost:
    """A virtual host of a node, for one test, with an account of its name that may do everything there."""

    node: RabbitNode
    name: str
    password: str

    @property
    def url(self) -> str:
        """The address, with the account."""
        return self.node.url(self.name, self.name, self.password)

    @property
    def secure_url(self) -> str:
        """The address over TLS; whose certificate it is says ``node.certificate``."""
        return self.node.url(self.name, self.name, self.password, secure=True)

    def url_through(self, port: int) -> str:
        """Return the address, with the account, where this port leads to the node."""
        return self.url.replace(f":{self.node.port}/", f":{port}/")

    @contextmanager
    def channel(self) -> Iterator[BlockingChannel]:
        """Yield a channel of a connection of its own."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()

    def counts(self, queue: str) -> Counts | None:
        """Return what a queue holds now, or None if there is no such queue."""
        try:
            with self.channel() as channel:
                method = channel.queue_declare(queue, passive=True).method
                return Counts(method.message_count, method.consumer_count)
        except ChannelClosedByBroker as error:
            if error.reply_code == NOT_FOUND:
                return None
            raise

    def ready(self, queue: str) -> int:
        """Return how many messages of a queue nobody holds: none if there is no such queue."""
        counts = self.counts(queue)
        return counts.ready if counts else 0

    def messages(self, queue: str) -> list[bytes]:
        """Return the bodies of what a queue holds, in their order; it holds them still, as delivered once more."""
        bodies: list[bytes] = []
        with self.channel() as channel:
            while (got := channel.basic_get(queue))[0] is not None:
                bodies.append(got[2])
            if bodies:
                channel.basic_nack(0, multiple=True, requeue=True)
        wait_until(lambda: self.ready(queue) >= len(bodies), f"the messages of {queue} are back")
        return bodies

    def purge(self, queue: str) -> None:
        """Delete what a queue holds and nobody is working at."""
        with self.channel() as channel:
            channel.queue_purge(queue)

    def delete(self, queue: str) -> None:
        """Delete a queue, with what it holds."""
        with self.channel() as channel:
            channel.queue_delete(queue)


def wait_until(holds: Callable[[], object], what: str = "it holds", seconds: float = SECONDS) -> None:
    """Wait until something holds. Raise AssertionError, with what it is, when it does not in time."""
    daemon.wait_until(holds, seconds, what)
