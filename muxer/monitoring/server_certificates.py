"""When the TLS certificates of the servers expire: looked at once an hour, in a thread of its own, by a handshake alone."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from muxer.config.schema import Config
from muxer.monitoring.certificate_expiry import CertificateExpiry
from muxer.monitoring.view import ViewSources
from muxer.net.circuit_breaker import RCS, RWS
from muxer.storage.s3 import S3_SERVICE as S3

log = logging.getLogger(__name__)

CERTIFICATE_CHECK_INTERVAL = 3600.0
# The first look comes when the first poll has most likely ended, so that the storages are known.
FIRST_CHECK_DELAY = 60.0
CONNECT_TIMEOUT_SECONDS = 10.0
WEBDAV_PREFIX = "WebDAV "


class ServerCertificates:
    """The servers that are spoken to over https."""

    def __init__(self, sources: ViewSources, stop: threading.Event) -> None:
        """Given where their names come from, and the event that ends the looking, remember both."""
        self._sources, self._stop = sources, stop
        self._found: dict[str, CertificateExpiry] = {}

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._check_periodically, name="monitoring certificates", daemon=True).start()

    def last_expiries(self) -> tuple[CertificateExpiry, ...]:
        """Return what was last seen, without looking."""
        return tuple(self._found.values())

    def check_servers(self) -> None:
        """Ask every server for its certificate; forget those that are known no more."""
        addresses = dict(_https_addresses(self._sources.config, self._responding_services()))
        for name, address in addresses.items():
            try:
                self._found[name] = CertificateExpiry("server", self._sources.secret_mask(name), _server_expiry(address))
            except (OSError, ValueError) as error:
                log.debug("the certificate of %s cannot be seen: %s", name, error)
        self._found = {name: one for name, one in self._found.items() if name in addresses}

    def _responding_services(self) -> list[str]:
        """Return the services that have answered: nothing is sent to a server that metadata alone name."""
        return [one.name for one in self._sources.outages.service_states() if one.last_success is not None]

    def _check_periodically(self) -> None:
        pause = FIRST_CHECK_DELAY
        while not self._stop.wait(pause):
            pause = CERTIFICATE_CHECK_INTERVAL
            try:
                self.check_servers()
            except Exception:
                log.exception("the certificates of the servers cannot be looked at; tried again in an hour")


def _https_addresses(config: Config, answered: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the name and address of every server that is spoken to over https."""
    configured = {RWS: config.htcc.base_uri, RCS: config.rcs.base_uri, S3: config.s3.endpoint_url}
    webdav = {name: name.removeprefix(WEBDAV_PREFIX) for name in answered if name.startswith(WEBDAV_PREFIX)}
    for name, address in (configured | webdav).items():
        if address is not None and address.startswith("https:"):
            yield name, address


def _server_expiry(address: str) -> float:
    """Return when the certificate of a server expires, whoever has signed it. Raise ``OSError`` or ``ValueError`` when it
    cannot be seen."""
    from cryptography import x509

    parts = urlsplit(address)
    pem = ssl.get_server_certificate((parts.hostname or "", parts.port or 443), timeout=CONNECT_TIMEOUT_SECONDS)
    return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc.timestamp()
