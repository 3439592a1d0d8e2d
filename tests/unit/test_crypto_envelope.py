"""Splitting CMS EnvelopedData into the ciphertext and the envelope without content (gir-api, section 7)."""

from __future__ import annotations

import base64
import io
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muxer.crypto import ber
from muxer.crypto.envelope import Encryptor, split_envelope
from muxer.errors import EncryptionError
from muxer.gir.rws import Certificate
from muxer.system.process import Runner

pytestmark = pytest.mark.servers  # needs ffmpeg or openssl

Recipient = tuple[rsa.RSAPrivateKey, str]


def create_certificate(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, serial: int) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"recipient {serial}")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(serial).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture(scope="module")
def recipients() -> list[Recipient]:
    keys = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
    return [(key, create_certificate(key, number)) for number, key in enumerate(keys, start=11)]


def unwrap_envelope(pem: str) -> cms.EnvelopedData:
    assert re.fullmatch(r"-----BEGIN PKCS7-----\n(?:[A-Za-z0-9+/=]{1,64}\n)+-----END PKCS7-----\n", pem)
    der = base64.b64decode("".join(pem.splitlines()[1:-1]))
    info = cms.ContentInfo.load(der, strict=True)
    assert info["content_type"].native == "enveloped_data"
    return info["content"]


def decrypt_for(pem: str, ciphertext: bytes, key: rsa.RSAPrivateKey, serial: int) -> bytes:
    enveloped = unwrap_envelope(pem)
    (wrapped,) = [
        recipient.chosen["encrypted_key"].native
        for recipient in enveloped["recipient_infos"]
        if recipient.chosen["rid"].chosen["serial_number"].native == serial
    ]
    algorithm = enveloped["encrypted_content_info"]["content_encryption_algorithm"]
    assert algorithm["algorithm"].native == "aes256_cbc"
    secret = key.decrypt(wrapped, padding.PKCS1v15())
    decryptor = Cipher(algorithms.AES(secret), modes.CBC(algorithm["parameters"].native)).decryptor()
    unpadder = PKCS7(128).unpadder()
    clear = unpadder.update(decryptor.update(ciphertext) + decryptor.finalize())
    return clear + unpadder.finalize()


def encrypt_by_openssl(clear: bytes, folder: Path, pems: list[str], *flags: str) -> bytes:
    (folder / "clear").write_bytes(clear)
    files = [folder / f"r{number}.pem" for number in range(len(pems))]
    for file, pem in zip(files, pems, strict=True):
        file.write_text(pem)
    command = ["openssl", "cms", "-encrypt", "-binary", "-aes-256-cbc", "-outform", "DER", "-in", folder / "clear"]
    return subprocess.run([*command, *flags, *files], capture_output=True, check=True).stdout  # type: ignore[list-item]


SIZES = [0, 1, 15, 16, 17, 8191, 300_000]


@pytest.mark.parametrize("flags", [(), ("-stream",)], ids=["der", "chunked"])
@pytest.mark.parametrize("size", SIZES)
def test_output_of_openssl_is_split_and_every_recipient_can_decrypt_it(
    tmp_path: Path, recipients: list[Recipient], size: int, flags: tuple[str, ...]
) -> None:
    clear = bytes(number % 251 for number in range(size))
    structure = encrypt_by_openssl(clear, tmp_path, [pem for _, pem in recipients], *flags)
    pem = split_envelope(io.BytesIO(structure), tmp_path / "out")
    for serial, (key, _) in enumerate(recipients, start=11):
        assert decrypt_for(pem, (tmp_path / "out").read_bytes(), key, serial) == clear


def test_the_envelope_holds_no_content(tmp_path: Path, recipients: list[Recipient]) -> None:
    structure = encrypt_by_openssl(b"x" * 100, tmp_path, [recipients[0][1]])
    info = unwrap_envelope(split_envelope(io.BytesIO(structure), tmp_path / "out"))["encrypted_content_info"]
    assert info["content_type"].native == "data"
    assert info["encrypted_content"].native is None


