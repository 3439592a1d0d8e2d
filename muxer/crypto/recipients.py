"""Who can decrypt an envelope, and whom a certificate is for: issuer and serial number, as both contain them (RFC 5652)."""

from __future__ import annotations

import base64
import io
import re

from muxer.crypto import ber
from muxer.errors import Code, EncryptionError

_PEM_BODY = re.compile(r"-----BEGIN [A-Z0-9 ]+-----(.*?)-----END [A-Z0-9 ]+-----", re.DOTALL)
_CONTEXT_0 = 0xA0

Recipient = bytes


def envelope_recipients(pem: str) -> frozenset[Recipient]:
    """Return the recipients of a PEM envelope. Raises EncryptionError when it cannot be read."""
    try:
        return frozenset(_read_envelope(_open_pem(pem)))
    except ValueError as error:  # From BER, or from Base64.
        raise EncryptionError(f"the envelope cannot be read: {error}") from error


def certificate_recipient(pem: str) -> Recipient:
    """Return the recipient that a PEM certificate names. Raises EncryptionError when it cannot be read."""
    try:
        reader = _open_pem(pem)
        reader.expect_header(ber.SEQUENCE, "Certificate")
        reader.expect_header(ber.SEQUENCE, "tbsCertificate")
        element = reader.read_header()
        if element.tag == _CONTEXT_0:  # version
            reader.read_element(element)
            element = reader.read_header()
        serial = reader.read_element(element)
        reader.read_element(reader.expect_header(ber.SEQUENCE, "signature"))
        return reader.read_element(reader.expect_header(ber.SEQUENCE, "issuer")) + serial
    except ValueError as error:
        raise EncryptionError("an encryption certificate of RWS cannot be read", code=Code.BAD_CERTIFICATE) from error


def _open_pem(pem: str) -> ber.BerReader:
    found = _PEM_BODY.search(pem)
    if found is None:
        raise ber.BerError("it is not PEM")
    return ber.BerReader(io.BytesIO(base64.b64decode("".join(found[1].split()), validate=True)))


def _read_envelope(reader: ber.BerReader) -> list[Recipient]:
    reader.expect_header(ber.SEQUENCE, "ContentInfo")
    reader.read_element(reader.expect_header(ber.OBJECT_IDENTIFIER, "contentType"))
    reader.expect_header(_CONTEXT_0, "content")
    reader.expect_header(ber.SEQUENCE, "EnvelopedData")
    reader.read_element(reader.expect_header(ber.INTEGER, "version"))
    element = reader.read_header()
    if element.tag == _CONTEXT_0:  # originatorInfo
        reader.read_element(element)
        element = reader.read_header()
    if element.tag != ber.SET:
        raise ber.BerError("it has no list of recipients")
    end, found = reader.content_end(element), []
    while end is None or reader.position < end:
        info = reader.read_header()
        if info.tag == ber.END_OF_CONTENTS:
            break
        found.append(_read_recipient(ber.BerReader(io.BytesIO(reader.read_element(info)))))
    return found


def _read_recipient(info: ber.BerReader) -> Recipient:
    """Return issuer and serial number of a KeyTransRecipientInfo, or its whole identifier when it has another form."""
    info.expect_header(ber.SEQUENCE, "KeyTransRecipientInfo")
    info.read_element(info.expect_header(ber.INTEGER, "version"))
    identifier = info.read_header()
    if identifier.tag != ber.SEQUENCE:
        return info.read_element(identifier)
    issuer = info.read_element(info.expect_header(ber.SEQUENCE, "issuer"))
    return issuer + info.read_element(info.expect_header(ber.INTEGER, "serialNumber"))
