"""When the certificates expire on which the muxer depends. Nothing is asked for over the network."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from muxer.config.ca_bundle import read_certificates
from muxer.config.schema import Config
from muxer.gir.rws import Certificate

MAX_NAMED_CERTIFICATES = 20


@dataclass(frozen=True)
class CertificateExpiry:
    """When a certificate expires, in epoch seconds. ``kind`` and ``name`` say which: the option, or the recipient."""

    kind: str
    name: str
    at: float


class CertificateExpiries:
    """The certificates of the configuration and of RWS. Files are read again when they have changed."""

    def __init__(self, config: Config) -> None:
        """Given the configuration, remember where its certificates are."""
        self._files = list(_certificate_files(config))
        self._lock = threading.Lock()
        self._read: dict[tuple[str, str], tuple[float, float]] = {}
        self._recipients: tuple[tuple[Certificate, ...], tuple[CertificateExpiry, ...]] = ((), ())

    def read_expiries(self, recipients: tuple[Certificate, ...]) -> tuple[CertificateExpiry, ...]:
        """Given for whom RWS wants muxed files encrypted, return what is known; what cannot be read is left out."""
        with self._lock:
            if recipients != self._recipients[0]:
                self._recipients = (recipients, tuple(_recipient_expiries(recipients)))
            return (*self._file_expiries(), *self._recipients[1])

    def _file_expiries(self) -> Iterator[CertificateExpiry]:
        for kind, name, path in self._files:
            with contextlib.suppress(OSError, ValueError):
                changed = path.stat().st_mtime
                if self._read.get((kind, name), (None, 0.0))[0] != changed:
                    self._read[kind, name] = (changed, _first_expiry(path, kind))
                yield CertificateExpiry(kind, name, self._read[kind, name][1])


def _certificate_files(config: Config) -> Iterator[tuple[str, str, Path]]:
    for name in ("htcc", "rcs", "webdav", "s3"):
        if isinstance(path := getattr(config, name).trusted_ca, Path):
            yield "trusted_ca", name, path
    if config.monitoring.certificate is not None:
        yield "monitoring", "monitoring", config.monitoring.certificate


def _first_expiry(path: Path, kind: str) -> float:
    """Return when the first certificate of a bundle expires; of a server's chain, its own certificate counts."""
    ends = [one.not_valid_after_utc.timestamp() for one in read_certificates(path)]
    return ends[0] if kind == "monitoring" else min(ends)


def _recipient_expiries(recipients: tuple[Certificate, ...]) -> Iterator[CertificateExpiry]:
    from cryptography import x509

    seen: set[str] = set()
    for number, one in enumerate(recipients[:MAX_NAMED_CERTIFICATES], start=1):
        name = one.alias if one.alias and one.alias not in seen else f"certificate-{number}"
        seen.add(name)
        with contextlib.suppress(ValueError):
            end = x509.load_pem_x509_certificate(one.pem.encode()).not_valid_after_utc
            yield CertificateExpiry("recipient", name[:100], end.timestamp())
