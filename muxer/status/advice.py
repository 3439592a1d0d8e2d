"""Returns what to do about an error of a service, for `check` and for the running muxer. Pure."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping

from muxer.config.load import DEFAULT, KEYSTORE
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
_TOO_WEAK = (66, 67, 68)
# Reasons of OpenSSL: the server speaks plain HTTP, has only old versions of TLS, or has closed the connection.
NO_TLS_REASONS = (
    *("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"),
)
_OLD_VERSION_REASONS = ("TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL")
_CLOSED_REASON = "UNEXPECTED_EOF_WHILE_READING"

_SERVICE_NAMES = {"htcc": "RWS", "rcs": "RCS", "webdav": "the WebDAV server", "s3": "the S3 store", "fleet": "RabbitMQ"}
_ADDRESS_OPTIONS = {
    "htcc": "[htcc] base_uri",
    "rcs": "[rcs] base_uri",
    "s3": "[s3] endpoint_url",
    "fleet": "[fleet] broker_url",
}


# The sections of services whose requests `[htcc] rws_timeout` limits.
RWS_TIMEOUT_SECTIONS = ("htcc", "rcs")
# Options, and the files that they name, are read at the start only.
RESTART_TEXT = "then restart the muxer"
RESTART_AFTER_CHANGE_TEXT = "after a change of an option, restart the muxer"

# The first entry whose types fit an error.
_ADVICE: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((ConfigError,), "correct it in muxer.cfg"),
    ((PathForbidden,), "grant the account of [{section}] read and write access to that folder on the server"),
    ((Forbidden,), "grant the account of [{section}] the permission for this in {service}"),
    ((AccessDenied, EncryptionMissing, FolderMissing), "follow the text, then run check again"),
    ((NotFound,), "correct {address}: a server responds there, but it does not have the requested object"),
    ((UnreadableResponse,), "correct {address}: the server there is not {service}, perhaps a proxy or another web server"),
    ((ServiceFailed,), "{service} reported an internal error: read its log"),
    ((ServiceUnavailable,), "make sure that {service} runs and is reachable from this machine; then check {address}"),
)


def advice_for(error: Exception, section: str) -> str:
    """Return what the administrator can do. `section` is the section of muxer.cfg that the error is about."""
    known = str(getattr(error, "advice", ""))
    if isinstance(error, AuthenticationFailed):
        advice = f"correct {_credential_options(section)}; after a change of the password on the server, change it here too"
        return f"{advice}; {known}" if known else advice
    if known and known != RESTART_AFTER_CHANGE_TEXT:
        return known
    if getattr(error, "has_timed_out", False):
        return slow_advice(section)
    text = next((text for types, text in _ADVICE if isinstance(error, types)), "see docs/log-messages.md")
    service = _SERVICE_NAMES.get(section, "the service")
    advice = text.format(section=section, service=service, address=address_option(section))
    return f"{advice}; {known}" if known else advice


def slow_advice(section: str) -> str:
    """Return what to do about a service that has not responded in time."""
    advice = "a firewall drops requests, or a machine hangs: fix that, then run check again"
    if section not in RWS_TIMEOUT_SECTIONS:
        return advice
    return f"{advice}; if {_SERVICE_NAMES[section]} is only slow, raise [htcc] rws_timeout"


def unknown_center_advice(*, is_rws: bool) -> str:
    """Return what to do about an unknown contact center. `is_rws`: the response had the form of RWS."""
    if is_rws:
        known = "correct [htcc] contact_center_id; if it is right, the path in [htcc] base_uri may be wrong"
    else:
        known = "correct [htcc] base_uri: the server there may not be RWS; if it is, correct [htcc] contact_center_id"
    return f"{known}; {RESTART_TEXT}"


def https_advice(section: str) -> str:
    """Return what to do about a port that uses TLS, while the address does not."""
    return f"the port speaks TLS: write https:// in {address_option(section)}"


def credential_origins(section: str, origins: Mapping[tuple[str, str], str]) -> str:
    """Return where the rejected credentials come from, and how to correct them; empty without `origins`."""
    secret = _secret_option(section)
    names = [*_user_options(section), secret]
    known = [f"{name} ({origins[section, name]})" for name in names if (section, name) in origins]
    if not known:
        return ""
    place = "correct them there"
    if origins.get((section, secret)) in (DEFAULT, KEYSTORE):
        place = f"store the right {secret} with encryptPassword.py, or set {_secret_variable(section)}"
    return f"they are [{section}] {' and '.join(known)}: {place}"


def address_option(section: str) -> str:
    """Return a text for the option with the address of a section."""
    return _ADDRESS_OPTIONS.get(section, "the address, which comes from the metadata of the recordings")


def _credential_options(section: str) -> str:
    users = "".join(f"{name} and " for name in _user_options(section))
    variable = _secret_variable(section)
    return f"[{section}] {users}{_secret_option(section)} (the environment variable {variable} overrides the file)"


def _user_options(section: str) -> list[str]:
    return [name for part, name, _ in all_options() if part == section and name in ("username", "access_key_id")]


def _secret_option(section: str) -> str:
    return next(name for part, name, option in all_options() if part == section and option.secret)


def _secret_variable(section: str) -> str:
    """Return the environment variable of the secret of a section."""
    return next(option.env or "" for part, _, option in all_options() if part == section and option.secret)


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


def tls_advice(error: ssl.SSLError, section: str, issuer: str = "", names: str = "") -> str:
    """Return what to do about a failed TLS connection. `issuer` and `names` are those of the certificate, empty: unknown."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_advice(error.verify_code, section, issuer, names)
    if error.reason in NO_TLS_REASONS:
        scheme = "amqp" if section == "fleet" else "http"
        return f"this port does not use TLS: write {scheme}:// or the TLS port in {address_option(section)}"
    if error.reason in _OLD_VERSION_REASONS:
        return "the server has only TLS versions that are no longer secure: enable TLS 1.2 or later there"
    # Python 3.11.2, that of Debian 12, raises an error without a reason where later ones name it, as any with OpenSSL 1.1.1.
    if error.reason == _CLOSED_REASON or isinstance(error, (ssl.SSLZeroReturnError, ssl.SSLEOFError)):
        return (
            "the other side closed the connection during the TLS handshake: a firewall, a proxy or the server; read their "
            f"logs, and make sure that {address_option(section)} names the TLS port"
        )
    return (
        "the server ended the TLS handshake: it may require a client certificate, which the muxer does not have, or have "
        "only ciphers that are no longer secure; its log says why"
    )


def _certificate_advice(code: int, section: str, issuer: str, names: str) -> str:
    """Return what to do about a certificate that was refused with an error code of OpenSSL."""
    trust = f"[{section}] trusted_ca"
    if code in _UNKNOWN_AUTHORITY:
        return (
            f"the certificate was issued by {issuer or 'an unknown authority'}: add the certificate of that authority, and "
            f"those above it up to the root, to the PEM file of {trust}"
        )
    if code in _NAME_MISMATCH:
        return (
            f"the certificate is for {names or 'another name'}: use that name in {address_option(section)}, "
            "or get a certificate for this one"
        )
    if code == _EXPIRED:
        return "renew the certificate on the server; if it is valid, the certificate of an authority has expired: renew that"
    if code == _NOT_YET_VALID:
        return "the certificate is not valid yet: check the clock of this machine and of the machine that issued it"
    if code in _TOO_WEAK:
        return "the key or the signature of a certificate of the server is too weak: renew that certificate"
    return f"configure the server to send its whole chain, or add the missing certificates to the PEM file of {trust}"
