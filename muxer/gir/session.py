"""The HTTP session of the RWS and RCS clients: authentication, cookies, CSRF, TLS, timeouts, retries of reads.

Every request goes only to the scheme, host and port of ``base_uri`` (gir-api, section 1).
"""

from __future__ import annotations

import functools
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth

from muxer import __version__
from muxer.errors import Code, MuxerError, NotFound, RequestRejected, ServiceUnavailable, Stopped, UnreadableResponse
from muxer.gir.responses import (
    HttpResponse,
    is_csrf_refusal,
    is_message_type,
    parse_response,
    response_error,
    too_long_error,
)
from muxer.journal.retry_policy import step_delay
from muxer.net import header_timeout, tls, transfer
from muxer.net.circuit_breaker import CircuitBreaker

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 10.0
MAX_JSON_BYTES = 32 * 1024 * 1024
# The number and total length of the cookies that a server may set; with more, requests would become too long.
MAX_COOKIES, MAX_COOKIE_LENGTH = 50, 8192
READ_ATTEMPTS = 3
MAX_REDIRECTS = 5


# Valid header names and values (RFC 9110, section 5), and headers that a server must not set.
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE = re.compile(r"[!-~]([ -~]{0,4000}[!-~])?")
_OWN_HEADERS = frozenset(
    (
        *("accept-encoding", "authorization", "connection", "content-length", "content-type", "cookie", "expect", "host"),
        *("te", "trailer", "transfer-encoding", "upgrade", "user-agent"),
    )
)

MissingError = Callable[[NotFound], MuxerError]
F = TypeVar("F", bound=Callable[..., Any])


def _watch_service(method: F) -> F:
    """Decorate a method of :class:`ServiceSession`: report the outcome of its calls to the circuit breaker.

    With `is_public`, the request needs no login.
    """

    @functools.wraps(method)
    def call_watched(self: ServiceSession, *args: Any, is_public: bool = False, **kwargs: Any) -> Any:
        with self.circuit_breaker.call(self.service, is_public=is_public):
            return method(self, *args, **kwargs)

    return cast(F, call_watched)


@dataclass(frozen=True)
class ServiceAccount:
    """Address and credentials of a service. `timeout` is the read timeout in seconds."""

    service: str
    base_uri: str
    username: str
    password: str
    trusted_ca: bool | Path
    timeout: float


