"""Reads certificates: subject, issuer and expiry. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from muxer.checks.checklist import Finding, failed_finding, passed_finding, warning_finding

if TYPE_CHECKING:
    from cryptography import x509

MIN_VALID_DAYS = 30
_NOT_CHECKED = "renew it; it is not checked here"


def parse_der(der: bytes) -> x509.Certificate:
    """Parse a certificate in DER. Raises ValueError when it is malformed."""
    from cryptography import x509

    return x509.load_der_x509_certificate(der)


def parse_pem(text: str) -> x509.Certificate:
    """Parse a certificate in PEM. Raises ValueError when it is malformed."""
    from cryptography import x509

    return x509.load_pem_x509_certificate(text.encode())


def check_expiry(
    check: str, certificate: x509.Certificate, now: datetime, *, matters: bool = True, unused: str = _NOT_CHECKED
) -> Finding:
    """Return the finding on the expiry of a certificate. With `matters`, an expired one is a failure, else a warning.

    `unused` is the advice on one that does not matter.
    """
    ends, begins = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    days = (ends - now).days
    text = f"{subject_text(certificate)}, valid until {ends:%Y-%m-%d}"
    if now >= ends:
        finding, advice = (failed_finding, "renew it") if matters else (warning_finding, unused)
        return finding(check, f"{text}: expired {-days} days ago", advice)
    if now < begins:
        return warning_finding(check, f"{text}: valid only from {begins:%Y-%m-%d} on", "check the clock of this machine")
    if days < MIN_VALID_DAYS:
        return warning_finding(check, f"{text}: {days} days left", "renew it in time")
    return passed_finding(check, f"{text}: {days} days left")


def subject_text(certificate: x509.Certificate) -> str:
    """Return the name of the subject."""
    return _common_name(certificate.subject)


def issuer_text(certificate: x509.Certificate) -> str:
    """Return the name of the issuer."""
    return "itself" if certificate.issuer == certificate.subject else _common_name(certificate.issuer)


def server_names(certificate: x509.Certificate) -> str:
    """Return the names and addresses for which a server certificate is valid."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return subject_text(certificate)
    return ", ".join(str(name.value) for name in names)


def _common_name(name: x509.Name) -> str:
    from cryptography.x509.oid import NameOID

    common = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common[0].value) if common else name.rfc4514_string() or "without a name"


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)
