"""The WSGI application of the monitoring port: access control, routes and security headers."""

from __future__ import annotations

import base64
import hmac
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs

from muxer.monitoring import health, page
from muxer.monitoring.certificate_expiry import ServerCertificates
from muxer.monitoring.metrics import MuxerCollector
from muxer.monitoring.view import ViewSources, gather_status

log = logging.getLogger(__name__)

TEXT, HTML, JSON = "text/plain; charset=utf-8", "text/html; charset=utf-8", "application/json"
# Slows down password guessing; it also occupies a worker thread.
REFUSAL_DELAY_SECONDS = 0.5
SECURITY_HEADERS = (
    ("Content-Security-Policy", page.CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)

WsgiEnviron = Mapping[str, Any]


@dataclass(frozen=True)
class HttpResponse:
    """A response."""

    body: bytes
    kind: str = TEXT
    status: HTTPStatus = HTTPStatus.OK
    headers: tuple[tuple[str, str], ...] = ()


class MonitoringApplication:
    """Responds to requests. Safe to use from any thread."""

    def __init__(self, sources: ViewSources, servers: ServerCertificates, loopback: bool) -> None:
        monitoring = sources.config.monitoring
        self._sources, self._loopback = sources, loopback
        self._credentials = f"{monitoring.username}:{monitoring.password}".encode() if monitoring.username else b""
        self._metrics = MuxerCollector(sources, servers.last_expiries)
        self._routes: dict[str, Callable[[WsgiEnviron], HttpResponse]] = {
            "/": self._serve_page,
            "/recording": self._serve_recording,
            "/metrics": self._serve_metrics,
            "/livez": lambda environ: _health_response(environ, health.liveness_problems(sources)),
            "/readyz": lambda environ: _health_response(environ, health.readiness_problems(sources)),
        }

    def __call__(self, environ: WsgiEnviron, start_response: Callable[..., object]) -> Iterable[bytes]:
        try:
            response = self._respond(environ)
        except Exception:
            log.exception("request to the monitoring port failed with an unexpected error")
            response = _error_response(HTTPStatus.INTERNAL_SERVER_ERROR, "unexpected error; see the log of the muxer")
        own = (("Content-Type", response.kind), ("Content-Length", str(len(response.body))))
        headers = [*own, *SECURITY_HEADERS, *response.headers]
        start_response(f"{response.status.value} {response.status.phrase}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]

    def _respond(self, environ: WsgiEnviron) -> HttpResponse:
        if self._loopback and not _is_local_host(environ.get("HTTP_HOST", "localhost")):
            return _error_response(HTTPStatus.FORBIDDEN, "this port accepts only requests to localhost or 127.0.0.1")
        if self._credentials and not _matches_credentials(environ.get("HTTP_AUTHORIZATION", ""), self._credentials):
            time.sleep(REFUSAL_DELAY_SECONDS)
            challenge = ("WWW-Authenticate", 'Basic realm="Recording Muxer", charset="UTF-8"')
            return _error_response(HTTPStatus.UNAUTHORIZED, "authentication required", challenge)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _error_response(HTTPStatus.METHOD_NOT_ALLOWED, "this port is read-only", ("Allow", "GET, HEAD"))
        route = self._routes.get(environ.get("PATH_INFO") or "/")
        return _error_response(HTTPStatus.NOT_FOUND, "no such page") if route is None else route(environ)

    def _serve_metrics(self, environ: WsgiEnviron) -> HttpResponse:
        return HttpResponse(*self._metrics.render_exposition(environ.get("HTTP_ACCEPT", "")))

    def _serve_page(self, environ: WsgiEnviron) -> HttpResponse:
        refresh = _query_value(environ, "refresh") != "0"
        return HttpResponse(page.render_status_page(gather_status(self._sources), refresh).encode(errors="replace"), HTML)

    def _serve_recording(self, environ: WsgiEnviron) -> HttpResponse:
        shown = page.render_recording(gather_status(self._sources), _query_value(environ, "name"))
        if shown is None:
            return _error_response(HTTPStatus.NOT_FOUND, "this recording is not among the newest ones on the status page")
        return HttpResponse(shown.encode(errors="replace"), HTML)


def _query_value(environ: WsgiEnviron, name: str) -> str:
    query: str = environ.get("QUERY_STRING", "")
    return parse_qs(query).get(name, [""])[0]


def _health_response(environ: WsgiEnviron, reasons: tuple[str, ...]) -> HttpResponse:
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    if JSON in environ.get("HTTP_ACCEPT", ""):
        report = {"status": "failed" if reasons else "ok", "reasons": reasons}
        return HttpResponse(json.dumps(report).encode() + b"\n", JSON, status)
    return HttpResponse("".join(f"{line}\n" for line in reasons or ("ok",)).encode(errors="backslashreplace"), TEXT, status)


def _error_response(status: HTTPStatus, text: str, *headers: tuple[str, str]) -> HttpResponse:
    return HttpResponse(f"{status.value} {status.phrase}: {text}\n".encode(), TEXT, status, headers)


def _matches_credentials(header: str, credentials: bytes) -> bool:
    """Whether an Authorization header contains the credentials. The comparison takes constant time."""
    scheme, _, encoded = header.partition(" ")
    given = encoded.strip().encode("latin-1", errors="replace")
    return hmac.compare_digest(given, base64.b64encode(credentials)) and scheme.lower() == "basic"


def _is_local_host(host: str) -> bool:
    """Whether a Host header names this machine. This stops DNS rebinding by a page of another site."""
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
