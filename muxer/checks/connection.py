"""The way to a server: its name, its port, TLS. Nothing is sent, and no login."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from muxer import tls
from muxer.checks import certificates
from muxer.checks.advice import address_of, unreachable, untrusted
from muxer.checks.checklist import Check, Finding, failed, ok, warning
from muxer.config.broker import PORTS, TLS

if TYPE_CHECKING:
    from cryptography import x509

CONNECT_SECONDS = 10.0
_PORTS = {"http": 80, "https": 443, **PORTS}
_SAFE = ("https", TLS)


@dataclass
class Server:
    """A server, and the certificate that it showed. ``trusted_ca`` None: who is trusted is left to a library. ``admit`` is
    asked before anything else, and raises when nothing may be sent there."""

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
        return parts.port or _PORTS[parts.scheme]

    @property
    def is_tls(self) -> bool:
        """Whether it is spoken to over TLS."""
        return urlsplit(self.url).scheme in _SAFE

    def checks(self, needs: tuple[str, ...]) -> tuple[Check, Check]:
        """Return the checks of the way to it: address, then TLS; ``needs`` is what the first one needs."""
        address = f"{self.name} address"
        return (
            Check(address, self._address, needs, self.section),
            Check(f"{self.name} TLS", self._tls, (*needs, address), self.section),
        )

    def _address(self) -> Iterator[Finding]:
        check, place = f"{self.name} address", f"{self.host} port {self.port}"
        self.admit()
        try:
            with socket.create_connection((self.host, self.port), timeout=CONNECT_SECONDS) as connection:
                there = str(connection.getpeername()[0])
        except OSError as error:
            what = f"{place}: {error.strerror or error}"
            yield failed(check, what, unreachable(error, self.host, self.port, self.section))
        else:
            yield ok(check, place if there == self.host else f"{place} ({there})")

    def _tls(self) -> Iterator[Finding]:
        check = f"{self.name} TLS"
        if not self.is_tls:
            yield self._plain(check)
            return
        try:
            self.certificate = self._shown(False)
            if self.trusted_ca is not None:
                self._shown(self.trusted_ca)
        except OSError as error:
            yield self._refused(check, error)
            return
        if self.trusted_ca is False:
            advice = f"name the certificates of the authority in [{self.section}] trusted_ca"
            yield warning(check, "encrypted, but the certificate is not checked (trusted_ca = false)", advice)
        else:
            yield ok(check, f"issued by {certificates.issuer(self.certificate)}")

    def _plain(self, check: str) -> Finding:
        if _is_loopback(self.host):
            return ok(check, "none, on this machine")
        advice = f"use TLS in {address_of(self.section)} where the server offers it"
        return warning(check, "none: the password goes over the network in clear", advice)

    def _refused(self, check: str, error: OSError) -> Finding:
        shown = self.certificate
        issuer, names = (certificates.issuer(shown), certificates.names(shown)) if shown else ("", "")
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
        return failed(check, f"refused: {reason}", untrusted(error, self.section, issuer, names))

    def _shown(self, trusted_ca: bool | Path) -> x509.Certificate:
        context = tls.context(trusted_ca)
        return certificates.parsed(tls.server_certificate(self.host, self.port, context, CONNECT_SECONDS))

    def speaks_tls(self) -> bool:
        """Whether the port speaks TLS, whatever the address says."""
        return tls.speaks_tls(self.host, self.port, CONNECT_SECONDS)


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"
