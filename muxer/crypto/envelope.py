"""Encrypts a muxed file so that RCS can play it: bare AES ciphertext as the file, the envelope without content as PEM.

``openssl cms`` writes CMS EnvelopedData (RFC 5652), which is split as it is read (gir-api, section 7).
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from muxer.crypto import ber
from muxer.errors import Code, EncryptionError
from muxer.gir.rws import Certificate
from muxer.net.transfer import time_limit
from muxer.system.files import open_private
from muxer.system.process import Runner

_AES_BLOCK = 16
_CONTENT_TAG = 0xA0
_EXPLICIT_TAG = 0xA0
_ENVELOPED_DATA = bytes.fromhex("06092a864886f70d010703")


class Encryptor:
    """Encrypts files for recipients with the openssl executable."""

    def __init__(self, openssl: str, runner: Runner) -> None:
        self._openssl = openssl
        self._runner = runner

    def encrypt_file(self, clear: Path, recipients: Sequence[Certificate], ciphertext: Path) -> str:
        """Encrypt `clear` to the bare `ciphertext`; return the envelope (PEM ``PKCS7``). Raises EncryptionError."""
        if not recipients:
            raise EncryptionError("there is no certificate to encrypt for")
        size = clear.stat().st_size
        files = [_write_certificate(one, clear.parent, number) for number, one in enumerate(recipients)]
        command = self.build_command(clear, files)
        pem = self._runner.run_streaming(command, lambda out: split_envelope(out, ciphertext), timeout=time_limit(size))
        expected = (size // _AES_BLOCK + 1) * _AES_BLOCK
        if ciphertext.stat().st_size != expected:
            raise EncryptionError(f"the ciphertext has {ciphertext.stat().st_size} bytes instead of {expected}")
        return pem

    def build_command(self, clear: Path, recipients: Sequence[Path]) -> list[str]:
        """Return the openssl command; `recipients` are the files with the certificates."""
        command = [self._openssl, "cms", "-encrypt", "-binary", "-stream", "-aes-256-cbc"]
        return [*command, "-outform", "DER", "-in", str(clear), *map(str, recipients)]


def recipient_file(folder: Path, number: int) -> Path:
    """Return the path of the certificate of a recipient for openssl."""
    return folder / f"recipient-{number}.pem"


def split_envelope(stream: IO[bytes] | ber.ByteSource, ciphertext: Path) -> str:
    """Write the content of an EnvelopedData `stream` (BER or DER); return the rest as PEM. Raises EncryptionError."""
    try:
        return _to_pem(_split_content(ber.BerReader(stream), ciphertext))
    except ber.BerError as error:
        raise EncryptionError(f"openssl returned no usable CMS structure: {error}") from error


def _split_content(reader: ber.BerReader, ciphertext: Path) -> bytes:
    """Walk through ContentInfo { contentType, [0] EnvelopedData { …, EncryptedContentInfo { …, [0] content } … } }."""
    ends = [reader.content_end(reader.expect_header(ber.SEQUENCE, "ContentInfo"))]
    content_type = reader.read_element(reader.expect_header(ber.OBJECT_IDENTIFIER, "contentType"))
    if content_type != _ENVELOPED_DATA:
        raise ber.BerError("the content is not EnvelopedData")
    ends.append(reader.content_end(reader.expect_header(_EXPLICIT_TAG, "content")))
    ends.append(reader.content_end(reader.expect_header(ber.SEQUENCE, "EnvelopedData")))
    head = reader.read_element(reader.expect_header(ber.INTEGER, "version"))
    element = reader.read_header()
    while element.tag != ber.SEQUENCE:  # originatorInfo [0] OPTIONAL, recipientInfos SET
        if element.tag not in (0xA0, ber.SET):
            raise ber.BerError(f"an element with tag 0x{element.tag:02x} before the encrypted content")
        head += reader.read_element(element)
        element = reader.read_header()
    ends.append(reader.content_end(element))
    info = reader.read_element(reader.expect_header(ber.OBJECT_IDENTIFIER, "type of the encrypted content"))
    info += reader.read_element(reader.expect_header(ber.SEQUENCE, "contentEncryptionAlgorithm"))
    content = reader.read_header()
    if content.tag & ~ber.CONSTRUCTED != _CONTENT_TAG & ~ber.CONSTRUCTED:
        raise ber.BerError("the structure contains no encrypted content")
    with open_private(ciphertext) as file:
        for piece in reader.iterate_octets(content):
            file.write(piece)
    for end in reversed(ends):
        reader.skip_to(end)
    enveloped = ber.encode_definite(ber.SEQUENCE, head + ber.encode_definite(ber.SEQUENCE, info))
    return ber.encode_definite(ber.SEQUENCE, content_type + ber.encode_definite(_EXPLICIT_TAG, enveloped))


def _to_pem(der: bytes) -> str:
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join(["-----BEGIN PKCS7-----", *lines, "-----END PKCS7-----", ""])


def _write_certificate(certificate: Certificate, folder: Path, number: int) -> Path:
    """Check the certificate of a recipient, write it for openssl, and return its path."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    name = certificate.alias or f"number {number + 1}"
    try:
        parsed = x509.load_pem_x509_certificate(certificate.pem.encode())
        key = parsed.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise EncryptionError(
            f"the encryption certificate {name} of RWS cannot be read", code=Code.BAD_CERTIFICATE
        ) from error
    if not isinstance(key, RSAPublicKey):
        raise EncryptionError(f"the encryption certificate {name} of RWS contains no RSA key", code=Code.BAD_CERTIFICATE)
    path = recipient_file(folder, number)
    with open_private(path) as file:
        file.write(certificate.pem.replace("\r\n", "\n").encode())
    return path
