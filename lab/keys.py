"""Certificates of the lab, and encrypted media in the form of gir-api 3 and 7.

That is raw AES-CBC plus a PKCS7 envelope, created with cryptography and asn1crypto: independent of the product, which
encrypts with the openssl executable.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from lab.errors import LabError, import_needed

CHUNK_BYTES = 1 << 16
BLOCK_BYTES = 16


@dataclass(frozen=True)
class Recipient:
    """A recipient of encrypted media: the alias in the settings, PEM with CRLF, and both files on disk."""

    alias: str
    pem: str
    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    certificate_file: Path
    key_file: Path


def load_recipients(folder: Path, count: int = 2) -> tuple[Recipient, ...]:
    """Return `count` recipients whose keys (RSA-2048) are in `folder`; missing ones are created."""
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(_load_recipient(folder, index) for index in range(1, count + 1))


def _load_recipient(folder: Path, index: int) -> Recipient:
    certificate_file, key_file = folder / f"recipient-{index}.crt.pem", folder / f"recipient-{index}.key.pem"
    if not (certificate_file.exists() and key_file.exists()):
        _create_key_pair(certificate_file, key_file, f"Recording Lab {index}")
    certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    # The check takes longer than everything else here; the lab's own keys do not need it.
    key = serialization.load_pem_private_key(key_file.read_bytes(), None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise LabError(f"{key_file} is not an RSA key")
    issuer = certificate.issuer.rfc4514_string()
    alias = f"rcs_lab:{index}:{issuer}:{certificate.serial_number}"
    pem = certificate_file.read_text().replace("\n", "\r\n")
    return Recipient(alias, pem, certificate, key, certificate_file, key_file)


def _create_key_pair(certificate_file: Path, key_file: Path, name: str) -> None:
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=3650))
    certificate_file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def encrypt_media(clear: Path, stored: Path, recipients: Sequence[Recipient]) -> str:
    """Encrypt a file to `stored` as raw AES-256-CBC. Returns the envelope as PEM `PKCS7`."""
    key, vector = secrets.token_bytes(32), secrets.token_bytes(BLOCK_BYTES)
    cipher = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
    padder = padding.PKCS7(BLOCK_BYTES * 8).padder()
    with clear.open("rb") as source, stored.open("wb") as target:
        while chunk := source.read(CHUNK_BYTES):
            target.write(cipher.update(padder.update(chunk)))
        target.write(cipher.update(padder.finalize()) + cipher.finalize())
    return _create_envelope(key, vector, recipients)


def _create_envelope(key: bytes, vector: bytes, recipients: Sequence[Recipient]) -> str:
    cms, pem = import_needed("asn1crypto.cms"), import_needed("asn1crypto.pem")
    content = {
        "content_type": "data",
        "content_encryption_algorithm": {"algorithm": "aes256_cbc", "parameters": vector},
    }
    infos = [_recipient_info(key, recipient) for recipient in recipients]
    enveloped = {"version": "v0", "recipient_infos": infos, "encrypted_content_info": content}
    der = cms.ContentInfo({"content_type": "enveloped_data", "content": cms.EnvelopedData(enveloped)}).dump()
    armored: bytes = pem.armor("PKCS7", der)
    return armored.decode()


def _recipient_info(key: bytes, recipient: Recipient) -> Any:
    cms, x509_asn1 = import_needed("asn1crypto.cms"), import_needed("asn1crypto.x509")
    certificate = x509_asn1.Certificate.load(recipient.certificate.public_bytes(serialization.Encoding.DER))
    identifier = {"issuer": certificate.issuer, "serial_number": certificate.serial_number}
    info = {
        "version": "v0",
        "rid": cms.RecipientIdentifier("issuer_and_serial_number", identifier),
        "key_encryption_algorithm": {"algorithm": "rsaes_pkcs1v15"},
        "encrypted_key": recipient.key.public_key().encrypt(key, rsa_padding.PKCS1v15()),
    }
    return cms.RecipientInfo("ktri", info)


@dataclass(frozen=True)
class OpenedEnvelope:
    """An opened envelope: the media key and the initialization vector."""

    key: bytes
    vector: bytes

    def clear_size(self, stored: Path) -> int:
        """Return the length of the decrypted media, by the padding in the last block. Raises LabError if it is broken."""
        size = stored.stat().st_size
        if size < BLOCK_BYTES or size % BLOCK_BYTES:
            raise LabError("the length of the ciphertext is not a multiple of the block size")
        with stored.open("rb") as file:
            file.seek(max(0, size - 2 * BLOCK_BYTES))
            tail = file.read()
        vector = tail[:BLOCK_BYTES] if len(tail) > BLOCK_BYTES else self.vector
        last = Cipher(algorithms.AES(self.key), modes.CBC(vector)).decryptor().update(tail[-BLOCK_BYTES:])
        if not 1 <= last[-1] <= BLOCK_BYTES:
            raise LabError("the padding of the ciphertext is broken")
        return size - last[-1]

    def decrypt_chunks(self, stored: Path) -> Iterator[bytes]:
        """Yield the clear media in pieces."""
        left = self.clear_size(stored)
        cipher = Cipher(algorithms.AES(self.key), modes.CBC(self.vector)).decryptor()
        with stored.open("rb") as file:
            while piece := cipher.update(file.read(CHUNK_BYTES))[:left]:
                left -= len(piece)
                yield piece


def open_envelope(pkcs7: str, readers: Sequence[Recipient]) -> OpenedEnvelope:
    """Given a PEM envelope and recipients, open it with the first key that fits. Raise LabError if none does."""
    cms, pem = import_needed("asn1crypto.cms"), import_needed("asn1crypto.pem")
    try:
        enveloped = cms.ContentInfo.load(pem.unarmor(pkcs7.encode())[2])["content"]
        algorithm = enveloped["encrypted_content_info"]["content_encryption_algorithm"]
        key = _media_key(enveloped["recipient_infos"], readers)
        return OpenedEnvelope(key, algorithm["parameters"].native)
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"the envelope cannot be read: {error}") from error


def _media_key(infos: Any, readers: Sequence[Recipient]) -> bytes:
    by_serial = {reader.certificate.serial_number: reader for reader in readers}
    for info in infos:
        reader = by_serial.get(info.chosen["rid"].chosen["serial_number"].native)
        if reader:
            return reader.key.decrypt(info.chosen["encrypted_key"].native, rsa_padding.PKCS1v15())
    raise LabError("the envelope is for none of the lab's keys")
