"""When the TLS certificates of the servers expire: looked at once an hour, in a thread of its own, by a handshake alone."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from muxer.config.schema import Config
from muxer.monitoring.expiry import Expiry
from muxer.monitoring.view import Sources
from muxer.outages import RCS, RWS
from muxer.storage.s3 import SERVICE as S3

log = logging.getLogger(__name__)

LOOK_SECONDS = 3600.0
# The first look comes when the first poll has most likely ended, so that the storages are known.
FIRST_LOOK_SECONDS = 60.0
CONNECT_SECONDS = 10.0
WEBDAV = "WebDAV "


class Servers:
    """The servers that are spoken to over https."""

    def __init__(self, sources: Sources, stop: threading.Event) -> None:
        """Given where their names come from, and the event that ends the looking, remember both."""
        self._sources, self._stop = sources, stop
        self._found: dict[str, Expiry] = {}

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, name="monitoring certificates", daemon=True).start()

    def all(self) -> tuple[Expiry, ...]:
        """Return what was last seen, without looking."""
        return tuple(self._found.values())

    def look(self) -> None:
        """Ask every server for its certificate; forget those that are known no more."""
        addresses = dict(_addresses(self._sources.config, self._answered()))
        for name, address in addresses.items():
            try:
                self._found[name] = Expiry("server", self._sources.mask(name), _expiry(address))
            except (OSError, ValueError) as error:
                log.debug("the certificate of %s cannot be seen: %s", name, error)
        self._found = {name: one for name, one in self._found.items() if name in addresses}

    def _answered(self) -> list[str]:
        """Return the services that have answered: nothing is sent to a server that metadata alone name."""
        return [one.name for one in self._sources.outages.standings() if one.last_success is not None]

    def _run(self) -> None:
        pause = FIRST_LOOK_SECONDS
        while not self._stop.wait(pause):
            pause = LOOK_SECONDS
            try:
                self.look()
            except Exception:
                log.exception("the certificates of the servers cannot be looked at; tried again in an hour")


def _addresses(config: Config, answered: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the name and address of every server that is spoken to over https."""
    configured = {RWS: config.htcc.base_uri, RCS: config.rcs.base_uri, S3: config.s3.endpoint_url}
    webdav = {name: name.removeprefix(WEBDAV) for name in answered if name.startswith(WEBDAV)}
    for name, address in (configured | webdav).items():
        if address is not None and address.startswith("https:"):
            yield name, address


def _expiry(address: str) -> float:
    """Return when the certificate of a server expires, whoever has signed it. Raise ``OSError`` or ``ValueError`` when it
    cannot be seen."""
    from cryptography import x509

    parts = urlsplit(address)
    pem = ssl.get_server_certificate((parts.hostname or "", parts.port or 443), timeout=CONNECT_SECONDS)
    return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc.timestamp()
