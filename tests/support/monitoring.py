"""A monitoring server with real sources in the process of the test, and a minimal client."""

from __future__ import annotations

import http.client
import json
import ssl
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from muxer.config import load_config
from muxer.monitoring.server import MonitoringServer
from muxer.monitoring.view import ViewSources
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.pipeline.disk_space import TempDisk
from muxer.status.activity import Activity
from muxer.status.heartbeat import Heartbeat
from tests.support.tls import Identity, pem_bundle, self_signed

HOST = "127.0.0.1"
TIMEOUT_SECONDS = 30
CREDENTIALS = {"username": "watcher", "password": "open sesame"}


@dataclass(frozen=True)
class HttpReply:
    """The response of the monitoring server."""

    status: int
    headers: dict[str, str]
    body: str


def create_sources(folder: Path, journal: Path | None = None, **options: object) -> ViewSources:
    """Return sources with new parts and a configuration with the given ``section__option``."""
    path = folder / "muxer.cfg"
    given: dict[str, dict[str, object]] = {"htcc": {"base_uri": "https://rws", "contact_center_id": "1"}}
    for name, value in options.items():
        section, _, option = name.partition("__")
        given.setdefault(section, {})[option] = value
    path.write_text("".join(f"[{one}]\n" + "".join(f"{k}={v}\n" for k, v in pairs.items()) for one, pairs in given.items()))
    config = load_config(path, {}, {}).config
    disk = TempDisk(folder, 1)
    disk.has_room()
    return ViewSources(config, Activity(), CircuitBreaker(), disk, Heartbeat(), journal, lambda: True, lambda: 0, lambda: ())


@contextmanager
def open_server(sources: ViewSources) -> Iterator[MonitoringServer]:
    """Open the port within this block."""
    server = MonitoringServer(sources)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def send_request(
    port: int,
    path: str = "/",
    *,
    method: str = "GET",
    login: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    **headers: str,
) -> HttpReply:
    """Send one request; return the response."""
    connection = (
        http.client.HTTPSConnection(HOST, port, timeout=TIMEOUT_SECONDS, context=tls)
        if tls
        else http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_SECONDS)
    )
    if login is not None:
        headers["Authorization"] = "Basic " + b64encode(f"{login['username']}:{login['password']}".encode()).decode()
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        reply = connection.getresponse()
        return HttpReply(reply.status, dict(reply.getheaders()), reply.read().decode())
    finally:
        connection.close()


def parse_samples(exposition: str) -> dict[str, float]:
    """Return every sample of an exposition, as ``name{label="value",…}``, labels in order."""
    found = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def readiness_reasons(port: int) -> tuple[int, list[str]]:
    """Return the status of ``/readyz`` and its reasons."""
    reply = send_request(port, "/readyz", Accept="application/json")
    body: dict[str, Any] = json.loads(reply.body)
    return reply.status, body["reasons"]


def create_certificate(folder: Path, *, end: int = 1) -> tuple[Path, Path, ssl.SSLContext]:
    """Create a certificate for loopback with its key; return both paths and the context of a client that trusts it."""
    identity: Identity = self_signed("muxer", HOST, "localhost", end=end)
    certificate, key = folder / "muxer.pem", folder / "muxer.key"
    certificate.write_bytes(pem_bundle(identity))
    key.write_bytes(identity.key_pem)
    return certificate, key, ssl.create_default_context(cafile=str(certificate))
