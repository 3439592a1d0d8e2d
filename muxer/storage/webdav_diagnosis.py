"""From a refusal of a WebDAV server, or a failure on the way to it, to the error with its true cause.

Some statuses are ambiguous: 401 may be a wrong password or an account that may only read, 404 of an upload a folder that
does not exist or a limit. What decides is asked of the same server.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from muxer import transfer
from muxer.errors import (
    Code,
    FolderMissing,
    LoginRefused,
    MuxerError,
    ServiceUnavailable,
    UnreadableAnswer,
)
from muxer.gate import LoginGate
from muxer.storage import webdav_refusals as refusals
from muxer.storage.webdav_names import origin

if TYPE_CHECKING:
    import httpx
    import webdav4.client as webdav4

# Answers to an upload into a folder that does not exist: RFC 4918, nginx, and servers that name what is missing.
_NO_FOLDER = (404, 409, 500)
_FOUND = 207


class Diagnosis:
    """Creates the errors of the WebDAV storage. Safe to use from any thread."""

    def __init__(
        self, client: Callable[[], webdav4.HTTPClient], was_accepted: Callable[[str], bool], gate: LoginGate
    ) -> None:
        """Create it with what returns the HTTP `client`, `was_accepted`, which returns whether a server has accepted the
        credentials before, and the `gate` that a wrong password closes."""
        self._client, self._was_accepted, self._gate = client, was_accepted, gate

    def error_of(self, response: httpx.Response, method: str, url: str) -> MuxerError:
        """Return the error that the `response` of failure to a request with `method` for `url` stands for."""
        status = int(response.status_code)
        if status == 401:
            return self._unauthorized(response, method, url)
        if method == "PUT":
            return self._refused_upload(response, url)
        if method == "MOVE" and status == 404 and self._status_of("PROPFIND", url) == _FOUND:
            return refusals.not_moved(url)
        return refusals.error_of(status, response.headers, method, url)

    def _refused_upload(self, response: httpx.Response, url: str) -> MuxerError:
        status = int(response.status_code)
        length = transfer.announced(response.request.headers.get("Content-Length", ""))
        if status in _NO_FOLDER:
            folder = self._status_of("PROPFIND", _folder_of(url))
            if folder == 404:
                return FolderMissing(refusals.no_folder(url, status))
            if status != 500 and folder == _FOUND:
                return refusals.not_taken(url, status, length)
        return refusals.error_of(status, response.headers, "PUT", url, length)

    def _unauthorized(self, response: httpx.Response, method: str, url: str) -> MuxerError:
        """Return the error of a 401. The password is right when the same server demands credentials for reading, and accepts
        ours: then the account may only read."""
        from muxer.storage.webdav_login import offered

        # Before that nothing is known: a wrong password is not sent twice.
        if self._was_accepted(origin(url)) and method != "GET" and self._reads(_folder_of(url)):
            return refusals.read_only(method, url)
        refused = LoginRefused(refusals.refused_login(method, url, offered(response)))
        return self._gate.close(origin(url), refused)

    def _reads(self, folder: str) -> bool:
        accepted = self._status_of("HEAD", folder) not in (0, 401)
        return accepted and self._status_of("HEAD", folder, auth=None) == 401

    def _status_of(self, method: str, url: str, **more: Any) -> int:
        """Return the status of a small request, 0 when there is no response. `more` goes to the HTTP client."""
        import httpx

        try:
            return int(self._client().request(method, url, headers={"Depth": "0"}, **more).status_code)
        except (httpx.HTTPError, UnreadableAnswer):
            return 0

    @contextmanager
    def our_errors(self, method: str, url: str) -> Iterator[None]:
        """Within this block, turn what httpx and webdav4 raise about a request with `method` for `url` into our errors."""
        import httpx
        import webdav4.client as webdav4

        what = f"{method} {url}"
        try:
            yield
        except webdav4.HTTPError as error:
            raise self.error_of(error.response, method, url) from error
        except webdav4.InsufficientStorage as error:
            raise refusals.error_of(507, {}, method, url) from error
        except webdav4.ClientError as error:
            raise ServiceUnavailable(f"{what}: {type(error).__name__}") from error
        except httpx.TimeoutException as error:
            raise ServiceUnavailable(f"{what}: no answer within the time limit") from error
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            # The last one is of idna: a redirect leads to a name that is none.
            raise ServiceUnavailable(f"{what}: {type(error).__name__}: {error}", code=_code_of(error)) from error


def _folder_of(url: str) -> str:
    return f"{url.rpartition('/')[0]}/"


def _code_of(error: BaseException | None) -> Code | None:
    """Return the code of TLS when it is to blame for an error of the HTTP library."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return Code.TLS
        error = error.__cause__ or error.__context__
    return None
