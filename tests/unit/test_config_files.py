"""The sample file and the option reference match the schema; certificate bundles are checked at the start."""

from __future__ import annotations

import configparser
import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from muxer.config import load_config
from muxer.config.ca_bundle import read_certificates
from muxer.config.reference import render_reference, render_sample
from muxer.config.schema import all_options
from muxer.config.types import parse_trusted_ca

ROOT = Path(__file__).resolve().parents[2]


def test_the_sample_file_matches_the_schema() -> None:
    assert (ROOT / "muxer.cfg.sample").read_text(encoding="utf-8") == render_sample()


def test_the_option_reference_matches_the_schema() -> None:
    assert (ROOT / "docs" / "options.md").read_text(encoding="utf-8") == render_reference()


def test_the_sample_lists_every_option_with_its_default() -> None:
    parser = configparser.RawConfigParser()
    parser.read(ROOT / "muxer.cfg.sample", encoding="utf-8")
    listed = {(section, name): value for section in parser.sections() for name, value in parser.items(section)}
    assert listed == {(section, name): option.default for section, name, option in all_options()}


def test_each_option_of_the_sample_has_one_line_of_comment() -> None:
    lines = (ROOT / "muxer.cfg.sample").read_text(encoding="utf-8").splitlines()
    for above, line in pairwise(lines):
        if re.match(r"\w+ =", line):
            assert re.match(r"# \S", above), line


def test_the_reference_names_every_option_alias_and_variable() -> None:
    text = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## \[(\w+)\]\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    for section, name, option in all_options():
        for word in (f"`{name}`", *(f"`{alias}`" for alias in option.aliases), option.env or ""):
            assert word in sections[section]


def test_the_sample_is_valid_once_the_required_options_are_set(tmp_path: Path) -> None:
    text = render_sample().replace("base_uri =\n", "base_uri = https://rws\n", 1)
    text = text.replace("contact_center_id =\n", "contact_center_id = cc\n")
    path = tmp_path / "muxer.cfg"
    path.write_text(text, encoding="utf-8")
    warnings = load_config(path, {}, {}).warnings
    assert [warning for warning in warnings if "trusted_ca" not in warning] == []


def make_pem(name: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def bundle() -> bytes:
    return b"# first\n" + make_pem("one") + b"text between\n" + make_pem("two").replace(b"\n", b"\r\n")


def test_a_bundle_is_read_in_the_order_of_the_file(tmp_path: Path, bundle: bytes) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(bundle)
    assert [certificate.subject.rfc4514_string() for certificate in read_certificates(path)] == ["CN=one", "CN=two"]
    assert parse_trusted_ca(str(path)) == path


def test_true_and_false_are_flags_in_any_case() -> None:
    assert [parse_trusted_ca(text) for text in ("true", "TRUE", "false", "False")] == [True, True, False, False]


def test_a_missing_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file"):
        parse_trusted_ca(str(tmp_path / "none.pem"))


def test_a_folder_is_not_accepted_as_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="PEM"):
        parse_trusted_ca(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b" \n", b"no certificate", b"-----BEGIN RSA KEY-----\n-----END RSA KEY-----\n"])
def test_a_file_without_a_certificate_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="PEM"):
        read_certificates(path)


def test_a_bundle_whose_last_certificate_is_truncated_is_corrupt(tmp_path: Path, bundle: bytes) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(bundle[:-40])
    with pytest.raises(ValueError, match="corrupt"):
        read_certificates(path)


def test_a_file_whose_only_certificate_is_truncated_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\nMIIB")
    with pytest.raises(ValueError, match="no end line"):
        read_certificates(path)


def test_a_bundle_with_one_damaged_certificate_is_corrupt(tmp_path: Path, bundle: bytes) -> None:
    path = tmp_path / "ca.pem"
    at = bundle.rindex(b"BEGIN CERTIFICATE") + 60
    path.write_bytes(bundle[:at] + b"AAAAAAAA" + bundle[at + 8 :])
    with pytest.raises(ValueError, match="number 2"):
        read_certificates(path)
