"""What to do about an error that a check has met. Pure."""

from __future__ import annotations

import socket
import ssl

from muxer.config.schema import all_options
from muxer.errors import (
    AccessDenied,
    AuthenticationFailed,
    ConfigError,
    EncryptionMissing,
    FolderMissing,
    Forbidden,
    NotFound,
    PathForbidden,
    ServiceFailed,
    ServiceUnavailable,
    UnreadableResponse,
)

# What OpenSSL says of a certificate: X509_V_ERR_…
_NOT_YET_VALID, _EXPIRED = 9, 10
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)
_NAME_MISMATCH = (62, 64)

_SERVICE_NAMES = {"htcc": "RWS", "rcs": "RCS", "webdav": "the WebDAV server", "s3": "the S3 store", "fleet": "RabbitMQ"}
_ADDRESS_OPTIONS = {
    "htcc": "[htcc] base_uri",
    "rcs": "[rcs] base_uri",
    "s3": "[s3] endpoint_url",
    "fleet": "[fleet] broker_url",
}


def advice_for(error: Exception, section: str) -> str:
    """Given an error and the section of muxer.cfg that it is about, return what the administrator can do."""
    service = _SERVICE_NAMES.get(section, "the service")
    if isinstance(error, ConfigError):
        return "correct it in muxer.cfg"
    if isinstance(error, AuthenticationFailed):
        return f"correct {_credential_options(section)}; after a change of the password on the server, change it here too"
    if isinstance(error, PathForbidden):
        return f"give the account of [{section}] the right to read and write that folder on the server"
    if isinstance(error, Forbidden):
        return f"give the account of [{section}] the permission for this in {service}"
    if isinstance(error, AccessDenied | EncryptionMissing | FolderMissing):
        return "do what the text says, then check again"
    if isinstance(error, NotFound):
        return f"correct {address_option(section)}: something answers there, but not with what is asked for"
    if isinstance(error, UnreadableResponse):
        return (
            f"correct {address_option(section)}: what answers there is not {service}, perhaps a proxy or another web server"
        )
    if isinstance(error, ServiceFailed):
        return f"{service} met an error of its own: look into its log"
    if isinstance(error, ServiceUnavailable):
        return f"see whether {service} runs and is reachable from this machine; then {address_option(section)}"
    return "see docs/log-messages.md"


def address_option(section: str) -> str:
    """Given a section, return the words for the option that holds its address."""
    return _ADDRESS_OPTIONS.get(section, "the address, which comes with the metadata of the recordings")


def _credential_options(section: str) -> str:
    """Return the words for the options of a login."""
    described = {name: one for part, name, one in all_options() if part == section}
    users = [f"{name} and " for name in ("username", "access_key_id") if name in described]
    secret = next(name for name, one in described.items() if one.secret)
    return f"[{section}] {''.join(users)}{secret} (the environment variable {described[secret].env} goes before the file)"


def unreachable_advice(error: OSError, host: str, port: int, section: str) -> str:
    """Given why no connection to a server came about, return what to do."""
    option = address_option(section)
    if isinstance(error, socket.gaierror):
        return f"correct the host name in {option}, or let the DNS (or the hosts file) of this machine know {host}"
    if isinstance(error, ConnectionRefusedError):
        return (
            f"nothing listens on port {port} there: start {_SERVICE_NAMES.get(section, 'the service')}, or correct {option}"
        )
    if isinstance(error, TimeoutError):
        return f"nobody answers: a firewall may drop what goes to {host} port {port}, or {option} names another machine"
    return f"see whether this machine has a way to {host} (network, routes, firewall); then {option}"


def untrusted_advice(error: OSError, section: str, issuer: str, names: str) -> str:
    """Given why a TLS connection was refused, the section, and whose certificate the server showed for which names, return
    what to do."""
    code = error.verify_code if isinstance(error, ssl.SSLCertVerificationError) else 0
    trust = f"[{section}] trusted_ca"
    if code in _UNKNOWN_AUTHORITY:
        return (
            f"the certificate was issued by {issuer}: put the certificate of that authority, and those above it up to the "
            f"root, into the PEM file of {trust}"
        )
    if code in _NAME_MISMATCH:
        return (
            f"the certificate is for {names}: use that name in {address_option(section)}, or get a certificate for this one"
        )
    if code == _EXPIRED:
        return "renew the certificate on the server; if that one is valid, an authority above it has expired: renew it too"
    if code == _NOT_YET_VALID:
        return "the certificate is not valid yet: look at the clock of this machine, and of the one that made it"
    if code:
        return f"let the server send its whole chain, or put the missing certificates into the PEM file of {trust}"
    scheme = "amqp" if section == "fleet" else "http"
    return f"nothing speaks TLS on this port: write {scheme}:// or the TLS port in {address_option(section)}"
