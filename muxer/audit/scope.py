"""What an audit covers, and what is known of the site's encryption in earlier times."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from muxer.audit.call_rules import Recipients
from muxer.audit.spans import Span
from muxer.config.ca_bundle import read_certificates
from muxer.config.schema import AuditOptions, Config
from muxer.crypto.recipients import certificate_recipient
from muxer.errors import ConfigError, Problem


@dataclass(frozen=True)
class PastEncryption:
    """What the certificates of today do not show.

    `since` is when the site began to encrypt, None for when its certificates became valid. `former` are the recipients of
    certificates that were in force earlier.
    """

    since: datetime | None = None
    former: Recipients = frozenset()

    @classmethod
    def from_options(cls, options: AuditOptions) -> PastEncryption:
        """Read what two options of `[audit]` state. Raises ConfigError when the file of certificates is unusable now."""
        if options.former_certificates is None:
            return cls(options.encrypted_since)
        from cryptography.hazmat.primitives.serialization import Encoding

        try:
            found = read_certificates(options.former_certificates)
        except ValueError as error:
            raise ConfigError([Problem("[audit] former_certificates", str(error))]) from error
        return cls(
            options.encrypted_since,
            frozenset(certificate_recipient(one.public_bytes(Encoding.PEM).decode()) for one in found),
        )

    @property
    def facts(self) -> dict[str, Any]:
        """As values of JSON: an audit that goes on must have the same."""
        return {
            "encrypted_since": self.since.isoformat() if self.since is not None else None,
            "former_certificates": sorted(one.hex() for one in self.former),
        }


@dataclass(frozen=True)
class AuditScope:
    """What an audit covers: the calls that began in `span`, or those that `query` finds; of one shard or of all."""

    span: Span | None
    query: str = ""
    own_shard: bool = False
    encryption: PastEncryption = PastEncryption()

    def divide(self) -> list[Span | None]:
        """Return the slices, the oldest first; None for the whole query."""
        return list(self.span.divide()) if self.span is not None else [None]


def site_facts(config: Config) -> dict[str, Any]:
    """Return what names the site, as values of JSON: an audit that goes on must have the same."""
    return {"base_uri": config.htcc.base_uri, "contact_center_id": config.htcc.contact_center_id}
