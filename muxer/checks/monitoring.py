"""The port of ``[monitoring]``: whether it can be opened, and how long its certificate lasts."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from muxer.checks import certificates
from muxer.checks.checklist import Check, Finding, failed, ok
from muxer.config.listening import resolve
from muxer.config.pem import certificates_in
from muxer.config.schema import Config, Monitoring
from muxer.lock import holder
from muxer.workspace import LOCK, folder_of

PORT, CERTIFICATE = "monitoring port", "[monitoring] certificate"
_NEEDS = tuple(f"[monitoring] {one.name}" for one in fields(Monitoring))


class OfMonitoring:
    """The checks of the port; there are none when it is off."""

    def __init__(self, config: Config) -> None:
        """Given the configuration."""
        self._monitoring = config.monitoring
        self._lock = folder_of(config.processing.temp_dir, config.instance) / LOCK

    def checks(self) -> Iterator[Check]:
        """Yield them."""
        if self._monitoring.http_port:
            yield Check(PORT, self._port, _NEEDS, "monitoring")
        if self._monitoring.http_port and self._monitoring.certificate:
            yield Check(CERTIFICATE, self._certificate, _NEEDS, "monitoring")

    def _port(self) -> Iterator[Finding]:
        """Open the port and close it again; the muxer that runs with this configuration holds it."""
        address, port = resolve(self._monitoring.http_address).address, self._monitoring.http_port
        place = f"{address} port {port}"
        try:
            _open(address, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and holder(self._lock) is not None:
                yield ok(PORT, f"{place}: in use, as it is while the muxer runs")
            else:
                yield failed(PORT, f"{place} cannot be opened: {error.strerror}; the muxer would not start", _advice(error))
        else:
            yield ok(PORT, f"{place}: free")

    def _certificate(self) -> Iterator[Finding]:
        assert isinstance(self._monitoring.certificate, Path)
        server = certificates_in(self._monitoring.certificate)[0]
        yield certificates.expiry(CERTIFICATE, server, certificates.moment())


def _open(address: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as tried:
        if os.name == "posix":  # what was closed a moment ago is free; on Windows this would take the port from another
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried.bind((address, port))
        tried.listen()


def _advice(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program, or another muxer, has it: take another number for [monitoring] http_port"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address: correct [monitoring] http_address"
    return "take a number of 1024 or more for [monitoring] http_port: those below belong to the system"
