"""Encryption with the real openssl: the format that RCS plays, readable by every recipient."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lab.keys import load_recipients
from muxer.crypto.envelope import Encryptor
from muxer.errors import EncryptionError, MuxerError, ToolError
from muxer.gir.rws import Certificate
from muxer.system.process import Runner

OPENSSL = shutil.which("openssl") or "openssl"
SIZES = [0, 1, 15, 16, 17, 4096, 70_000, 3_000_000]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    return load_recipients(tmp_path_factory.mktemp("keys"), 3)


def decrypt_file(pem: str, cipher: Path, reader, folder: Path) -> bytes:  # type: ignore[no-untyped-def]
    envelope = folder / "envelope.pem"
    envelope.write_text(pem)
    command = [OPENSSL, "cms", "-decrypt", "-binary", "-inform", "PEM", "-in", envelope, "-content", cipher]
    command += ["-recip", reader.certificate_file, "-inkey", reader.key_file]
    return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.mark.parametrize("size", SIZES)
def test_every_recipient_reads_the_exact_bytes(keys: tuple, tmp_path: Path, size: int) -> None:
    clear, cipher = tmp_path / "clear.mp4", tmp_path / "clear.mp4.bin"
    content = (b"\r\n\0media\n" * (size // 9 + 1))[:size]
    clear.write_bytes(content)
    pem = Encryptor(OPENSSL, Runner()).encrypt_file(clear, [Certificate(key.alias, key.pem) for key in keys], cipher)
    assert cipher.stat().st_size == (size // 16 + 1) * 16
    assert all(decrypt_file(pem, cipher, reader, tmp_path) == content for reader in keys)


def test_format_is_that_of_call_recordings(keys: tuple, tmp_path: Path) -> None:
    clear, cipher = tmp_path / "clear.mp4", tmp_path / "clear.mp4.bin"
    clear.write_bytes(b"media" * 1000)
    pem = Encryptor(OPENSSL, Runner()).encrypt_file(clear, [Certificate(key.alias, key.pem) for key in keys], cipher)
    lines = pem.splitlines()
    assert (lines[0], lines[-1]) == ("-----BEGIN PKCS7-----", "-----END PKCS7-----")
    assert max(map(len, lines)) == 64
    dump = subprocess.run(
        [OPENSSL, "cms", "-cmsout", "-print", "-noout", "-inform", "PEM"],
        input=pem,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "pkcs7-envelopedData" in dump and "aes-256-cbc" in dump and "encryptedContent: <ABSENT>" in dump
    assert dump.count("issuerAndSerialNumber") == 3 and dump.count("rsaEncryption") == 3
    assert b"media" not in cipher.read_bytes()
    assert cipher.stat().st_mode & 0o077 == 0


def test_other_key_cannot_decrypt(keys: tuple, tmp_path: Path) -> None:
    clear, cipher = tmp_path / "clear.mp4", tmp_path / "cipher"
    clear.write_bytes(b"media")
    pem = Encryptor(OPENSSL, Runner()).encrypt_file(clear, [Certificate("a", keys[0].pem)], cipher)
    with pytest.raises(subprocess.CalledProcessError):
        decrypt_file(pem, cipher, keys[1], tmp_path)


def test_a_certificate_with_windows_line_ends_is_read(keys: tuple, tmp_path: Path) -> None:
    clear, cipher = tmp_path / "clear.mp4", tmp_path / "cipher"
    clear.write_bytes(b"media")
    windows = keys[0].pem.replace("\r\n", "\n").replace("\n", "\r\n")
    pem = Encryptor(OPENSSL, Runner()).encrypt_file(clear, [Certificate("a", windows)], cipher)
    assert decrypt_file(pem, cipher, keys[0], tmp_path) == b"media"


@pytest.mark.parametrize("pem", ["", "rubbish", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_an_unreadable_certificate_is_named(tmp_path: Path, pem: str) -> None:
    (tmp_path / "clear").write_bytes(b"media")
    with pytest.raises(EncryptionError, match="alias-7"):
        Encryptor(OPENSSL, Runner()).encrypt_file(tmp_path / "clear", [Certificate("alias-7", pem)], tmp_path / "cipher")


def test_nothing_is_created_without_a_certificate(tmp_path: Path) -> None:
    (tmp_path / "clear").write_bytes(b"media")
    with pytest.raises(EncryptionError):
        Encryptor(OPENSSL, Runner()).encrypt_file(tmp_path / "clear", [], tmp_path / "cipher")
    assert not (tmp_path / "cipher").exists()


def test_openssl_error_is_reported(keys: tuple, tmp_path: Path) -> None:
    failing = tmp_path / "openssl"
    failing.write_text("#!/bin/sh\necho 'the engine is on fire' >&2\nexit 3\n")
    failing.chmod(0o755)
    (tmp_path / "clear").write_bytes(b"media")
    with pytest.raises(ToolError, match="on fire"):
        Encryptor(str(failing), Runner()).encrypt_file(
            tmp_path / "clear", [Certificate("a", keys[0].pem)], tmp_path / "cipher"
        )


def test_ciphertext_of_wrong_length_is_detected(keys: tuple, tmp_path: Path) -> None:
    shortened = tmp_path / "openssl"
    command = f"{OPENSSL} cms -encrypt -binary -stream -aes-256-cbc -outform DER -in /dev/null"
    shortened.write_text(f'#!/bin/sh\nexec {command} "{keys[0].certificate_file}"\n')
    shortened.chmod(0o755)
    (tmp_path / "clear").write_bytes(b"media" * 100)
    with pytest.raises(MuxerError, match="bytes"):
        Encryptor(str(shortened), Runner()).encrypt_file(
            tmp_path / "clear", [Certificate("a", keys[0].pem)], tmp_path / "cipher"
        )
