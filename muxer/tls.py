"""One rule for all TLS connections: what an option ``trusted_ca`` means (guide: Configuring TLS connections)."""

from __future__ import annotations

import ssl
from pathlib import Path


def context(trusted_ca: bool | Path) -> ssl.SSLContext:
    """Given the value of a ``trusted_ca`` option, return the TLS context for connections under it.

    True trusts the certificate authorities of the operating system, a path those of that PEM bundle only; False makes
    no checks at all: neither chain, nor expiry, nor host name.
    """
    if isinstance(trusted_ca, Path):
        return ssl.create_default_context(cafile=str(trusted_ca))
    made = ssl.create_default_context()
    if not trusted_ca:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made
