"""Checks certificate files at the start, so that the error names the file. ``cryptography`` is slow, so imported late."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
_BLOCK = re.compile(_BEGIN + rb".*?" + _END, re.DOTALL)


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM bundle in order. Raises ValueError when it is missing, empty or corrupt (guide)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise ValueError(f"must be true, false or the path of a PEM file ({reason})") from error
    blocks = _BLOCK.findall(data)
    if not data.strip():
        raise ValueError("is an empty file; it must contain certificates in PEM format")
    if _BEGIN not in data and _END not in data:
        raise ValueError("contains no certificate in PEM format (-----BEGIN CERTIFICATE-----)")
    if len(blocks) != data.count(_BEGIN):
        raise ValueError("is corrupt: a certificate in it has no end line")
    if len(blocks) != data.count(_END):
        raise ValueError("is corrupt: a certificate in it has no begin line")
    return [_parse_certificate(block, number) for number, block in enumerate(blocks, start=1)]


def _parse_certificate(block: bytes, number: int) -> x509.Certificate:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(block)
    except ValueError as error:
        raise ValueError(f"is corrupt: certificate number {number} in it cannot be read") from error