class ServiceSession:
    """Requests to one service, safe to use from any thread: each thread has its own connection, cookies and CSRF token."""

    def __init__(
        self, account: ServiceAccount, stop: threading.Event, circuit_breaker: CircuitBreaker | None = None
    ) -> None:
        self._account = account
        self._stop = stop
        self.service = account.service
        self.circuit_breaker = circuit_breaker or CircuitBreaker()
        self._local = threading.local()
        self._tls = tls.client_context(account.trusted_ca)
        if not account.trusted_ca:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    def get(self, target: str, **kwargs: Any) -> dict[str, Any]:
        """Return the JSON object at a path or link, with retries. `kwargs` are those of parse_response."""
        return self.get_with_headers(target, **kwargs)[0]

    @property
    def was_retried(self) -> bool:
        """Whether the last GET of this thread that succeeded took more than one request."""
        return getattr(self._local, "attempts", 1) > 1

    @_watch_service
    def get_with_headers(
        self, target: str, attempts: int = READ_ATTEMPTS, missing: MissingError | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], Mapping[str, str]]:
        """Return the JSON object at `target`, like :meth:`get`, and the headers of the response.

        Raises Stopped between two attempts, else the error of the last one. `missing` returns the error for a 404.
        """
        for attempt in range(1, attempts + 1):
            try:
                http_response = self._send_and_read("GET", target)
                content = parse_response(http_response, **kwargs)
                self._local.attempts = attempt
                if attempt > 1:
                    self.circuit_breaker.record_recovery(self.service)
                return content, http_response.headers
            except NotFound as error:
                error.was_retried = attempt > 1
                if missing is None:
                    raise
                unknown = missing(error)
                unknown.was_retried = error.was_retried
                raise unknown from error
            except ServiceUnavailable as error:
                delay = step_delay(attempt, error.retry_after)
                if attempt == attempts or delay is None:
                    raise
                log.debug("%s; retrying in %.1f s", error, delay)
                if self._stop.wait(delay):
                    raise Stopped("stopped while waiting for a service") from error
        raise AssertionError("unreachable")

    @_watch_service
    def write(self, method: str, path: str, body: Any = None, *, csrf_sources: Sequence[str] = ()) -> dict[str, Any]:
        """Send `body` as JSON once; return the response, empty when it is a text.

        A refused CSRF token is requested again by GET from the `csrf_sources` in turn, and the request is sent once more.
        Raises the error of a failure, UnreadableResponse for a page of HTML.
        """
        http_response = self._send_and_read(method, path, body)
        if is_csrf_refusal(http_response):
            self._local.csrf = {}
            for source in csrf_sources:
                if not self._csrf_header:
                    self._send_and_read("GET", source)
            http_response = self._send_and_read(method, path, body)
        content = parse_response(http_response, may_be_text=True)
        if http_response.body.lstrip().startswith(b"<"):
            # A text may be a success, the page of a proxy is not.
            raise UnreadableResponse(f"{http_response.what}: the response is a page of HTML or XML")
        return content

    @_watch_service
    def get_text(self, target: str) -> str:
        """Return the body of the response at `target`, JSON or not, as a text. Raises the error of a failure."""
        http_response = self._send_and_read("GET", target)
        parse_response(http_response, may_be_text=True)
        return http_response.body.decode(errors="replace")

    @_watch_service
    def download_media(self, target: str, path: Path, *, media_only: bool = True) -> transfer.ReceivedLength:
        """Stream media to `path`. With `media_only`, JSON and HTML are error messages. Raises ServiceUnavailable."""
        with self._open_media(target, media_only) as response:
            plain = response.headers.get("Content-Encoding", "identity") == "identity"
            length = response.headers.get("Content-Length", "") if plain else ""
            with _translate_errors(f"{self.service} GET {urlsplit(target).path}"):
                return transfer.receive_file(
                    _iterate_body(response),
                    path,
                    expected=transfer.content_length(length),
                    source=f"{self.service} {urlsplit(target).path}",
                    stop=self._stop,
                    modified=transfer.modified_at(response.headers),
                )

    @_watch_service
    def check_media(self, target: str) -> None:
        """Check that a media file would be delivered, without reading it. Raises the errors of :meth:`download_media`."""
        with self._open_media(target):
            pass

    @_watch_service
    def fetch_headers(self, target: str) -> Mapping[str, str]:
        """Return the headers of the response to a GET, whatever its status. A CSRF token among them is kept."""
        return self._send_and_read("GET", target).headers

    @contextmanager
    def _open_media(self, target: str, media_only: bool = True) -> Iterator[requests.Response]:
        """Yield the response to a request for media, with an unread body. Raises the error of a response without media."""
        with self._open_response("GET", target) as response:
            kind = response.headers.get("Content-Type", "")
            if response.status_code != 200 or (media_only and is_message_type(kind)):
                http_response = self._read_response(response, f"GET {urlsplit(target).path}")
                parse_response(http_response)
                raise response_error(http_response, 0, f"the response is {kind or 'of no content type'} instead of media")
            yield response

    def _send_and_read(self, method: str, target: str, body: Any = None) -> HttpResponse:
        with self._open_response(method, target, body) as response:
            return self._read_response(response, f"{method} {urlsplit(target).path}")

    @contextmanager
    def _open_response(self, method: str, target: str, body: Any = None) -> Iterator[requests.Response]:
        """Send a request, follow redirects on the same host, and yield the response with an unread body."""
        url = self._to_own_host(target)
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send_request(method, url, body)
            try:
                if not response.is_redirect:
                    yield response
                    return
                url = self._redirect_target(url, response.headers["Location"])
                method, body = ("GET", None) if response.status_code == 303 else (method, body)
            finally:
                response.close()
        raise ServiceUnavailable(f"{self.service} {method} {urlsplit(target).path}: redirected too often")

    def _send_request(self, method: str, url: str, body: Any) -> requests.Response:
        headers = {} if method == "GET" else {"Content-Type": "application/json", **self._csrf_header}
        what = f"{self.service} {method} {urlsplit(url).path}"
        with _translate_errors(what):
            response = self._thread_session.request(
                method,
                url,
                json=body,
                headers=headers,
                timeout=(CONNECT_TIMEOUT_SECONDS, self._account.timeout),
                allow_redirects=False,
                stream=True,
                verify=bool(self._account.trusted_ca),
            )
        self._limit_cookies()
        if method == "GET" and (token := csrf_header(response.headers, what)):
            self._local.csrf = token
        return response

    def _limit_cookies(self) -> None:
        """Forget all cookies when there are too many; every request has the credentials anyway."""
        jar = self._thread_session.cookies
        if len(jar) > MAX_COOKIES or sum(len(cookie.name) + len(cookie.value or "") for cookie in jar) > MAX_COOKIE_LENGTH:
            log.warning("%s sets more cookies than fit into a request; they are forgotten", self.service)
            jar.clear()

    def _read_response(self, response: requests.Response, what: str) -> HttpResponse:
        """Read a response body that should be small, with limits for its size and time."""
        what = f"{self.service} {what}"
        deadline = time.monotonic() + 2 * self._account.timeout
        body = bytearray()
        with _translate_errors(what):
            for chunk in _iterate_body(response):
                body += chunk
                transfer.check_progress(deadline, what, self._stop)
                if len(body) > MAX_JSON_BYTES:
                    limit = f"the response is longer than {MAX_JSON_BYTES} bytes"
                    raise too_long_error(f"{what}: {limit}")
        return HttpResponse(what, response.status_code, response.headers, bytes(body))

    def _redirect_target(self, url: str, location: str) -> str:
        try:
            return self._to_own_host(urljoin(url, location))
        except (ValueError, RequestRejected) as error:
            what = f"{self.service} {urlsplit(url).path}"
            raise UnreadableResponse(f"{what}: redirected to a malformed address: {location[:80]!r}") from error

    def _to_own_host(self, target: str) -> str:
        """Return a path or link with the host of ``base_uri``; ``api/…`` is relative. Raises RequestRejected."""
        base = urlsplit(self._account.base_uri)
        try:
            link = urlsplit(urljoin(f"{self._account.base_uri}/", target))
        except ValueError:
            raise RequestRejected(f"{self.service}: a link is malformed: {target[:80]!r}") from None
        return urlunsplit((base.scheme, base.netloc, link.path, link.query, ""))

    @property
    def _csrf_header(self) -> dict[str, str]:
        return getattr(self._local, "csrf", {})

    @property
    def _thread_session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = _NoRedirectSession()
            session.trust_env = False
            session.auth = HTTPBasicAuth(self._account.username.encode(), self._account.password.encode())
            session.headers.update({"User-Agent": f"recording-muxer/{__version__}", "Accept-Encoding": "identity"})
            for scheme in ("http://", "https://"):
                session.mount(scheme, _TlsAdapter(self._tls))
        return session


