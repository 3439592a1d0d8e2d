"""TLS for connections to RWS, RCS, WebDAV and S3, by the option ``trusted_ca`` (guide: Configuring TLS connections)."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from muxer.config.ca_bundle import read_certificates

# Only Python 3.13 and later set these. The guide wants the chain up to its root in the bundle, and accepts certificates of
# private authorities with or without key usage and key identifiers.
_VERSION_DEPENDENT_FLAGS = ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT


def client_context(trusted_ca: bool | Path) -> ssl.SSLContext:
    """Return the TLS context of a ``trusted_ca``. Raises ValueError when the bundle cannot be read.

    True trusts the authorities of the system, a path only those of that file; False checks nothing.
    """
    if isinstance(trusted_ca, Path):
        # Read as at the check at the start: OpenSSL's own reader skips a certificate whose lines are indented.
        from cryptography.hazmat.primitives.serialization import Encoding  # here: its loading takes time at the start

        bundle = b"".join(one.public_bytes(Encoding.DER) for one in read_certificates(trusted_ca))
        context = ssl.create_default_context(cadata=bundle)
    elif trusted_ca:
        context = ssl.create_default_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without authorities, whose loading takes time
    context.verify_flags &= ~_VERSION_DEPENDENT_FLAGS
    if not trusted_ca:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def fetch_certificate(host: str, port: int, context: ssl.SSLContext, seconds: float) -> bytes:
    """Return a server's certificate (DER). Raises ssl.SSLCertVerificationError or OSError."""
    with (
        socket.create_connection((host, port), timeout=seconds) as plain,
        context.wrap_socket(plain, server_hostname=host) as safe,
    ):
        return safe.getpeercert(binary_form=True) or b""


def accepts_tls(host: str, port: int, seconds: float) -> bool:
    """Whether a server speaks TLS on a port, with any certificate. `seconds` limits each step of the connection."""
    try:
        fetch_certificate(host, port, client_context(False), seconds)
    except (OSError, ValueError):
        return False
    return True
