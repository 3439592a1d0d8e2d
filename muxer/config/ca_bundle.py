"""Checks of certificate files at start, so that a wrong file is reported by its name and not by a failing request.

``cryptography`` is imported at the first certificate: its loading takes time at the start.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
_BLOCK = re.compile(_BEGIN + rb".*?" + _END, re.DOTALL)


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Given the path of a PEM bundle, return its certificates in the order of the file.

    Raise ``ValueError`` when the file is missing, holds no certificate, or one of them cannot be read (the guide: the
    muxer exits at start when the path does not exist, is no PEM file, or is corrupted).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise ValueError(f"must be true, false or the path of a PEM file ({reason})") from error
    blocks = _BLOCK.findall(data)
    if not data.strip():
        raise ValueError("is an empty file; it must hold certificates in PEM form")
    if _BEGIN not in data and _END not in data:
        raise ValueError("holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
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