def csrf_header(headers: Mapping[str, str], what: str) -> dict[str, str]:
    """Return the CSRF header of a GET for writes, empty when CSRF is off. Raises UnreadableResponse when it is invalid."""
    name, token = headers.get("X-CSRF-HEADER"), headers.get("X-CSRF-TOKEN")
    if not (name and token):
        return {}
    if not (_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(token)) or name.lower() in _OWN_HEADERS:
        raise UnreadableResponse(f"{what}: X-CSRF-HEADER and X-CSRF-TOKEN are not a valid header: {name[:80]!r}")
    return {name: token}


def _iterate_body(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it arrives, so that time limits hold for a slow response body."""
    while piece := response.raw.read1(transfer.CHUNK_BYTES, decode_content=True):
        yield piece


class _NoRedirectSession(requests.Session):
    """Leaves redirects to the caller; requests would parse an address that may be malformed."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None, so that requests follows no redirect."""


class _TlsAdapter(HTTPAdapter):
    """Uses a header timeout and only the given TLS context; requests would add its own authorities."""

    def __init__(self, context: Any) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)
        manager = self.poolmanager
        manager.pool_classes_by_scheme = header_timeout.with_header_deadline(manager.pool_classes_by_scheme)

    def cert_verify(self, *args: Any) -> None:
        """Leave all checks to the context."""


@contextmanager
def _translate_errors(what: str) -> Iterator[None]:
    """Turn what the HTTP libraries raise into :class:`ServiceUnavailable`, without addresses that may hold secrets."""
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise ServiceUnavailable(f"{what}: TLS failed: {_innermost_reason(error)}", code=Code.TLS) from error
    except requests.exceptions.Timeout as error:
        raise _timeout_error(f"{what}: no response within the time limit") from error
    except urllib3.exceptions.TimeoutError as error:
        raise _timeout_error(f"{what}: {_innermost_reason(error)}") from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        raise ServiceUnavailable(f"{what}: {_innermost_reason(error)}") from error


def _timeout_error(text: str) -> ServiceUnavailable:
    error = ServiceUnavailable(text)
    error.has_timed_out = True
    return error


def _innermost_reason(error: BaseException) -> str:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return f"{type(error).__name__}: {error}"[:300]
