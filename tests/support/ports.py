"""Ports for the services of tests: free ones, and ones that stay reserved while no program listens."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

# Below the ports that systems give to outgoing connections and to bind(0): so no connection of another test takes them.
_UNASSIGNED = iter(random.SystemRandom().sample(range(20_000, 32_000), 12_000))


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port at which no one listens; each one is returned once in a process."""
    for port in _UNASSIGNED:
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        return port
    raise AssertionError("no free port is left")


@contextmanager
def reserved_port(host: str = "127.0.0.1") -> Iterator[int]:
    """Yield a reserved free port: it is bound, and a program with SO_REUSEADDR can listen on it."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, 0))
        yield held.getsockname()[1]
