"""Two hosts on one machine: network namespaces, joined by a cable of their own. The machine's own network is not touched."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

PREFIX = "muxer-test-"
# Addresses that are set aside for tests of networks (RFC 2544).
ADDRESSES = ("198.18.0.1", "198.18.0.2")
NAMED = Path("/run/netns")
SECONDS = 20
_DEVICE = "cable"
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Host:
    """A network namespace: ``[*host.inside, "curl", …]`` runs a command there, in the same process."""

    name: str
    address: str

    @property
    def inside(self) -> tuple[str, ...]:
        """What stands before a command that is to run there."""
        return ("ip", "netns", "exec", self.name)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within this block, sockets that this thread makes are on this host, and so are threads that it starts."""
        with Path("/proc/thread-self/ns/net").open() as home, (NAMED / self.name).open() as there:
            _move(there.fileno())
            try:
                yield
            finally:
                _move(home.fileno())

    def unplug(self) -> None:
        """Pull the cable: neither host hears anything of the other."""
        _ip("-n", self.name, "link", "set", _DEVICE, "down")

    def plug(self) -> None:
        """Put the cable back."""
        _ip("-n", self.name, "link", "set", _DEVICE, "up")


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Yield two hosts that reach each other and nothing else; skip the test where they cannot be made."""
    _remove_left_overs()
    hosts = tuple(Host(f"{PREFIX}{os.getpid()}-{number}", address) for number, address in enumerate(ADDRESSES))
    try:
        _make(*hosts)
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            _remove(host.name)


def _move(namespace: int) -> None:
    if _LIBC.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _make(one: Host, other: Host) -> None:
    if os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the command ip (of iproute2)")
    try:
        for host in (one, other):
            _ip("netns", "add", host.name)
        there = ("netns", one.name, "type", "veth", "peer", "name", _DEVICE, "netns", other.name)
        _ip("link", "add", _DEVICE, *there)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine allows no network namespaces: {error.stderr.strip()}")
    for host in (one, other):
        _ip("-n", host.name, "address", "add", f"{host.address}/30", "dev", _DEVICE)
        _ip("-n", host.name, "link", "set", "lo", "up")
        host.plug()


def _remove(name: str) -> None:
    """Remove a namespace, if there is one, with what still runs in it."""
    if name not in _names():
        return
    for pid in _ip("netns", "pids", name).split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    _ip("netns", "delete", name)


def _remove_left_overs() -> None:
    """Remove the namespaces of processes that were killed before they could do it."""
    for name in _names():
        pid = name.removeprefix(PREFIX).partition("-")[0]
        if name.startswith(PREFIX) and not Path(f"/proc/{pid}").exists():
            _remove(name)


def _names() -> list[str]:
    return [path.name for path in NAMED.iterdir()] if NAMED.is_dir() else []


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=SECONDS, check=True)
    return done.stdout
