"""What certificates say: whose they are, and how long they last. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from muxer.checks.checklist import Finding, failed_finding, passed_finding, warning_finding

if TYPE_CHECKING:
    from cryptography import x509

MIN_VALID_DAYS = 30


def parse_der(der: bytes) -> x509.Certificate:
    """Given a certificate in DER, return it. Raise ``ValueError`` when it is none."""
    from cryptography import x509

    return x509.load_der_x509_certificate(der)


def parse_pem(text: str) -> x509.Certificate:
    """Given a certificate in PEM, return it. Raise ``ValueError`` when it is none."""
    from cryptography import x509

    return x509.load_pem_x509_certificate(text.encode())


def check_expiry(check: str, certificate: x509.Certificate, now: datetime, *, matters: bool = True) -> Finding:
    """Given a certificate and the time, return how long it lasts; ``matters``: nothing works with one that has expired."""
    ends, begins = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    days = (ends - now).days
    text = f"{subject_text(certificate)}, valid until {ends:%Y-%m-%d}"
    if now >= ends:
        bad = failed_finding if matters else warning_finding
        return bad(check, f"{text}: expired {-days} days ago", "renew it" if matters else "renew it; it is not checked here")
    if now < begins:
        return warning_finding(check, f"{text}: valid only from {begins:%Y-%m-%d} on", "look at the clock of this machine")
    if days < MIN_VALID_DAYS:
        return warning_finding(check, f"{text}: {days} days left", "renew it in time")
    return passed_finding(check, f"{text}: {days} days left")


def subject_text(certificate: x509.Certificate) -> str:
    """Return whose certificate it is, in a few words."""
    return _common_name(certificate.subject)


def issuer_text(certificate: x509.Certificate) -> str:
    """Return who issued it, in a few words."""
    return "itself" if certificate.issuer == certificate.subject else _common_name(certificate.issuer)


def server_names(certificate: x509.Certificate) -> str:
    """Return the names and addresses that a server may have with it."""
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return subject_text(certificate)
    return ", ".join(str(one.value) for one in found)


def _common_name(name: x509.Name) -> str:
    from cryptography.x509.oid import NameOID

    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string() or "without a name"


def utc_now() -> datetime:
    """Return the time of now, in UTC."""
    return datetime.now(UTC)
