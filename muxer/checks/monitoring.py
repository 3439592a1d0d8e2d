"""Checks of the monitoring port: whether it can be opened, and the expiry of its certificate."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from muxer.checks import certificates
from muxer.checks.checklist import Check, Finding, failed_finding, passed_finding, warning_finding
from muxer.config.ca_bundle import read_certificates
from muxer.config.monitoring_address import resolve_address
from muxer.config.schema import Config, MonitoringOptions
from muxer.pipeline.workspace import LOCK_FILE, temp_folder_for
from muxer.status.state_file import read_state
from muxer.system.file_lock import lock_holder
from muxer.system.masking import mask_credentials

PORT, CERTIFICATE = "monitoring port", "[monitoring] certificate"
_TAKEN_ADVICE = "another program or another muxer uses it: set another [monitoring] http_port"
_UNKNOWN_USER_ADVICE = "its state file does not say which port it uses: run check again, or stop the muxer before"
_REQUIRED_OPTIONS = tuple(f"[monitoring] {field.name}" for field in fields(MonitoringOptions))


class MonitoringChecks:
    """The checks of the port; none when it is disabled."""

    def __init__(self, config: Config) -> None:
        self._monitoring = config.monitoring
        self._folder = temp_folder_for(config.processing.temp_dir, config.instance_name)

    def create_checks(self) -> Iterator[Check]:
        """Yield the checks."""
        if self._monitoring.http_port:
            yield Check(PORT, self._check_port, _REQUIRED_OPTIONS, "monitoring")
        if self._monitoring.http_port and self._monitoring.certificate:
            yield Check(CERTIFICATE, self._check_certificate, _REQUIRED_OPTIONS, "monitoring")

    def _check_port(self) -> Iterator[Finding]:
        """Open the port and close it again, unless the running muxer uses it."""
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
            if error.errno == errno.EADDRINUSE and lock_holder(self._folder / LOCK_FILE) is not None:
                yield self._taken_finding(place)
            else:
                yield _closed_finding(place, error)
        else:
            yield passed_finding(PORT, f"{place}: free")

    def _taken_finding(self, place: str) -> Finding:
        """Return whether the running muxer uses the port, as its state file says."""
        state = read_state(self._folder)
        # An older version does not write its port.
        used = None if state is None else state.get("http_port")
        if used == self._monitoring.http_port:
            return passed_finding(PORT, f"{place}: in use by the running muxer")
        if used is None:
            return warning_finding(PORT, f"{place}: in use, perhaps by the running muxer", _UNKNOWN_USER_ADVICE)
        other = f"uses port {used}" if used else "has no monitoring port"
        what = f"{place}: in use by another program, as the running muxer {other}; the muxer would not start again"
        return failed_finding(PORT, what, _TAKEN_ADVICE)

    def _check_certificate(self) -> Iterator[Finding]:
        assert isinstance(self._monitoring.certificate, Path)
        server = read_certificates(self._monitoring.certificate)[0]
        yield certificates.check_expiry(CERTIFICATE, server, certificates.utc_now())


def _closed_finding(place: str, error: OSError) -> Finding:
    return failed_finding(PORT, f"cannot open {place}: {error.strerror}; the muxer would not start", _port_advice(error))


def _try_port(address: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as tried:
        if os.name == "posix":  # A port just closed is free. On Windows this would allow a port in use.
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried.bind((address, port))
        tried.listen()


def _port_advice(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return _TAKEN_ADVICE
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address: correct [monitoring] http_address"
    return "set [monitoring] http_port to 1024 or more: lower ports are reserved for the system"
