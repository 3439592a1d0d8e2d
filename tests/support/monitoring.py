"""A monitoring port in the process of the test, over real parts; and a client that says no more than it is told."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from muxer.activity import Activity
from muxer.config import load
from muxer.disk import Disk
from muxer.monitoring.server import Server
from muxer.monitoring.view import Sources
from muxer.outages import Outages
from muxer.pulse import Pulse
from tests.support.tls import Identity, pem, self_signed

HOST = "127.0.0.1"
SECONDS = 30
LOGIN = {"username": "watcher", "password": "open sesame"}


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: str


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


def made_sources(folder: Path, journal: Path | None = None, **options: object) -> Sources:
    """Return sources over fresh parts, with a configuration whose ``section__option`` are given."""
    path = folder / "muxer.cfg"
    given: dict[str, dict[str, object]] = {"htcc": {"base_uri": "https://rws", "contact_center_id": "1"}}
    for name, value in options.items():
        section, _, option = name.partition("__")
        given.setdefault(section, {})[option] = value
    path.write_text("".join(f"[{one}]\n" + "".join(f"{k}={v}\n" for k, v in pairs.items()) for one, pairs in given.items()))
    config = load(path, {}, {}).config
    disk = Disk(folder, 1)
    disk.has_room()
    return Sources(config, Activity(), Outages(), disk, Pulse(), journal, lambda: True, lambda: 0, lambda: ())


@contextmanager
def opened(sources: Sources) -> Iterator[Server]:
    """Within this block the port is open."""
    server = Server(sources)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def ask(
    port: int,
    path: str = "/",
    *,
    method: str = "GET",
    login: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    **headers: str,
) -> Reply:
    """Send one request and return the reply."""
    connection = (
        http.client.HTTPSConnection(HOST, port, timeout=SECONDS, context=tls)
        if tls
        else http.client.HTTPConnection(HOST, port, timeout=SECONDS)
    )
    if login is not None:
        headers["Authorization"] = "Basic " + b64encode(f"{login['username']}:{login['password']}".encode()).decode()
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        reply = connection.getresponse()
        return Reply(reply.status, dict(reply.getheaders()), reply.read().decode())
    finally:
        connection.close()


def values(exposition: str) -> dict[str, float]:
    """Return every sample of an exposition, as ``name{label="value",…}``, labels in order."""
    found = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def reasons(port: int) -> tuple[int, list[str]]:
    """Return the status of ``/readyz`` and its reasons."""
    reply = ask(port, "/readyz", Accept="application/json")
    said: dict[str, Any] = json.loads(reply.body)
    return reply.status, said["reasons"]


def certified(folder: Path, *, end: int = 1) -> tuple[Path, Path, ssl.SSLContext]:
    """Make a certificate for loopback and its key; return their paths and the context of a client that trusts them."""
    identity: Identity = self_signed("muxer", HOST, "localhost", end=end)
    certificate, key = folder / "muxer.pem", folder / "muxer.key"
    certificate.write_bytes(pem(identity))
    key.write_bytes(identity.key_pem)
    return certificate, key, ssl.create_default_context(cafile=str(certificate))
