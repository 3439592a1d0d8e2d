"""Parses responses of RWS and RCS: the JSON object, or the error of a failure (gir-api, section 1)."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from muxer.errors import (
    AccessDenied,
    AlreadyExists,
    AuthenticationFailed,
    Code,
    Forbidden,
    MuxerError,
    NotFound,
    RequestRejected,
    ServiceFailed,
    ServiceUnavailable,
    UnreadableResponse,
)

# The number of values in a response is limited: each needs far more memory than its few bytes.
MAX_JSON_VALUES = 1_000_000
# The longest delay that a server may ask for: thousands of digits are an infinite number.
MAX_RETRY_AFTER_SECONDS = 7 * 86_400.0
OK = 0
PARAMETER_INVALID = 2
PARTIAL_SUCCESS = 7
_FORBIDDEN_CODES = (3, 5)
_NOT_FOUND = 6
_ALREADY_EXISTS = 18
_NOT_AUTHENTICATED = 20
# Internal error, and "unable to …": a retry may succeed.
_SERVER_ERROR_CODES = (4, 12, 13, 14, 15, 16, 17)
_RETRYABLE_STATUSES = (408, 425, 429)
# Not implemented: a retry does not help.
_NOT_IMPLEMENTED = 501
_TIMEOUT_STATUSES = (408, 504)
# In the response of web servers to a request without TLS on a port for TLS.
_TLS_SIGNS = (b"plain http", b"requires tls")


@dataclass(frozen=True)
class HttpResponse:
    """An HTTP response with its body; `what` names the request."""

    what: str
    status: int
    headers: Mapping[str, str]
    body: bytes


def parse_response(
    response: HttpResponse, accepted: Collection[int] = (OK,), *, may_be_text: bool = False
) -> dict[str, Any]:
    """Return the JSON object of a response, empty for an empty body, and for text if it `may_be_text`.

    Raises the error of a failure by the HTTP status **or** by a ``statusCode`` that is not among `accepted`.
    """
    if sum(map(response.body.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        limit = f"the response has more than {MAX_JSON_VALUES} values"
        raise too_long_error(f"{response.what}: {limit}")
    content = _json_object(response.body)
    code, message = _status_code(content), str((content or {}).get("statusMessage") or "")[:500]
    if not 200 <= response.status < 300 or code not in accepted:
        raise response_error(response, code, message)
    if content is None and response.body.strip() and not may_be_text:
        kind = response.headers.get("Content-Type", "no content type")
        raise UnreadableResponse(f"{response.what}: the response is {kind}, not a JSON object")
    return content or {}


def response_error(response: HttpResponse, code: int, message: str) -> MuxerError:
    """Return the error of a failed response with the statusCode `code` (0: none) and its `message`."""
    status = response.status
    text = f"{response.what}: HTTP {status}" + (f", statusCode {code}" if code else "") + (f", {message}" if message else "")
    if status == 401 or code == _NOT_AUTHENTICATED:
        return AuthenticationFailed(f"{text}; check user name and password")
    if status == 404 or code == _NOT_FOUND:
        return NotFound(text, status, code)
    if status == 409 or code == _ALREADY_EXISTS:
        return AlreadyExists(text, status, code)
    if status == 403 or code in _FORBIDDEN_CODES:
        return Forbidden(text)
    if status == 400 and not code and any(sign in response.body.lower() for sign in _TLS_SIGNS):
        return ServiceUnavailable(f"{text}; the port expects TLS", code=Code.TLS)
    if status == 413:
        denied = AccessDenied(f"{text}; the server, or a proxy before it, limits the size of a request; raise it there")
        denied.is_too_long = True
        return denied
    if status == _NOT_IMPLEMENTED:
        return RequestRejected(text, status, code)
    if status == 500 or (status < 300 and code in _SERVER_ERROR_CODES):
        return ServiceFailed(text, retry_after(response.headers))
    if status >= 500 or status in _RETRYABLE_STATUSES or code in _SERVER_ERROR_CODES or status < 200:
        error = ServiceUnavailable(text, retry_after(response.headers))
        error.has_timed_out = status in _TIMEOUT_STATUSES
        return error
    return RequestRejected(text, status, code)


def too_long_error(text: str) -> RequestRejected:
    """Return the error of a response that is longer than a limit of the muxer."""
    error = RequestRejected(f"{text}; a smaller [advanced] pagination may help")
    error.is_too_long = True
    return error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of ``Retry-After`` (a number or a date, RFC 9110), None when there is none."""
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value), MAX_RETRY_AFTER_SECONDS)
    try:
        time = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return min(max(0.0, (time - datetime.now(UTC)).total_seconds()), MAX_RETRY_AFTER_SECONDS)


def is_message_type(content_type: str) -> bool:
    """Whether the content type of a response to a request for media is that of a message, such as the page of a proxy."""
    return content_type.split(";")[0].strip().lower() in ("application/json", "text/html")


def is_csrf_refusal(response: HttpResponse) -> bool:
    """Whether a write was refused because it had no valid CSRF token; only the text of the 403 shows it."""
    return response.status == 403 and b"csrf" in response.body.lower()


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _status_code(content: Mapping[str, Any] | None) -> int:
    try:
        return int((content or {}).get("statusCode") or 0)
    except (TypeError, ValueError, OverflowError):
        return OK
