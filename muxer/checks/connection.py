"""Checks of the connection to a server: host name, port and TLS. They send no request and no credentials."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from muxer.checks import certificates
from muxer.checks.checklist import Check, Finding, failed_finding, passed_finding, warning_finding
from muxer.config.fleet_options import DEFAULT_PORTS, TLS
from muxer.net import tls
from muxer.status.advice import address_option, tls_advice, unreachable_advice

if TYPE_CHECKING:
    from cryptography import x509

CONNECT_SECONDS = 10.0
_DEFAULT_PORTS = {"http": 80, "https": 443, **DEFAULT_PORTS}
_TLS_SCHEMES = ("https", TLS)


@dataclass
class CheckedServer:
    """A server and its certificate; with `trusted_ca` None, a library verifies it. `admit` raises when it is not allowed."""

    name: str
    url: str
    section: str
    trusted_ca: bool | Path | None
    admit: Callable[[], object] = tuple
    certificate: x509.Certificate | None = None

    @property
    def host(self) -> str:
        """Its host name."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Its TCP port."""
        parts = urlsplit(self.url)
        return parts.port or _DEFAULT_PORTS[parts.scheme]

    @property
    def is_tls(self) -> bool:
        """Whether connections use TLS."""
        return urlsplit(self.url).scheme in _TLS_SCHEMES

    def create_checks(self, needs: tuple[str, ...]) -> tuple[Check, Check]:
        """Return the checks of address and TLS. `needs` is what the first one needs."""
        address = f"{self.name} address"
        return (
            Check(address, self._check_address, needs, self.section),
            Check(f"{self.name} TLS", self._check_tls, (*needs, address), self.section),
        )

    def _check_address(self) -> Iterator[Finding]:
        check, place = f"{self.name} address", f"{self.host} port {self.port}"
        self.admit()
        try:
            with socket.create_connection((self.host, self.port), timeout=CONNECT_SECONDS) as connection:
                peer = str(connection.getpeername()[0])
        except OSError as error:
            what = f"{place}: {error.strerror or error}"
            yield failed_finding(check, what, unreachable_advice(error, self.host, self.port, self.section))
        else:
            yield passed_finding(check, place if peer == self.host else f"{place} ({peer})")

    def _check_tls(self) -> Iterator[Finding]:
        check = f"{self.name} TLS"
        if not self.is_tls:
            yield self._unencrypted_finding(check)
            return
        try:
            self.certificate = self._fetch_certificate(False)
            if self.trusted_ca is not None:
                self._fetch_certificate(self.trusted_ca)
        except OSError as error:
            yield self._refused_finding(check, error)
            return
        if self.trusted_ca is False:
            advice = f"set [{self.section}] trusted_ca to the certificates of the certificate authority"
            yield warning_finding(check, "encrypted, but the certificate is not checked (trusted_ca = false)", advice)
        else:
            yield passed_finding(check, f"issued by {certificates.issuer_text(self.certificate)}")

    def _unencrypted_finding(self, check: str) -> Finding:
        if _is_loopback(self.host):
            return passed_finding(check, "none, on this machine")
        advice = f"use TLS in {address_option(self.section)} if the server supports it"
        return warning_finding(check, "none: the password is sent unencrypted", advice)

    def _refused_finding(self, check: str, error: OSError) -> Finding:
        shown = self.certificate
        issuer, names = (certificates.issuer_text(shown), certificates.server_names(shown)) if shown else ("", "")
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
        if isinstance(error, ssl.SSLError):
            advice = tls_advice(error, self.section, issuer, names)
        else:
            advice = unreachable_advice(error, self.host, self.port, self.section)
        return failed_finding(check, f"refused: {reason}", advice)

    def _fetch_certificate(self, trusted_ca: bool | Path) -> x509.Certificate:
        context = tls.client_context(trusted_ca)
        return certificates.parse_der(tls.fetch_certificate(self.host, self.port, context, CONNECT_SECONDS))


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"
