"""The content of the queues of a virtual host, read from a real RabbitMQ with pika."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from tests.support import daemon
from tests.support.rabbitmq import RabbitNode

TIMEOUT_SECONDS = 30
# How long a message that was read may take to be in its queue again, unless its consumer takes it.
RETURN_SECONDS = 3
NOT_FOUND = 404


@dataclass(frozen=True)
class QueueCounts:
    """The number of ready messages of a queue, and of its consumers."""

    ready: int
    consumers: int


@dataclass(frozen=True)
class VirtualHost:
    """A virtual host of a node for one test, with an account of the same name that has all permissions there."""

    node: RabbitNode
    name: str
    password: str

    @property
    def url(self) -> str:
        """The URL, including the account."""
        return self.node.node_url(self.name, self.name, self.password)

    @property
    def secure_url(self) -> str:
        """The URL over TLS; the certificate is ``node.certificate``."""
        return self.node.node_url(self.name, self.name, self.password, secure=True)

    def url_through(self, port: int) -> str:
        """Return the URL, including the account, with another port that leads to the node."""
        return self.url.replace(f":{self.node.port}/", f":{port}/")

    @contextmanager
    def open_channel(self) -> Iterator[BlockingChannel]:
        """Yield a channel of a separate connection."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()

    def queue_counts(self, queue: str) -> QueueCounts | None:
        """Return the counts of a queue, or None when it does not exist."""
        try:
            with self.open_channel() as channel:
                method = channel.queue_declare(queue, passive=True).method
                return QueueCounts(method.message_count, method.consumer_count)
        except ChannelClosedByBroker as error:
            if error.reply_code == NOT_FOUND:
                return None
            raise

    def ready_count(self, queue: str) -> int:
        """Return the number of ready messages of a queue, 0 if it does not exist."""
        counts = self.queue_counts(queue)
        return counts.ready if counts else 0

    def message_bodies(self, queue: str) -> list[bytes]:
        """Return the bodies of the messages in a queue, in order; they are requeued and count as redelivered."""
        found: list[bytes] = []

        def are_back() -> bool:
            """Read the queue again when one that was read has been taken by its consumer."""
            found[:] = self._peek_bodies(queue)
            try:
                wait_until(lambda: self.ready_count(queue) >= len(found), seconds=RETURN_SECONDS)
            except AssertionError:
                return False
            return True

        wait_until(are_back, f"the messages of {queue} are back")
        return found

    def _peek_bodies(self, queue: str) -> list[bytes]:
        bodies: list[bytes] = []
        with self.open_channel() as channel:
            while (got := channel.basic_get(queue))[0] is not None:
                bodies.append(got[2])
            if bodies:
                channel.basic_nack(0, multiple=True, requeue=True)
        return bodies

    def purge_queue(self, queue: str) -> None:
        """Delete the ready messages of a queue."""
        with self.open_channel() as channel:
            channel.queue_purge(queue)

    def delete_queue(self, queue: str) -> None:
        """Delete a queue with its messages."""
        with self.open_channel() as channel:
            channel.queue_delete(queue)


def wait_until(holds: Callable[[], object], what: str = "it holds", seconds: float = TIMEOUT_SECONDS) -> None:
    """Wait until `holds` returns true. Raises AssertionError with `what` when it does not in time."""
    daemon.wait_until(holds, seconds, what)
