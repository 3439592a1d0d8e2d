"""What an option ``trusted_ca`` means for connections to RWS, RCS, WebDAV and S3 (guide: Configuring TLS connections)."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from muxer.config.ca_bundle import read_certificates

# Python 3.13 sets these, earlier ones do not. The guide wants the whole chain up to its root in the bundle, and takes any
# certificate of a firm's own authority, with key usage and key identifiers or without.
_VERSION_DEPENDENT_FLAGS = ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT


def client_context(trusted_ca: bool | Path) -> ssl.SSLContext:
    """Given the value of a ``trusted_ca`` option, return the TLS context for connections under it.

    True trusts the certificate authorities of the operating system, a path those of that PEM bundle only; False makes
    no checks at all: neither chain, nor expiry, nor host name. The verdict is the same under every version of Python.
    Raise ``ValueError`` when the bundle cannot be read.
    """
    if isinstance(trusted_ca, Path):
        # Read as it was at the start's check: OpenSSL's own reader passes over a certificate whose lines are indented.
        from cryptography.hazmat.primitives.serialization import Encoding  # here: its loading takes time at the start

        bundle = b"".join(one.public_bytes(Encoding.DER) for one in read_certificates(trusted_ca))
        made = ssl.create_default_context(cadata=bundle)
    elif trusted_ca:
        made = ssl.create_default_context()
    else:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without authorities, whose loading takes time
    made.verify_flags &= ~_VERSION_DEPENDENT_FLAGS
    if not trusted_ca:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def fetch_certificate(host: str, port: int, made: ssl.SSLContext, seconds: float) -> bytes:
    """Given where a server is and a TLS context, connect, and return the certificate of the server (DER).

    Raise ``ssl.SSLCertVerificationError`` when the context does not accept it, ``OSError`` (``ssl.SSLError`` is one) when
    there is no TLS connection.
    """
    with (
        socket.create_connection((host, port), timeout=seconds) as plain,
        made.wrap_socket(plain, server_hostname=host) as safe,
    ):
        return safe.getpeercert(binary_form=True) or b""


def accepts_tls(host: str, port: int, seconds: float) -> bool:
    """Whether a server speaks TLS on a port, with any certificate. `seconds` limits each step of the connection."""
    try:
        fetch_certificate(host, port, client_context(False), seconds)
    except (OSError, ValueError):
        return False
    return True
