"""Finds the cause of a failed WebDAV request by small further requests, where a status is ambiguous."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from muxer.errors import (
    AuthenticationFailed,
    Code,
    FolderMissing,
    MuxerError,
    ServiceUnavailable,
    UnreadableResponse,
)
from muxer.net import transfer
from muxer.storage import webdav_refusals as refusals
from muxer.storage.webdav_names import url_origin

if TYPE_CHECKING:
    import httpx
    import webdav4.client as webdav4

# Responses to an upload into a folder that does not exist: RFC 4918, nginx, and servers that name what is missing.
_NO_FOLDER = (404, 409, 500)
_MULTI_STATUS = 207


class Diagnosis:
    """Creates the errors of the WebDAV storage. Safe to use from any thread."""

    def __init__(self, client: Callable[[], webdav4.HTTPClient], was_accepted: Callable[[str], bool]) -> None:
        """`client` returns the HTTP client, `was_accepted` whether a server has accepted the credentials before."""
        self._client, self._was_accepted = client, was_accepted

    def response_error(self, response: httpx.Response, method: str, url: str) -> MuxerError:
        """Return the error that the `response` of failure to a request with `method` for `url` stands for."""
        status = int(response.status_code)
        if status == 401:
            return self._unauthorized_error(response, method, url)
        if method == "PUT":
            return self._upload_error(response, url)
        if method == "MOVE" and status == 404 and self._request_status("PROPFIND", url) == _MULTI_STATUS:
            return refusals.move_refused(url)
        return refusals.refusal_error(status, response.headers, method, url)

    def _upload_error(self, response: httpx.Response, url: str) -> MuxerError:
        status = int(response.status_code)
        length = transfer.content_length(response.request.headers.get("Content-Length", ""))
        if status in _NO_FOLDER:
            folder = self._request_status("PROPFIND", _folder_url(url))
            if folder == 404:
                return FolderMissing(refusals.no_folder_text(url, status))
            if status != 500 and folder == _MULTI_STATUS:
                return refusals.upload_refused(url, status, length)
        return refusals.refusal_error(status, response.headers, "PUT", url, length)

    def _unauthorized_error(self, response: httpx.Response, method: str, url: str) -> MuxerError:
        """Return the error of a 401: a wrong password, or an account that may only read."""
        from muxer.storage.webdav_login import offered_schemes

        # Before that nothing is known: a wrong password is not sent twice.
        if self._was_accepted(url_origin(url)) and method != "GET" and self._can_read(_folder_url(url)):
            return refusals.read_only_error(method, url)
        return AuthenticationFailed(refusals.unauthorized_text(method, url, offered_schemes(response)))

    def _can_read(self, folder: str) -> bool:
        accepted = self._request_status("HEAD", folder) not in (0, 401)
        return accepted and self._request_status("HEAD", folder, auth=None) == 401

    def _request_status(self, method: str, url: str, **more: Any) -> int:
        """Return the status of a small request, 0 when there is no response. `more` goes to the HTTP client."""
        import httpx

        try:
            return int(self._client().request(method, url, headers={"Depth": "0"}, **more).status_code)
        except (httpx.HTTPError, UnreadableResponse):
            return 0

    @contextmanager
    def translate_errors(self, method: str, url: str) -> Iterator[None]:
        """Within this block, turn what httpx and webdav4 raise about a request with `method` for `url` into our errors."""
        import httpx
        import webdav4.client as webdav4

        what = f"{method} {url}"
        try:
            yield
        except webdav4.HTTPError as error:
            raise self.response_error(error.response, method, url) from error
        except webdav4.InsufficientStorage as error:
            raise refusals.refusal_error(507, {}, method, url) from error
        except webdav4.ClientError as error:
            raise ServiceUnavailable(f"{what}: {type(error).__name__}") from error
        except httpx.TimeoutException as error:
            raise ServiceUnavailable(f"{what}: no response within the time limit") from error
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            # UnicodeError is of idna: the target of a redirect is not a valid host name.
            raise ServiceUnavailable(f"{what}: {type(error).__name__}: {error}", code=_tls_code(error)) from error


def _folder_url(url: str) -> str:
    return f"{url.rpartition('/')[0]}/"


def _tls_code(error: BaseException | None) -> Code | None:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return Code.TLS
        error = error.__cause__ or error.__context__
    return None
