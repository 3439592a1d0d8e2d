"""When the certificates expire on which the muxer depends. Nothing is asked for over the network."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from muxer.config.pem import certificates_in
from muxer.config.schema import Config
from muxer.gir.rws import Certificate

NAMED = 20


@dataclass(frozen=True)
class Expiry:
    """When a certificate expires, in epoch seconds. ``kind`` and ``name`` say which: the option, or the recipient."""

    kind: str
    name: str
    at: float


class Expiries:
    """The certificates of the configuration and of RWS. Files are read again when they have changed."""

    def __init__(self, config: Config) -> None:
        """Given the configuration, remember where its certificates are."""
        self._files = list(_files(config))
        self._lock = threading.Lock()
        self._read: dict[tuple[str, str], tuple[float, float]] = {}
        self._recipients: tuple[tuple[Certificate, ...], tuple[Expiry, ...]] = ((), ())

    def all(self, recipients: tuple[Certificate, ...]) -> tuple[Expiry, ...]:
        """Given for whom RWS wants muxed files encrypted, return what is known; what cannot be read is left out."""
        with self._lock:
            if recipients != self._recipients[0]:
                self._recipients = (recipients, tuple(_of_recipients(recipients)))
            return (*self._of_files(), *self._recipients[1])

    def _of_files(self) -> Iterator[Expiry]:
        for kind, name, path in self._files:
            with contextlib.suppress(OSError, ValueError):
                changed = path.stat().st_mtime
                if self._read.get((kind, name), (None, 0.0))[0] != changed:
                    self._read[kind, name] = (changed, _first(path, kind))
                yield Expiry(kind, name, self._read[kind, name][1])


def _files(config: Config) -> Iterator[tuple[str, str, Path]]:
    for name in ("htcc", "rcs", "webdav", "s3"):
        if isinstance(path := getattr(config, name).trusted_ca, Path):
            yield "trusted_ca", name, path
    if config.monitoring.certificate is not None:
        yield "monitoring", "monitoring", config.monitoring.certificate


def _first(path: Path, kind: str) -> float:
    """Return when the first certificate of a bundle expires; of a server's chain, its own certificate counts."""
    ends = [one.not_valid_after_utc.timestamp() for one in certificates_in(path)]
    return ends[0] if kind == "monitoring" else min(ends)


def _of_recipients(recipients: tuple[Certificate, ...]) -> Iterator[Expiry]:
    from cryptography import x509

    seen: set[str] = set()
    for number, one in enumerate(recipients[:NAMED], start=1):
        name = one.alias if one.alias and one.alias not in seen else f"certificate-{number}"
        seen.add(name)
        with contextlib.suppress(ValueError):
            end = x509.load_pem_x509_certificate(one.pem.encode()).not_valid_after_utc
            yield Expiry("recipient", name[:100], end.timestamp())
