"""Two hosts on one machine: network namespaces with a separate virtual cable. The network of the machine is not changed."""

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

NAMESPACE_PREFIX = "muxer-test-"
# Addresses reserved for network tests (RFC 2544).
ADDRESSES = ("198.18.0.1", "198.18.0.2")
NETNS_FOLDER = Path("/run/netns")
TIMEOUT_SECONDS = 20
_DEVICE_NAME = "cable"
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class NetworkHost:
    """A network namespace; ``[*host.command_prefix, "curl", …]`` runs a command in it."""

    name: str
    address: str

    @property
    def command_prefix(self) -> tuple[str, ...]:
        """The prefix of a command that runs in the namespace."""
        return ("ip", "netns", "exec", self.name)

    @contextmanager
    def enter_namespace(self) -> Iterator[None]:
        """Create sockets of this thread, and of threads that it starts, on this host within this block."""
        with Path("/proc/thread-self/ns/net").open() as home, (NETNS_FOLDER / self.name).open() as there:
            _set_namespace(there.fileno())
            try:
                yield
            finally:
                _set_namespace(home.fileno())

    def disconnect_cable(self) -> None:
        """Disconnect the cable: neither host receives anything from the other."""
        _run_ip("-n", self.name, "link", "set", _DEVICE_NAME, "down")

    def connect_cable(self) -> None:
        """Connect the cable again."""
        _run_ip("-n", self.name, "link", "set", _DEVICE_NAME, "up")


@contextmanager
def two_hosts() -> Iterator[tuple[NetworkHost, NetworkHost]]:
    """Yield two hosts that reach only each other; skip the test where they cannot be created."""
    _remove_leftovers()
    hosts = tuple(
        NetworkHost(f"{NAMESPACE_PREFIX}{os.getpid()}-{number}", address) for number, address in enumerate(ADDRESSES)
    )
    try:
        _create_hosts(*hosts)
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            _remove_namespace(host.name)


def _set_namespace(namespace: int) -> None:
    if _LIBC.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _create_hosts(one: NetworkHost, other: NetworkHost) -> None:
    if os.getuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the command ip (of iproute2)")
    try:
        for host in (one, other):
            _run_ip("netns", "add", host.name)
        there = ("netns", one.name, "type", "veth", "peer", "name", _DEVICE_NAME, "netns", other.name)
        _run_ip("link", "add", _DEVICE_NAME, *there)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine allows no network namespaces: {error.stderr.strip()}")
    for host in (one, other):
        _run_ip("-n", host.name, "address", "add", f"{host.address}/30", "dev", _DEVICE_NAME)
        _run_ip("-n", host.name, "link", "set", "lo", "up")
        host.connect_cable()


def _remove_namespace(name: str) -> None:
    """Remove a namespace, if it exists, with the processes in it."""
    if name not in _namespace_names():
        return
    for pid in _run_ip("netns", "pids", name).split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    _run_ip("netns", "delete", name)


def _remove_leftovers() -> None:
    """Remove the namespaces that killed processes left."""
    for name in _namespace_names():
        pid = name.removeprefix(NAMESPACE_PREFIX).partition("-")[0]
        if name.startswith(NAMESPACE_PREFIX) and not Path(f"/proc/{pid}").exists():
            _remove_namespace(name)


def _namespace_names() -> list[str]:
    return [path.name for path in NETNS_FOLDER.iterdir()] if NETNS_FOLDER.is_dir() else []


def _run_ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True)
    return done.stdout
