"""Checks of the monitoring port: whether it can be opened, and the expiry of its certificate."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from muxer.checks import certificates
from muxer.checks.checklist import Check, Finding, failed_finding, passed_finding
from muxer.config.ca_bundle import read_certificates
from muxer.config.monitoring_address import resolve_address
from muxer.config.schema import Config, MonitoringOptions
from muxer.pipeline.workspace import LOCK_FILE, temp_folder_for
from muxer.system.file_lock import lock_holder
from muxer.system.masking import mask_credentials

PORT, CERTIFICATE = "monitoring port", "[monitoring] certificate"
_REQUIRED_OPTIONS = tuple(f"[monitoring] {field.name}" for field in fields(MonitoringOptions))


class MonitoringChecks:
    """The checks of the port; none when it is disabled."""

    def __init__(self, config: Config) -> None:
        self._monitoring = config.monitoring
        self._lock = temp_folder_for(config.processing.temp_dir, config.instance_name) / LOCK_FILE

    def create_checks(self) -> Iterator[Check]:
        """Yield the checks."""
        if self._monitoring.http_port:
            yield Check(PORT, self._check_port, _REQUIRED_OPTIONS, "monitoring")
        if self._monitoring.http_port and self._monitoring.certificate:
            yield Check(CERTIFICATE, self._check_certificate, _REQUIRED_OPTIONS, "monitoring")

    def _check_port(self) -> Iterator[Finding]:
        """Open the port and close it again, unless a muxer with this configuration uses it."""
        name, port = self._monitoring.http_address, self._monitoring.http_port
        try:
            address = resolve_address(name).address
        except ValueError as error:
            what = f"[monitoring] http_address = {mask_credentials(name)!r} {error}; the muxer would not start"
            yield failed_finding(PORT, what, "correct [monitoring] http_address, or let the name server know that name")
            return
        place = f"{address} port {port}"
        try:
            _try_port(address, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and lock_holder(self._lock) is not None:
                yield passed_finding(PORT, f"{place}: in use by the running muxer")
            else:
                yield failed_finding(
                    PORT, f"cannot open {place}: {error.strerror}; the muxer would not start", _port_advice(error)
                )
        else:
            yield passed_finding(PORT, f"{place}: free")

    def _check_certificate(self) -> Iterator[Finding]:
        assert isinstance(self._monitoring.certificate, Path)
        server = read_certificates(self._monitoring.certificate)[0]
        yield certificates.check_expiry(CERTIFICATE, server, certificates.utc_now())


def _try_port(address: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as tried:
        if os.name == "posix":  # A port just closed is free. On Windows this would allow a port in use.
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried.bind((address, port))
        tried.listen()


def _port_advice(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program or another muxer uses it: set another [monitoring] http_port"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address: correct [monitoring] http_address"
    return "set [monitoring] http_port to 1024 or more: lower ports are reserved for the system"
