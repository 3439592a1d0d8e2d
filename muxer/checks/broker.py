"""Checks of the broker of a fleet: connection to each node, credentials and queues. They create and send nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from muxer.app.assembly import create_circuit_breaker
from muxer.checks.checklist import Check, Finding, passed_finding
from muxer.checks.connection import CheckedServer
from muxer.config.fleet_options import PLAIN, TLS, BrokerNode, parse_nodes
from muxer.config.schema import Config
from muxer.fleet.priority_queues import dead_letter_queue, queue_names

FLEET_SECTION = "fleet"
_REQUIRED_OPTIONS = ("[fleet] mode", "[fleet] broker_url")


class BrokerChecks:
    """The checks of a fleet; none without a fleet."""

    def __init__(self, config: Config) -> None:
        self._config = config
        nodes = parse_nodes(config.fleet.broker_url) if config.is_fleet else ()
        self.servers = [
            self._node_server(node, f" {number}" if len(nodes) > 1 else "") for number, node in enumerate(nodes, 1)
        ]

    def create_checks(self) -> Iterator[Check]:
        """Yield the checks, node by node."""
        for server in self.servers:
            yield from server.create_checks(_REQUIRED_OPTIONS)
        if self.servers:
            yield Check("RabbitMQ login", self._check_login, _REQUIRED_OPTIONS, FLEET_SECTION)
            yield Check("RabbitMQ queues", self._check_queues, ("RabbitMQ login",), FLEET_SECTION)

    def _node_server(self, node: BrokerNode, number: str) -> CheckedServer:
        url = f"{TLS if node.tls else PLAIN}://{node.address}"
        return CheckedServer(f"RabbitMQ{number}", url, FLEET_SECTION, self._config.fleet.trusted_ca)

    def _check_login(self) -> Iterator[Finding]:
        with _open_connection(self._config):
            users = {(node.username, node.virtual_host) for node in parse_nodes(self._config.fleet.broker_url)}
        yield passed_finding("RabbitMQ login", ", ".join(f"as {user}, virtual host {name}" for user, name in sorted(users)))

    def _check_queues(self) -> Iterator[Finding]:
        from muxer.fleet.connection import count_if_exists  # here: only a fleet has its packages

        queue = self._config.fleet.queue
        with _open_connection(self._config) as connection:
            counts = {name: count_if_exists(connection, name) for name in (*queue_names(queue), dead_letter_queue(queue))}
        if None in counts.values():
            yield passed_finding(
                "RabbitMQ queues", f"{queue}: not created yet; a poller or worker creates them at the first start"
            )
        else:
            yield passed_finding("RabbitMQ queues", ", ".join(f"{name}: {count} messages" for name, count in counts.items()))


@contextmanager
def _open_connection(config: Config) -> Iterator[Any]:
    """Yield a connection; translate errors of the libraries within this block."""
    from muxer.fleet.connection import (  # Imported here because only a fleet has these packages.
        broker_call,
        connection_parameters,
        open_connection,
        silence_library_logging,
    )

    silence_library_logging()
    with (
        broker_call(create_circuit_breaker(config)),
        closing(open_connection(connection_parameters(config.fleet, "recording-muxer check"))) as connection,
    ):
        yield connection
