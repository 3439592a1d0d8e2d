"""Checks the port of ``[monitoring]``: other machines may reach it only with https and a password."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muxer.config.ca_bundle import read_certificates
from muxer.errors import Problem
from muxer.system.masking import mask_credentials

if TYPE_CHECKING:
    import ssl

REQUIRED_OPTIONS = ("username", "password", "certificate", "key")


@dataclass(frozen=True)
class ListenAddress:
    """A numeric address to listen on; `loopback` is True when only this machine can reach it."""

    address: str
    loopback: bool


def resolve_address(address: str) -> ListenAddress:
    """Resolve a numeric address or a name; loopback names need no look-up. Raises ValueError when it is unknown."""
    if address.lower().rstrip(".") in ("localhost", "ip6-localhost"):
        return ListenAddress("127.0.0.1", True)
    try:
        addresses = [ip_address(address.strip("[]"))]
    except ValueError:
        addresses = _lookup_addresses(address)
    return ListenAddress(str(addresses[0]), all(map(_is_loopback, addresses)))


def find_contradictions(monitoring: Mapping[str, Any]) -> list[Problem]:
    """Return the contradictions in ``[monitoring]``. `monitoring` holds the valid options."""
    if not monitoring.get("http_port"):
        return []
    return [*_incomplete_pairs(monitoring), *_exposure_problems(monitoring), *_key_problems(monitoring)]


def certificate_warnings(certificate: Path | None) -> list[str]:
    """Return a warning when the certificate of the port has expired."""
    if certificate is None or (end := read_certificates(certificate)[0].not_valid_after_utc) > datetime.now(UTC):
        return []
    return [f"[monitoring] certificate: it expired on {end:%Y-%m-%d}; clients that check it will refuse it"]


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the TLS context of a server. Raises OSError when `certificate` or `key` cannot be used."""
    import ssl  # here: its loading takes time at the start

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A key with a password must not ask for it on a terminal.
    context.load_cert_chain(certificate, key, password=lambda: b"")
    return context


def _incomplete_pairs(monitoring: Mapping[str, Any]) -> list[Problem]:
    problems = []
    for one, other in (("username", "password"), ("password", "username"), ("certificate", "key"), ("key", "certificate")):
        if monitoring.get(one) and other in monitoring and not monitoring[other]:
            problems.append(Problem(f"[monitoring] {other}", f"is required, because {one} is set"))
    return problems


def _exposure_problems(monitoring: Mapping[str, Any]) -> list[Problem]:
    address = monitoring.get("http_address", "")
    where = f"[monitoring] http_address = '{mask_credentials(address)}'"
    try:
        listening = resolve_address(address)
    except ValueError as error:
        # The name server cannot be reached yet, for example while the machine starts.
        temporary = isinstance(error.__cause__, socket.gaierror) and error.__cause__.errno == socket.EAI_AGAIN
        return [Problem(where, str(error), temporary=temporary)]
    missing = [name for name in REQUIRED_OPTIONS if name in monitoring and not monitoring[name]]
    if listening.loopback or not missing:
        return []
    what = "other machines can reach it, which requires https and a password: set " + ", ".join(missing)
    return [Problem(where, f"{what} in [monitoring], or use 127.0.0.1")]


def _key_problems(monitoring: Mapping[str, Any]) -> list[Problem]:
    certificate, key = monitoring.get("certificate"), monitoring.get("key")
    if not (certificate and key):
        return []
    try:
        server_context(certificate, key)
    except (OSError, ValueError) as error:
        mismatch = "KEY_VALUES_MISMATCH" in str(error)
        what = "is not the key of [monitoring] certificate" if mismatch else f"cannot be used with the certificate: {error}"
        return [Problem(f"[monitoring] key = '{key}'", what)]
    return []


def _lookup_addresses(name: str) -> list[IPv4Address | IPv6Address]:
    try:
        entries = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"must be an address of this machine, or the name of one ({error})") from error
    return [ip_address(str(entry[4][0]).partition("%")[0]) for entry in entries]


def _is_loopback(address: IPv4Address | IPv6Address) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
