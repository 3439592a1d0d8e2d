"""A cluster of three RabbitMQ nodes on this machine, each at its own loopback address."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.ports import reserved_port
from tests.support.rabbitmq import ClusterSeat, RabbitNode

# Without epmd all nodes of a cluster have the same port, so each needs an address.
ADDRESSES = ("127.0.0.11", "127.0.0.12", "127.0.0.13")


@contextmanager
def running_cluster(folder: Path) -> Iterator[list[RabbitNode]]:
    """Yield three running nodes of one cluster."""
    with ExitStack() as stack:
        port, cookie = stack.enter_context(reserved_port(ADDRESSES[0])), secrets.token_hex(10)
        seats = [ClusterSeat(address, port, cookie) for address in ADDRESSES]
        first, *others = (stack.enter_context(RabbitNode(folder / seat.address, seat.address, seat=seat)) for seat in seats)
        for node in others:
            node.join_cluster(first)
        yield [first, *others]