def test_only_this_account_can_read_the_ciphertext(tmp_path: Path, recipients: list[Recipient]) -> None:
    split_envelope(io.BytesIO(encrypt_by_openssl(b"x", tmp_path, [recipients[0][1]])), tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode & 0o077 == 0


def test_the_encryptor_encrypts_for_all_recipients(tmp_path: Path, recipients: list[Recipient]) -> None:
    clear = b"a frame of it" * 5000
    (tmp_path / "clear.mp4").write_bytes(clear)
    certificates = [Certificate(f"a{number}", pem.replace("\n", "\r\n")) for number, (_, pem) in enumerate(recipients)]
    pem = Encryptor("openssl", Runner()).encrypt_file(tmp_path / "clear.mp4", certificates, tmp_path / "out")
    ciphertext = (tmp_path / "out").read_bytes()
    assert len(ciphertext) == (len(clear) // 16 + 1) * 16
    for serial, (key, _) in enumerate(recipients, start=11):
        assert decrypt_for(pem, ciphertext, key, serial) == clear


def test_encryption_needs_a_recipient(tmp_path: Path) -> None:
    (tmp_path / "clear").write_bytes(b"x")
    with pytest.raises(EncryptionError):
        Encryptor("openssl", Runner()).encrypt_file(tmp_path / "clear", [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pem", ["no certificate", "", "elliptic"])
def test_an_unusable_certificate_is_reported_by_its_alias(tmp_path: Path, pem: str) -> None:
    (tmp_path / "clear").write_bytes(b"x")
    text = create_certificate(ec.generate_private_key(ec.SECP256R1()), 5) if pem == "elliptic" else pem
    with pytest.raises(EncryptionError, match="alias-7"):
        Encryptor("openssl", Runner()).encrypt_file(tmp_path / "clear", [Certificate("alias-7", text)], tmp_path / "out")


# Structures built by hand, in all forms that BER allows.


def indefinite_length(tag: int, *parts: bytes) -> bytes:
    return bytes((tag, 0x80)) + b"".join(parts) + b"\0\0"


def octet_strings(*pieces: bytes) -> list[bytes]:
    return [ber.encode_definite(ber.OCTET_STRING, piece) for piece in pieces]


VERSION = ber.encode_definite(ber.INTEGER, b"\0")
RECIPIENTS = ber.encode_definite(ber.SET, ber.encode_definite(ber.SEQUENCE, b"\x02\x01\x07"))
ALGORITHM = ber.encode_definite(
    ber.SEQUENCE, bytes.fromhex("0609608648016503040 12a".replace(" ", "")) + octet_strings(b"i" * 16)[0]
)
DATA, ENVELOPED, OTHER = (bytes.fromhex(f"06092a864886f70d01070{number}") for number in "132")


def enveloped_structure(  # type: ignore[no-untyped-def]
    content: bytes, *, wrap=ber.encode_definite, head: bytes = VERSION + RECIPIENTS, kind: bytes = ENVELOPED
) -> bytes:
    info = wrap(ber.SEQUENCE, DATA + ALGORITHM + content)
    return wrap(ber.SEQUENCE, kind + wrap(0xA0, wrap(ber.SEQUENCE, head + info)))


CIPHERTEXT = b"0123456789abcdef" * 40
HALVES = octet_strings(CIPHERTEXT[:300], CIPHERTEXT[300:])
CONTENTS = {
    "primitive": ber.encode_definite(0x80, CIPHERTEXT),
    "chunked, definite": ber.encode_definite(0xA0, b"".join(HALVES)),
    "chunked, indefinite": indefinite_length(0xA0, *HALVES),
    "with empty chunks": indefinite_length(0xA0, *octet_strings(b""), *HALVES, *octet_strings(b"")),
    "nested": indefinite_length(0xA0, indefinite_length(0x24, *HALVES[:1]), ber.encode_definite(0x24, HALVES[1])),
    "long form of the length": b"\x80\x84" + len(CIPHERTEXT).to_bytes(4, "big") + CIPHERTEXT,
}


@pytest.mark.parametrize("wrap", [ber.encode_definite, indefinite_length])
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_the_content_is_found_in_every_form_of_ber(tmp_path: Path, content: bytes, wrap) -> None:  # type: ignore[no-untyped-def]
    pem = split_envelope(io.BytesIO(enveloped_structure(content, wrap=wrap)), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CIPHERTEXT
    der = base64.b64decode("".join(pem.splitlines()[1:-1]))
    assert der == enveloped_structure(b"")


def test_an_originator_and_indefinite_recipients_are_kept(tmp_path: Path) -> None:
    head = (
        VERSION
        + ber.encode_definite(0xA0, b"\x30\x00")
        + indefinite_length(ber.SET, b"\x30\x00", indefinite_length(ber.SEQUENCE))
    )
    pem = split_envelope(io.BytesIO(enveloped_structure(CONTENTS["primitive"], head=head)), tmp_path / "out")
    assert head in base64.b64decode("".join(pem.splitlines()[1:-1]))


class SlowPipe(io.BytesIO):
    """Return one byte at a time, like a slow pipe."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(1, size) if size and size > 0 else size)


def test_a_stream_may_come_byte_by_byte(tmp_path: Path) -> None:
    split_envelope(SlowPipe(enveloped_structure(CONTENTS["nested"], wrap=indefinite_length)), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CIPHERTEXT


@pytest.mark.parametrize("wrap", [ber.encode_definite, indefinite_length], ids=["der", "indefinite"])
@pytest.mark.parametrize("content", [CONTENTS["primitive"], CONTENTS["nested"]], ids=["primitive", "nested"])
def test_a_structure_truncated_anywhere_is_an_encryption_error(tmp_path: Path, content: bytes, wrap) -> None:  # type: ignore[no-untyped-def]
    whole = enveloped_structure(content, wrap=wrap)
    accepted = []
    for length in range(len(whole)):
        try:
            split_envelope(io.BytesIO(whole[:length]), tmp_path / "out")
            accepted.append(len(whole) - length)
        except EncryptionError:
            pass
    assert accepted == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"-----BEGIN CMS-----",
        enveloped_structure(CONTENTS["primitive"], kind=OTHER),
        enveloped_structure(b""),
        enveloped_structure(ber.encode_definite(0xA0, ber.encode_definite(ber.INTEGER, b"1"))),
        enveloped_structure(b"\x80\x80" + CIPHERTEXT),
        b"\x30\x80" * 100_000,
        b"\x24\x80" * 100_000,
        enveloped_structure(b"\xa0\x80" + b"\x24\x80" * 5000),
        b"\x30" + b"\xff" * 200,
        b"\x30\x84\xff\xff\xff\xff" + ENVELOPED,
        enveloped_structure(b"\x80\x88" + b"\x7f" + b"\xff" * 7 + b"x"),
        enveloped_structure(b"\x80\x88" + b"\xff" * 8 + b"x"),
    ],
)
def test_anything_but_enveloped_data_with_content_is_an_encryption_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(EncryptionError):
        split_envelope(io.BytesIO(data), tmp_path / "out")


def test_a_chunk_longer_than_its_container_is_an_encryption_error(tmp_path: Path) -> None:
    short = b"\xa0\x04" + HALVES[0]
    with pytest.raises(EncryptionError):
        split_envelope(io.BytesIO(enveloped_structure(short)), tmp_path / "out")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 200), st.binary(min_size=1, max_size=12), st.booleans())
def test_damaged_input_gives_a_result_or_an_encryption_error(tmp_path: Path, at: int, damage: bytes, whole: bool) -> None:
    good = enveloped_structure(CONTENTS["nested"], wrap=indefinite_length)
    try:
        split_envelope(io.BytesIO(good[:at] + damage + (good[at + len(damage) :] if whole else b"")), tmp_path / "out")
    except EncryptionError as error:
        assert "CMS" in str(error)


@given(st.integers(0, 255), st.binary(max_size=70_000))
@settings(max_examples=50, deadline=None)
def test_a_definite_element_is_read_back_whole(tag: int, content: bytes) -> None:
    tag = tag & ~0x1F | 4
    element = ber.encode_definite(tag, content)
    reader = ber.BerReader(io.BytesIO(element + b"rest"))
    header = reader.read_header()
    assert (header.tag, header.length) == (tag, len(content))
    assert reader.read_element(header) == element
    assert reader.position == len(element)


def test_an_element_too_long_to_hold_in_memory_is_refused(tmp_path: Path) -> None:
    head = VERSION + b"\x31\x84\x7f\xff\xff\xff"
    with pytest.raises(EncryptionError, match="too long"):
        split_envelope(io.BytesIO(enveloped_structure(b"", head=head)), tmp_path / "out")
