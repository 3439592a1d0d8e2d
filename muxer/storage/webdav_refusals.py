"""Maps HTTP statuses of WebDAV servers to errors with cause and remedy. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from muxer.errors import MuxerError, PathForbidden, RequestRejected, ServiceFailed, ServiceUnavailable, StorageMisconfigured
from muxer.gir.responses import retry_after

MULTIVIEWS_TEXT = (
    "Apache's MultiViews takes another file for a name that does not exist; take MultiViews out of the line Options of that "
    "folder (Options Indexes FollowSymLinks)"
)
# What to do about some statuses.
_ADVICE_TEXTS = {
    403: "the account of [webdav] lacks the right to it",
    423: "it is locked on the server",
    507: "the storage is full, make room there",
}
_NOT_ACCEPTED = "the server, or a proxy before it, does not accept the request; see its log"
_GONE = 410
_SETUP_TEXTS = {
    400: _NOT_ACCEPTED,
    413: (
        "the server, or a proxy before it, limits the size of an upload; raise client_max_body_size in nginx (1 MB unless "
        "set), LimitRequestBody in Apache (1 GB unless set), maxAllowedContentLength in IIS (30 MB unless set), "
        "server.max-request-size in lighttpd"
    ),
}
_NO_METHOD_TEXTS = {
    "PROPFIND": (
        "the server does not offer WebDAV in this folder; enable it there (Dav On in Apache, dav_ext_methods PROPFIND in "
        "nginx, WebDAV Publishing in IIS), or let the proxy before it pass WebDAV requests"
    ),
    "PUT": "the server does not accept uploads in this folder; enable WebDAV with writing there",
    "DELETE": "the server does not allow to delete in this folder; enable WebDAV with writing there",
}
_PASSWORD_SCHEMES = {"Basic", "Digest"}


def refusal_error(status: int, headers: Mapping[str, str], method: str, url: str, length: int | None = None) -> MuxerError:
    """Return the error that a `status` of failure stands for, but for 401. `length` is that of an upload in bytes."""
    text = f"{method} {url}: HTTP {status}"
    if status in _SETUP_TEXTS:
        size = f" to an upload of {length} bytes" if length is not None else ""
        return StorageMisconfigured(f"{text}{size}; {_SETUP_TEXTS[status]}")
    if status in (405, 501):
        what = _NO_METHOD_TEXTS.get(method, f"the server does not offer {method} in this folder")
        return StorageMisconfigured(f"{text}; {what}")
    if status == 409 and method == "PUT":
        return ServiceUnavailable(no_folder_text(url, status))
    if status == 409 and method == "MOVE":
        return ServiceUnavailable(
            f"{text}; the server does not find the folder of the new name, make it on the server; if it exists, see the log "
            "of the server"
        )
    text += f"; {_ADVICE_TEXTS[status]}" if status in _ADVICE_TEXTS else ""
    if status == 403:
        return PathForbidden(text)
    if status == 500:
        return ServiceFailed(text, retry_after(headers))
    if status < 400:
        return ServiceUnavailable(_add_redirect(text, headers))
    if status > 500 or status in (404, 408, 409, 423, 429):
        return ServiceUnavailable(text, retry_after(headers))
    if status == _GONE:
        return RequestRejected(text, status)
    return StorageMisconfigured(f"{text}; {_NOT_ACCEPTED}")


def upload_refused(url: str, status: int, length: int | None) -> MuxerError:
    """Return the error of an upload of `length` bytes to `url` that got the `status` 404 or 409 though the folder exists."""
    text = f"PUT {url}: HTTP {status} to an upload of {length} bytes although the folder exists"
    if status != 404:
        return ServiceUnavailable(f"{text}; see the log of the server")
    return StorageMisconfigured(
        f"{text}; IIS answers so (404.13) when a file is larger than maxAllowedContentLength in its request filtering "
        "(30000000 bytes unless set), raise it there"
    )


def move_refused(url: str) -> StorageMisconfigured:
    """Return the error of a 404 to a MOVE of the file at `url`, which exists."""
    return StorageMisconfigured(
        f"MOVE {url}: HTTP 404 although the file exists; {MULTIVIEWS_TEXT}; or a proxy before the server does not pass MOVE"
    )


def no_folder_text(url: str, status: int) -> str:
    """Return the text of the `status` of an upload to `url` into a folder that does not exist."""
    return f"PUT {url}: HTTP {status}; the folder does not exist, make it on the server"


def read_only_error(method: str, url: str) -> PathForbidden:
    """Return the error of a 401 to an account whose credentials are accepted for reading."""
    return PathForbidden(
        f"{method} {url}: HTTP 401; the server accepts the credentials of [webdav] for reading, so the password is right, "
        "but the account may not write there; give it the right to PROPFIND, PUT, MOVE and DELETE in this folder"
    )


def unauthorized_text(method: str, url: str, schemes: Sequence[str]) -> str:
    """Return the text of a 401. `schemes` are what the server offers to authenticate with."""
    text = f"{method} {url}: HTTP 401"
    if schemes and not _PASSWORD_SCHEMES & {one.capitalize() for one in schemes}:
        offered = ", ".join(dict.fromkeys(schemes))
        return f"{text}; the server accepts only {offered}, enable Basic or Digest authentication for [webdav] username"
    return f"{text}; check [webdav] username and password"


def other_file_error(method: str, url: str, found: str) -> StorageMisconfigured:
    """Return the error of a request that would hit the file `found` in place of that at `url`."""
    return StorageMisconfigured(f"{method} {url}: not sent, since the server would take {found} for it; {MULTIVIEWS_TEXT}")


def _add_redirect(text: str, headers: Mapping[str, str]) -> str:
    location = headers.get("Location", "")
    return f"{text}; the server redirects to {location}" if location else text
