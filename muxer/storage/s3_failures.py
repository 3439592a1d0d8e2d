"""Maps failed requests to an S3 store to errors with cause, option and remedy."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from muxer.errors import (
    AccessDenied,
    AuthenticationFailed,
    Code,
    MediaNotFound,
    MuxerError,
    PathForbidden,
    RequestRejected,
    ServiceUnavailable,
    StoredByOtherMuxer,
)
from muxer.gir.responses import retry_after
from muxer.net import tls
from muxer.status.advice import NO_TLS_REASONS

SCHEME_PROBE_SECONDS = 5.0
MAX_MESSAGE_LENGTH = 200
# The permission that a request needs.
_RIGHTS = {
    "GET": "s3:GetObject",
    "HEAD": "s3:GetObject",
    "LIST": "s3:ListBucket",
    "PUT": "s3:PutObject",
    "DELETE": "s3:DeleteObject",
    "ABORT": "s3:AbortMultipartUpload",
}
_CHECK_KEYS = "check [s3] access_key_id and secret_access_key, and their rights"
_BAD_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
# Responses to a request that was signed for another region, when boto3 cannot follow the store to the right one.
_BAD_REGION = ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException")
# The object of an upload with the condition "only if new" exists already, or is being uploaded.
_NOT_NEW = ("PreconditionFailed", "ConditionalRequestConflict")
_FULL = ("QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull")
_BUSY = ("SlowDown", "RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "OperationAborted")
# The store understands the request and refuses its form. That comes from the options, or from the settings of the bucket.
_OPTIONS = (
    *("InvalidRequest", "InvalidRegion", "AuthorizationQueryParametersError", "MissingSecurityHeader"),
    *("MethodNotAllowed", "MissingContentLength"),
)
_BAD_CLOCK = ("RequestTimeTooSkewed", "RequestExpired")


class ReadForbidden(PathForbidden):
    """The keys may not read an object or list a bucket. Without s3:ListBucket, a missing object is forbidden, too."""


class NotImplementedByStore(ServiceUnavailable):
    """The store does not implement a request, or one of its headers (501)."""


def http_status(response: Mapping[str, Any]) -> int:
    """Return the HTTP status of a response as boto3 gives it; 0 when there is none."""
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def s3_error_code(response: Mapping[str, Any]) -> str:
    """Return the S3 error code of a response. It is empty when the body holds none; boto3 then gives the HTTP status."""
    code = str(response.get("Error", {}).get("Code", ""))
    return "" if code.isdigit() else code


def is_unexplained(response: Mapping[str, Any]) -> bool:
    """Whether a response to a HEAD shows no cause: 400, 403 and 301 stand for a dozen."""
    status = http_status(response)
    return not s3_error_code(response) and 300 <= status < 500 and status not in (404, 408, 429)


def is_foreign_redirect(response: Mapping[str, Any]) -> bool:
    """Whether a response sends the request elsewhere, and not to another region of the store."""
    region = _get_header(response, "x-amz-bucket-region")
    return 300 <= http_status(response) < 400 and not s3_error_code(response) and not region


def wanted_region(response: Mapping[str, Any]) -> str:
    """Return the signature region that the store asks for in a response; empty when it does not name one."""
    if s3_error_code(response) not in _BAD_REGION:
        return ""
    error = response.get("Error", {})
    named = re.search(r"expecting '([^']+)'", str(error.get("Message", "")))
    return str(error.get("Region") or _get_header(response, "x-amz-bucket-region") or (named[1] if named else ""))


def s3_error(response: Mapping[str, Any], method: str, name: str) -> MuxerError:
    """Return the error of a failed request. `method` is a key of :data:`_RIGHTS`, `name` the URL."""
    code, status = s3_error_code(response), http_status(response)
    text = f"{method} {name}: HTTP {status}{f', {code}' if code else ''}"
    if not code:
        return _uncoded_error(response, text)
    if method == "ABORT" and code == "MethodNotAllowed":
        # A store that cannot give up uploads never will.
        return RequestRejected(text, status)
    message = str(response.get("Error", {}).get("Message", ""))[:MAX_MESSAGE_LENGTH]
    return (
        _rights_error(response, method, text)
        or _options_error(response, text, message)
        or _object_error(response, text, message)
    )


def _rights_error(response: Mapping[str, Any], method: str, text: str) -> MuxerError | None:
    code, status = s3_error_code(response), http_status(response)
    if code == "AccessDenied":
        lacking = f"{text}; the keys of [s3] lack the right {_RIGHTS[method]}"
        return ReadForbidden(lacking) if method in ("GET", "HEAD", "LIST") else AccessDenied(lacking)
    if code in _BAD_CLOCK:
        return AccessDenied(
            f"{text}; the clock of this machine is wrong{_clock_skew(response)}: set it", code=Code.S3_OPTIONS
        )
    if code in _BAD_KEYS or status == 401:
        return AuthenticationFailed(f"{text}; {_CHECK_KEYS}")
    return None


def _options_error(response: Mapping[str, Any], text: str, message: str) -> MuxerError | None:
    code = s3_error_code(response)
    if code in _BAD_REGION:
        region = wanted_region(response)
        remedy = f"the store wants the region {region}: set [s3] region = {region}"
        return AccessDenied(f"{text}; {remedy if region else 'check [s3] region and endpoint_url'}", code=Code.S3_OPTIONS)
    if code in _OPTIONS:
        remedy = "check [s3] region, endpoint_url and addressing_style, and the settings of the bucket"
        return AccessDenied(f"{text} ({message}); {remedy}", code=Code.S3_OPTIONS)
    if code == "NoSuchBucket":
        return ServiceUnavailable(f"{text}; the bucket does not exist")
    if code in _FULL:
        return ServiceUnavailable(f"{text}; the bucket or the store is full", code=Code.NOT_STORED)
    if code == "EntityTooLarge":
        return ServiceUnavailable(f"{text}; the store refuses files of this length: raise its limit", code=Code.NOT_STORED)
    return None


def _object_error(response: Mapping[str, Any], text: str, message: str) -> MuxerError:
    code, status = s3_error_code(response), http_status(response)
    if status == 404:
        return MediaNotFound(text)
    if code in _NOT_NEW:
        return StoredByOtherMuxer(text)
    if code == "InvalidObjectState":
        return PathForbidden(f"{text}; the object is archived: restore it in the store")
    if status == 501:
        return NotImplementedByStore(f"{text} ({message})")
    if _is_busy_status(status) or code in _BUSY:
        return ServiceUnavailable(text, _requested_wait(response))
    if status == 403:
        return AccessDenied(f"{text} ({message})")
    return RequestRejected(f"{text} ({message})" if message else text, status)


def _uncoded_error(response: Mapping[str, Any], text: str) -> MuxerError:
    """Return the error for a response without an S3 error code, such as that of a proxy."""
    status = http_status(response)
    if status in (401, 403):
        cause = f"{_CHECK_KEYS}; or a proxy refuses the request: the response holds no S3 error code"
        return AuthenticationFailed(f"{text}; {cause}")
    if status == 404:
        return MediaNotFound(text)
    if 300 <= status < 400:
        parts = urlsplit(_get_header(response, "location"))
        there = f" to {parts.scheme}://{parts.hostname}" if parts.hostname else ""
        return AccessDenied(f"{text}; redirected{there}; check [s3] endpoint_url and region", code=Code.S3_OPTIONS)
    if status == 413:
        remedy = "raise its limit for the length of a request body (client_max_body_size of nginx)"
        return ServiceUnavailable(f"{text}; a proxy before the store refuses this length: {remedy}", code=Code.NOT_STORED)
    if _is_busy_status(status):
        return ServiceUnavailable(text, _requested_wait(response))
    remedy = "the response holds no S3 error code: check [s3] endpoint_url (http or https, host, port), and proxies between"
    return AccessDenied(f"{text}; {remedy}", code=Code.S3_OPTIONS)


def _is_busy_status(status: int) -> bool:
    return status >= 500 or status < 400 or status in (408, 429)


def _requested_wait(response: Mapping[str, Any]) -> float | None:
    return retry_after({"Retry-After": _get_header(response, "retry-after")})


def _get_header(response: Mapping[str, Any], name: str) -> str:
    return str(response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get(name, ""))


def _clock_skew(response: Mapping[str, Any]) -> str:
    """Return by how much the clock of this machine differs from that of the store, in words; empty when it is not known."""
    try:
        theirs = parsedate_to_datetime(_get_header(response, "date"))
        seconds = (_utc_now() - theirs).total_seconds()
    except (ValueError, TypeError):
        return ""
    return f", {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} that of the store"


def _utc_now() -> datetime:
    return datetime.now(UTC)


def scheme_problem(endpoint_url: str | None, error: BaseException | None = None) -> str:
    """Return what is wrong with http or https in [s3] `endpoint_url`, or an empty text; http is tried with TLS."""
    parts = urlsplit(endpoint_url or "")
    if parts.scheme == "http" and tls.accepts_tls(parts.hostname or "", parts.port or 80, SCHEME_PROBE_SECONDS):
        return "the port speaks TLS: write https:// in [s3] endpoint_url"
    if parts.scheme == "https" and _is_no_tls(error):
        return "nothing speaks TLS on this port: write http:// or the TLS port in [s3] endpoint_url"
    return ""


def _is_no_tls(error: BaseException | None) -> bool:
    """Whether a connection failed because the other side does not speak TLS, by what OpenSSL gives as the reason."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and error.reason in NO_TLS_REASONS:
            return True
        error = error.__cause__ or error.__context__
    return False
