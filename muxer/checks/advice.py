"""Returns what to do about an error in a check. Pure."""

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

# Verification errors of OpenSSL: X509_V_ERR_…
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
    """Return what the administrator can do. `section` is the section of muxer.cfg that the error is about."""
    service = _SERVICE_NAMES.get(section, "the service")
    if isinstance(error, ConfigError):
        return "correct it in muxer.cfg"
    if isinstance(error, AuthenticationFailed):
        return f"correct {_credential_options(section)}; after a change of the password on the server, change it here too"
    if isinstance(error, PathForbidden):
        return f"grant the account of [{section}] read and write access to that folder on the server"
    if isinstance(error, Forbidden):
        return f"grant the account of [{section}] the permission for this in {service}"
    if isinstance(error, AccessDenied | EncryptionMissing | FolderMissing):
        return "follow the text, then run check again"
    if isinstance(error, NotFound):
        return f"correct {address_option(section)}: a server responds there, but it does not have the requested object"
    if isinstance(error, UnreadableResponse):
        return f"correct {address_option(section)}: the server there is not {service}, perhaps a proxy or another web server"
    if isinstance(error, ServiceFailed):
        return f"{service} reported an internal error: read its log"
    if isinstance(error, ServiceUnavailable):
        return f"make sure that {service} runs and is reachable from this machine; then check {address_option(section)}"
    return "see docs/log-messages.md"


def address_option(section: str) -> str:
    """Return a text for the option with the address of a section."""
    return _ADDRESS_OPTIONS.get(section, "the address, which comes from the metadata of the recordings")


def _credential_options(section: str) -> str:
    options = {name: option for part, name, option in all_options() if part == section}
    users = [f"{name} and " for name in ("username", "access_key_id") if name in options]
    secret = next(name for name, option in options.items() if option.secret)
    return f"[{section}] {''.join(users)}{secret} (the environment variable {options[secret].env} overrides the file)"


def unreachable_advice(error: OSError, host: str, port: int, section: str) -> str:
    """Return what to do about a failed connection to a server."""
    option = address_option(section)
    if isinstance(error, socket.gaierror):
        return f"correct the host name in {option}, or add {host} to the DNS or the hosts file of this machine"
    if isinstance(error, ConnectionRefusedError):
        return (
            f"nothing listens on port {port} there: start {_SERVICE_NAMES.get(section, 'the service')}, or correct {option}"
        )
    if isinstance(error, TimeoutError):
        return f"no response: a firewall may drop packets to {host} port {port}, or {option} names another machine"
    return f"check the network, the routes and the firewall between this machine and {host}; then {option}"


def untrusted_advice(error: OSError, section: str, issuer: str, names: str) -> str:
    """Return what to do about a failed TLS connection. `issuer` and `names` are those of the certificate of the server."""
    code = error.verify_code if isinstance(error, ssl.SSLCertVerificationError) else 0
    trust = f"[{section}] trusted_ca"
    if code in _UNKNOWN_AUTHORITY:
        return (
            f"the certificate was issued by {issuer}: add the certificate of that authority, and those above it up to the "
            f"root, to the PEM file of {trust}"
        )
    if code in _NAME_MISMATCH:
        return (
            f"the certificate is for {names}: use that name in {address_option(section)}, or get a certificate for this one"
        )
    if code == _EXPIRED:
        return "renew the certificate on the server; if it is valid, the certificate of an authority has expired: renew that"
    if code == _NOT_YET_VALID:
        return "the certificate is not valid yet: check the clock of this machine and of the machine that issued it"
    if code:
        return f"configure the server to send its whole chain, or add the missing certificates to the PEM file of {trust}"
    scheme = "amqp" if section == "fleet" else "http"
    return f"this port does not use TLS: write {scheme}:// or the TLS port in {address_option(section)}"
