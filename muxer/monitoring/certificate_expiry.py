"""When the certificates expire that the muxer uses: those in files, of the recipients in RWS, and of the servers."""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from muxer.config.ca_bundle import read_certificates
from muxer.config.fleet_options import TLS, parse_nodes
from muxer.config.schema import Config
from muxer.gir.rws import Certificate
from muxer.monitoring.view import ViewSources
from muxer.net.circuit_breaker import RCS, RWS
from muxer.status.fleet_status import BROKER
from muxer.storage.s3 import S3_SERVICE as S3

log = logging.getLogger(__name__)

MAX_NAMED_CERTIFICATES = 20
CERTIFICATE_CHECK_INTERVAL = 3600.0
# By then the first poll has most likely ended, so that the storages are known.
FIRST_CHECK_DELAY = 60.0
CONNECT_TIMEOUT_SECONDS = 10.0
WEBDAV_PREFIX = "WebDAV "


@dataclass(frozen=True)
class CertificateExpiry:
    """When a certificate expires, in epoch seconds. `kind` and `name` are the labels of the metric."""

    kind: str
    name: str
    at: float


class CertificateExpiries:
    """The certificates in configured files and of recipients, read again when changed. Opens no connection."""

    def __init__(self, config: Config) -> None:
        self._files = list(_certificate_files(config))
        self._lock = threading.Lock()
        self._read: dict[tuple[str, str], tuple[float, list[float]]] = {}
        self._recipients: tuple[tuple[Certificate, ...], tuple[CertificateExpiry, ...]] = ((), ())

    def read_expiries(self, recipients: tuple[Certificate, ...]) -> tuple[CertificateExpiry, ...]:
        """Return the expiry of the files and of the `recipients` of encrypted files; skip what cannot be read."""
        with self._lock:
            if recipients != self._recipients[0]:
                self._recipients = (recipients, tuple(_recipient_expiries(recipients)))
            return (*self._file_expiries(), *self._recipients[1])

    def _file_expiries(self) -> Iterator[CertificateExpiry]:
        for kind, name, path in self._files:
            with contextlib.suppress(OSError, ValueError):
                changed = path.stat().st_mtime
                if self._read.get((kind, name), (None, []))[0] != changed:
                    self._read[kind, name] = (changed, _read_expiries(path))
                ends = self._read[kind, name][1]
                # The chain of the monitoring port begins with its own certificate.
                yield CertificateExpiry(kind, name, ends[0] if kind == "monitoring" else _first_expiry(ends, time.time()))


class ServerCertificates:
    """The certificates of the servers with TLS, read by a TLS handshake every hour in a separate thread."""

    def __init__(self, sources: ViewSources, stop: threading.Event) -> None:
        self._sources, self._stop = sources, stop
        self._expiries: dict[str, CertificateExpiry] = {}

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._check_periodically, name="monitoring certificates", daemon=True).start()

    def last_expiries(self) -> tuple[CertificateExpiry, ...]:
        """Return the results of the last check, without connecting."""
        return tuple(self._expiries.values())

    def check_servers(self) -> None:
        """Read the certificate of every server. One that cannot be reached keeps its last result."""
        addresses = dict(_tls_addresses(self._sources.config, self._responding_services()))
        for name, address in addresses.items():
            try:
                expiry = CertificateExpiry("server", self._sources.secret_mask(name), _server_expiry(address))
                self._expiries[name] = expiry
            except (OSError, ValueError) as error:
                log.debug("cannot read the certificate of %s: %s", name, error)
        self._expiries = {name: expiry for name, expiry in self._expiries.items() if name in addresses}

    def _responding_services(self) -> list[str]:
        """Return the services that have responded: the muxer sends nothing to a server that only metadata name."""
        return [state.name for state in self._sources.circuit_breaker.service_states() if state.last_success is not None]

    def _check_periodically(self) -> None:
        delay = FIRST_CHECK_DELAY
        while not self._stop.wait(delay):
            delay = CERTIFICATE_CHECK_INTERVAL
            try:
                self.check_servers()
            except Exception:
                log.exception("check of the server certificates failed with an unexpected error; retrying in an hour")


def _certificate_files(config: Config) -> Iterator[tuple[str, str, Path]]:
    for name in ("htcc", "rcs", "webdav", "s3", *(("fleet",) if config.is_fleet else ())):
        if isinstance(path := getattr(config, name).trusted_ca, Path):
            yield "trusted_ca", name, path
    if config.monitoring.certificate is not None:
        yield "monitoring", "monitoring", config.monitoring.certificate


def _read_expiries(path: Path) -> list[float]:
    return [certificate.not_valid_after_utc.timestamp() for certificate in read_certificates(path)]


def _first_expiry(ends: list[float], now: float) -> float:
    """Return the first expiry in a bundle after `now`, because expired ones beside it do not matter; else the last."""
    return min((end for end in ends if end > now), default=max(ends))


def _recipient_expiries(recipients: tuple[Certificate, ...]) -> Iterator[CertificateExpiry]:
    seen: set[str] = set()
    for number, recipient in enumerate(recipients[:MAX_NAMED_CERTIFICATES], start=1):
        alias = recipient.alias
        name = alias if alias and alias not in seen else f"certificate-{number}"
        seen.add(name)
        with contextlib.suppress(ValueError):
            yield CertificateExpiry("recipient", name[:100], _expiry_of(recipient.pem))


def _tls_addresses(config: Config, responding: list[str]) -> Iterator[tuple[str, str]]:
    configured = {RWS: config.htcc.base_uri, RCS: config.rcs.base_uri, S3: config.s3.endpoint_url}
    webdav = {name: name.removeprefix(WEBDAV_PREFIX) for name in responding if name.startswith(WEBDAV_PREFIX)}
    for name, address in (configured | webdav).items():
        if address is not None and address.startswith("https:"):
            yield name, address
    yield from _broker_addresses(config)


def _broker_addresses(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the nodes of RabbitMQ that use TLS, named as `check` does, without their credentials."""
    nodes = parse_nodes(config.fleet.broker_url) if config.is_fleet else ()
    for number, node in enumerate(nodes, start=1):
        if node.tls:
            name = f"{BROKER} {number}" if len(nodes) > 1 else BROKER
            yield name, f"{TLS}://{node.address}"


def _server_expiry(address: str) -> float:
    """Return when a server's certificate expires; its issuer is not checked. Raises OSError or ValueError."""
    parts = urlsplit(address)
    pem = ssl.get_server_certificate((parts.hostname or "", parts.port or 443), timeout=CONNECT_TIMEOUT_SECONDS)
    return _expiry_of(pem)


def _expiry_of(pem: str) -> float:
    from cryptography import x509

    return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc.timestamp()
