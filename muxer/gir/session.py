"""The HTTP session under the RWS and RCS clients: login, cookies, CSRF, TLS, time limits, retries of reads.

Every request carries HTTP Basic, and goes to ``base_uri``'s scheme, host and port only: of a redirect or a paging link
just the path and the query are kept (gir-api, section 1).
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
from muxer.errors import Code, RequestRejected, ServiceUnavailable, Stopped, UnreadableResponse
from muxer.gir.responses import HttpResponse, is_csrf_refusal, is_message_type, parse_response, response_error
from muxer.journal.retry_policy import step_delay
from muxer.net import header_timeout, tls, transfer
from muxer.net.circuit_breaker import CircuitBreaker

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 10.0
MAX_JSON_BYTES = 32 * 1024 * 1024
# A server may set so many cookies, of so many characters in all; with more, requests would become too long for it.
MAX_COOKIES, MAX_COOKIE_LENGTH = 50, 8192
READ_ATTEMPTS = 3
MAX_REDIRECTS = 5


# What a header may consist of (RFC 9110, section 5), and those that are not the server's business.
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE = re.compile(r"[!-~]([ -~]{0,4000}[!-~])?")
_OWN_HEADERS = frozenset(
    (
        *("accept-encoding", "authorization", "connection", "content-length", "content-type", "cookie", "expect", "host"),
        *("te", "trailer", "transfer-encoding", "upgrade", "user-agent"),
    )
)

F = TypeVar("F", bound=Callable[..., Any])


def _watch_service(method: F) -> F:
    """Given a method of :class:`Session`, let the outcome of its calls tell whether the service is out."""

    @functools.wraps(method)
    def call_watched(self: ServiceSession, *args: Any, **kwargs: Any) -> Any:
        with self.outages.call(self.service):
            return method(self, *args, **kwargs)

    return cast(F, call_watched)


@dataclass(frozen=True)
class ServiceAccount:
    """Where a service is and how to log in. ``timeout`` is in seconds."""

    service: str
    base_uri: str
    username: str
    password: str
    trusted_ca: bool | Path
    timeout: float


class ServiceSession:
    """Requests to one service, safe to use from any thread: each thread has its own connection, cookies and CSRF token."""

    def __init__(self, account: ServiceAccount, stop: threading.Event, outages: CircuitBreaker | None = None) -> None:
        self._account = account
        self._stop = stop
        self.service = account.service
        self.outages = outages or CircuitBreaker()
        self._local = threading.local()
        self._tls = tls.client_context(account.trusted_ca)
        if not account.trusted_ca:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

    def get(self, target: str, **kwargs: Any) -> dict[str, Any]:
        """Given a path with query, or a link, return the JSON object there. Tried again when the service is unavailable.

        Raise the errors of :func:`muxer.gir.responses.envelope`. ``accepted``: the statusCodes that are no failure.
        """
        return self.get_with_headers(target, **kwargs)[0]

    @_watch_service
    def get_with_headers(
        self, target: str, attempts: int = READ_ATTEMPTS, **kwargs: Any
    ) -> tuple[dict[str, Any], Mapping[str, str]]:
        """Return the JSON object at `target`, like :meth:`get`, and the headers of the response."""
        for attempt in range(1, attempts + 1):
            try:
                answer = self._send_and_read("GET", target)
                content = parse_response(answer, **kwargs)
                if attempt > 1:
                    self.outages.record_recovery(self.service)
                return content, answer.headers
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
        """Given a method, a path and a JSON body, send it once and return the JSON answer, empty when there is none.

        The HTTP status decides, and the statusCode only where the answer is JSON: some servers answer with a text.

        The CSRF token is sent when there is one. When it is refused, a GET of the ``csrf_sources``, until one answers
        with a new token, and the request is sent once more.
        """
        answer = self._send_and_read(method, path, body)
        if is_csrf_refusal(answer):
            self._local.csrf = {}
            for source in csrf_sources:
                if not self._csrf_header:
                    self._send_and_read("GET", source)
            answer = self._send_and_read(method, path, body)
        content = parse_response(answer, may_be_text=True)
        if answer.body.lstrip().startswith(b"<"):
            # A text may say that it is done; the page of a proxy says nothing.
            raise UnreadableResponse(f"{answer.what}: answered with a page of HTML or XML")
        return content

    @_watch_service
    def get_text(self, target: str) -> str:
        """Return the body of the response at `target`, JSON or not, as a text. Raises the error that it stands for."""
        answer = self._send_and_read("GET", target)
        parse_response(answer, may_be_text=True)
        return answer.body.decode(errors="replace")

    @_watch_service
    def download_media(self, target: str, path: Path, *, media_only: bool = True) -> transfer.ReceivedLength:
        """Given a path or link to a media file, stream it to ``path`` and return its length in bytes.

        An answer of JSON or HTML is an error message, not media. Raise the error of the answer, or
        :class:`ServiceUnavailable` when the body breaks off.
        """
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
        """Given a path or link to a media file, see whether it would be delivered, and fetch nothing of it. Raise the errors
        of :meth:`download`."""
        with self._open_media(target):
            pass

    @_watch_service
    def fetch_headers(self, target: str) -> Mapping[str, str]:
        """Given a path, return the headers of the answer to one GET, whatever it says. A CSRF token among them is kept."""
        return self._send_and_read("GET", target).headers

    @contextmanager
    def _open_media(self, target: str, media_only: bool = True) -> Iterator[requests.Response]:
        """Yield the answer to a request for media, its body unread; raise the error of an answer that is none."""
        with self._open_response("GET", target) as response:
            kind = response.headers.get("Content-Type", "")
            if response.status_code != 200 or (media_only and is_message_type(kind)):
                answer = self._read_response(response, f"GET {urlsplit(target).path}")
                parse_response(answer)
                raise response_error(answer, 0, f"answered {kind or 'no content type'} where media was expected")
            yield response

    def _send_and_read(self, method: str, target: str, body: Any = None) -> HttpResponse:
        with self._open_response(method, target, body) as response:
            return self._read_response(response, f"{method} {urlsplit(target).path}")

    @contextmanager
    def _open_response(self, method: str, target: str, body: Any = None) -> Iterator[requests.Response]:
        """Send a request, follow redirects on our own host, and yield the answer with its body unread."""
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
        """Forget all cookies when they are too many; the login goes along with every request in any case."""
        jar = self._thread_session.cookies
        if len(jar) > MAX_COOKIES or sum(len(one.name) + len(one.value or "") for one in jar) > MAX_COOKIE_LENGTH:
            log.warning("%s sets more cookies than fit into a request; they are forgotten", self.service)
            jar.clear()

    def _read_response(self, response: requests.Response, what: str) -> HttpResponse:
        """Read the body of an answer that should be small, with a limit on its size and its time."""
        what = f"{self.service} {what}"
        deadline = time.monotonic() + 2 * self._account.timeout
        body = bytearray()
        with _translate_errors(what):
            for chunk in _iterate_body(response):
                body += chunk
                transfer.check_progress(deadline, what, self._stop)
                if len(body) > MAX_JSON_BYTES:
                    limit = f"the answer is longer than {MAX_JSON_BYTES} bytes"
                    raise RequestRejected(f"{what}: {limit}; a smaller [advanced] pagination may help")
        return HttpResponse(what, response.status_code, response.headers, bytes(body))

    def _redirect_target(self, url: str, location: str) -> str:
        """Return where an answer redirects to. Raise :class:`UnreadableResponse` when its ``Location`` is no address."""
        try:
            return self._to_own_host(urljoin(url, location))
        except (ValueError, RequestRejected) as error:
            what = f"{self.service} {urlsplit(url).path}"
            raise UnreadableResponse(f"{what}: redirected to what is no address: {location[:80]!r}") from error

    def _to_own_host(self, target: str) -> str:
        """Given a path or any link, return it with the scheme, host and port of ``base_uri`` in front.

        A path that begins with ``/`` stands as it is only in a link; API paths (``api/…``) go below ``base_uri``. Raise
        :class:`RequestRejected` for a link that is none.
        """
        base = urlsplit(self._account.base_uri)
        try:
            link = urlsplit(urljoin(f"{self._account.base_uri}/", target))
        except ValueError:
            raise RequestRejected(f"{self.service}: a link is no address: {target[:80]!r}") from None
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
    """Return the header with the token that writes must carry, none when CSRF is off.

    `headers` are those of an answer to a GET, and `what` names the request. Raises UnreadableResponse when the token
    cannot be sent as a header of its own.
    """
    name, token = headers.get("X-CSRF-HEADER"), headers.get("X-CSRF-TOKEN")
    if not (name and token):
        return {}
    if not (_HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(token)) or name.lower() in _OWN_HEADERS:
        raise UnreadableResponse(f"{what}: X-CSRF-HEADER and X-CSRF-TOKEN make no header: {name[:80]!r}")
    return {name: token}


def _iterate_body(response: requests.Response) -> Iterator[bytes]:
    """Yield the body in pieces as they arrive, so that time limits hold for a server that sends drop by drop."""
    while piece := response.raw.read1(transfer.CHUNK_BYTES, decode_content=True):
        yield piece


class _NoRedirectSession(requests.Session):
    """Leaves redirects to its user; requests would look at an address that may be none."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: there is nothing to follow."""


class _TlsAdapter(HTTPAdapter):
    """Uses punctual connections and exactly the given TLS context; requests would add its own bundle of authorities."""

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
        raise ServiceUnavailable(f"{what}: no answer within the time limit") from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        raise ServiceUnavailable(f"{what}: {_innermost_reason(error)}") from error


def _innermost_reason(error: BaseException) -> str:
    """Return the innermost cause in a few words."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return f"{type(error).__name__}: {error}"[:300]
