"""Finds out what the administrator can do about the error of a service: the same in the log, `status`, pages and `check`."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from muxer.config.schema import Config
from muxer.errors import AccessDenied, AuthenticationFailed, Code, Forbidden, ServiceUnavailable, UnreadableResponse
from muxer.net import tls
from muxer.net.circuit_breaker import RCS, RWS
from muxer.status import advice

PROBE_SECONDS = 5.0
# A port is probed for TLS once in this time.
PROBE_INTERVAL = 60.0
_SECTIONS = {RWS: "htcc", RCS: "rcs", "WebDAV": "webdav", "S3": "s3", "RabbitMQ": "fleet"}
_DEFAULT_PORTS = {"http": 80, "https": 443}


class ServiceAdvisor:
    """Advice on the errors of the services of a configuration."""

    def __init__(self, config: Config) -> None:
        self._origins = config.origins
        self._urls = {"htcc": config.htcc.base_uri, "rcs": config.rcs.base_uri, "s3": config.s3.endpoint_url}
        self._probes: dict[tuple[str, int], tuple[float, bool]] = {}

    def advise(self, service: str, error: ServiceUnavailable | AccessDenied) -> str:
        """Return what to do about an `error` of `service`, with the option; empty when the cause is not known.

        Mark an error of a connection that lasts until that is done.
        """
        kind, _, rest = service.partition(" ")
        section = _SECTIONS.get(kind, "")
        if not section:
            return ""
        if isinstance(error, AuthenticationFailed):
            known = advice.credential_origins(section, self._origins)
            return f"{known}; {advice.RESTART_TEXT}" if known else ""
        if error.code in (Code.S3_OPTIONS, Code.FOREIGN_SERVER):
            return advice.RESTART_AFTER_CHANGE_TEXT
        url = self._urls.get(section) or (rest if section == "webdav" else "")
        if isinstance(error, ServiceUnavailable) and url:
            known = self._connection_advice(error, section, url)
            return f"{known}; {advice.RESTART_AFTER_CHANGE_TEXT}" if f"[{section}]" in known else known
        return advice.advice_for(error, section) if isinstance(error, Forbidden) else ""

    def _connection_advice(self, error: ServiceUnavailable, section: str, url: str) -> str:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
        causes = list(_causes(error))
        cause = causes[-1]
        if isinstance(cause, ssl.SSLError):
            is_known = isinstance(cause, ssl.SSLCertVerificationError) or cause.reason in advice.NO_TLS_REASONS
            error.needs_correction = is_known
            return advice.tls_advice(cause, section) if is_known else ""
        if isinstance(cause, socket.gaierror | ConnectionRefusedError) or _is_connect_timeout(causes):
            assert isinstance(cause, OSError)
            return advice.unreachable_advice(cause, host, port, section)
        # A server that expects TLS closes the connection, or responds with an error that is not of its protocol. Servers
        # that only metadata name are not probed.
        is_odd = isinstance(error, UnreadableResponse) or error.code is Code.TLS or len(causes) > 1
        may_probe = parts.scheme == "http" and section in self._urls and not error.has_timed_out
        if is_odd and may_probe and self._speaks_tls(host, port):
            error.needs_correction = True
            return advice.https_advice(section)
        return advice.advice_for(error, section) if isinstance(error, UnreadableResponse) else ""

    def _speaks_tls(self, host: str, port: int) -> bool:
        tried, result = self._probes.get((host, port), (float("-inf"), False))
        if time.monotonic() - tried > PROBE_INTERVAL:
            result = tls.accepts_tls(host, port, PROBE_SECONDS)
            self._probes[host, port] = time.monotonic(), result
        return result


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it, the innermost last."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


def _is_connect_timeout(causes: list[BaseException]) -> bool:
    """Whether a connection could not be opened in time; each HTTP library has its own error for that."""
    return isinstance(causes[-1], TimeoutError) and any("ConnectTimeout" in type(one).__name__ for one in causes)
