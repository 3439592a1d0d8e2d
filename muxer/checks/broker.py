"""Checks of the broker of a fleet: the way to each of its nodes, the login, the queues. Nothing is made or sent there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from muxer.checks.checklist import Check, Finding, ok
from muxer.checks.connection import Server
from muxer.config.broker import PLAIN, TLS, Node, nodes
from muxer.config.schema import Config
from muxer.fleet.lanes import dead, names
from muxer.outages import Outages

SECTION = "fleet"
_NOT_FOUND = 404
_NEEDED = ("[fleet] mode", "[fleet] broker_url")


class OfBroker:
    """The checks of a fleet; none without one."""

    def __init__(self, config: Config) -> None:
        """Given the configuration."""
        self._config = config
        found = nodes(config.fleet.broker_url) if config.is_fleet else ()
        self.servers = [self._server(node, f" {number}" if len(found) > 1 else "") for number, node in enumerate(found, 1)]

    def checks(self) -> Iterator[Check]:
        """Yield them, node by node."""
        for server in self.servers:
            yield from server.checks(_NEEDED)
        if self.servers:
            yield Check("RabbitMQ login", self._login, _NEEDED, SECTION)
            yield Check("RabbitMQ queues", self._queues, ("RabbitMQ login",), SECTION)

    def _server(self, node: Node, number: str) -> Server:
        host = f"[{node.host}]" if ":" in node.host else node.host
        url = f"{TLS if node.tls else PLAIN}://{host}:{node.port}"
        return Server(f"RabbitMQ{number}", url, SECTION, self._config.fleet.trusted_ca)

    def _login(self) -> Iterator[Finding]:
        with _connected(self._config):
            users = {(node.username, node.virtual_host) for node in nodes(self._config.fleet.broker_url)}
        yield ok("RabbitMQ login", ", ".join(f"as {user}, virtual host {name}" for user, name in sorted(users)))

    def _queues(self) -> Iterator[Finding]:
        queue = self._config.fleet.queue
        with _connected(self._config) as connection:
            counts = {name: _waiting(connection, name) for name in (*names(queue), dead(queue))}
        if None in counts.values():
            yield ok("RabbitMQ queues", f"{queue}: not there yet; poller or worker make them at their first start")
        else:
            yield ok("RabbitMQ queues", ", ".join(f"{name}: {count} messages" for name, count in counts.items()))


@contextmanager
def _connected(config: Config) -> Iterator[Any]:
    """Yield a connection; within this block, errors of the libraries become ours."""
    from muxer.fleet.connection import connect, parameters, quiet, talking  # here: only a fleet has its packages

    quiet()
    with talking(Outages()), closing(connect(parameters(config.fleet, "recording-muxer check"))) as connection:
        yield connection


def _waiting(connection: Any, name: str) -> int | None:
    """Return how many messages wait in a queue, None when there is no such queue."""
    from pika.exceptions import ChannelClosedByBroker

    from muxer.fleet.connection import waiting_in

    try:
        return waiting_in(connection.channel(), name)
    except ChannelClosedByBroker as error:
        if error.reply_code != _NOT_FOUND:
            raise
        return None
