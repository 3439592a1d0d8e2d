"""WebDAV storage: webdav4 for properties, own GET and PUT requests with length checks on its HTTP client.

Both libraries are imported when they are first used, because their import takes time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from xml.etree.ElementTree import ParseError

from muxer.config.load import UNCHECKED_TLS_TEXT
from muxer.config.schema import WebdavOptions
from muxer.errors import (
    Code,
    MediaNotFound,
    Permanent,
    ServiceUnavailable,
    Stopped,
    StoredByOtherMuxer,
    Transient,
    UnreadableResponse,
)
from muxer.gir.responses import is_message_type
from muxer.net import tls, transfer
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.net.step_retry import Repeat, call_once
from muxer.status import activity
from muxer.storage import webdav_refusals as refusals
from muxer.storage.allowed_hosts import AllowedHosts
from muxer.storage.base import WEBDAV, MediaLocation, ObjectInfo, StoredFile
from muxer.storage.upload_intents import UploadIntents
from muxer.storage.webdav_diagnosis import Diagnosis
from muxer.storage.webdav_names import file_name_in, is_other_file, temporary_name, url_origin
from muxer.storage.webdav_renaming import MOVE_DELAYS, RenameSupport
from muxer.system.intent_log import remove_record

if TYPE_CHECKING:
    import httpx
    import webdav4.client as webdav4

    from muxer.storage.webdav_login import WebdavAuth

log = logging.getLogger(__name__)

# Statuses of MOVE: the server cannot rename at all; it may accept another form, or a repeated request.
_MOVE_UNSUPPORTED = (405, 501)
_DOUBTFUL_MOVE = (400, 403, 502)
_EXISTS = 412
# Statuses of a successful MOVE (RFC 4918). 207 means failure, 200 may be the page of a proxy.
_MOVED = (201, 204)


class WebdavStorage:
    """All WebDAV servers of the region under one account (guide). Safe to use from any thread."""

    def __init__(
        self,
        options: WebdavOptions,
        instance: str,
        uploading: Path,
        stop: threading.Event,
        circuit_breaker: CircuitBreaker | None = None,
        site: Sequence[str] = (),
        repeat: Repeat = call_once,
    ) -> None:
        """`instance` marks unfinished uploads, `site` has the addresses of RWS and RCS, `repeat` calls each step."""
        self._stop = stop
        self._repeat = repeat
        self._circuit_breaker = circuit_breaker or CircuitBreaker()
        self._instance = instance
        self._intents = UploadIntents(uploading, WEBDAV)
        self._options = options
        self._hosts = AllowedHosts(options.hosts, site)
        self._tls = tls.client_context(options.trusted_ca)
        self._lock = threading.Lock()
        self._client: webdav4.HTTPClient | None = None
        self._login: WebdavAuth | None = None
        self._servers: dict[str, webdav4.Client] = {}
        self._diagnosis = Diagnosis(lambda: self._http_client, self._was_accepted)
        self._renaming = RenameSupport()
        self._unchecked = not options.trusted_ca

    def download_file(self, location: MediaLocation, path: Path) -> transfer.ReceivedLength:
        """Stream a file to `path`, check its length and return it. Raises MediaNotFound when it does not exist."""
        with (
            self._guarded_request("GET", location.url),
            self._http_client.stream("GET", location.url, follow_redirects=True) as response,
        ):
            if response.status_code == 404:
                raise MediaNotFound(f"{location.url} does not exist (404)")
            self._check_response(response, "GET", location.url)
            if is_other_file(location.name, other := response.headers.get("Content-Location", "")):
                raise MediaNotFound(f"{location.url} does not exist; the server sends {file_name_in(other)} for it")
            if is_message_type(kind := response.headers.get("Content-Type", "")):
                raise UnreadableResponse(f"GET {location.url}: the response is {kind} instead of media")
            length = response.headers.get("Content-Length", "")
            return transfer.receive_file(
                response.iter_raw(),
                path,
                expected=transfer.content_length(length),
                source=location.url,
                stop=self._stop,
                modified=transfer.modified_at(response.headers),
            )

    def upload_file(self, path: Path, location: MediaLocation, may_replace: Callable[[], bool]) -> ObjectInfo:
        """Upload under a temporary name and rename, or under the final name if the server cannot; see :class:`Storage`."""
        server = url_origin(location.url)
        self._await_challenge(location)
        if self._renaming.is_possible(server):
            with self._temporary_upload(location) as unfinished:
                self._upload_checked(path, unfinished)
                if self._repeat("rename", lambda: self._move_file(unfinished, location, may_replace)):
                    return self._check_upload(path, location)
                self._remove_file(unfinished)
            log.warning("%s; the upload goes to its final name", self._renaming.last_refusal(server))
        if self._head_exact_name(location, "PUT") is not None and not may_replace():
            raise StoredByOtherMuxer(f"{location.url} is stored already")
        return self._upload_checked(path, location)

    def head(self, location: MediaLocation) -> ObjectInfo | None:
        """Return length and tag of the file at `location`, None when it does not exist. Raises ServiceUnavailable."""
        found = self._read_properties(location)
        if found is None or found.name != location.name:
            return None
        if found.length is None:
            raise ServiceUnavailable(f"PROPFIND {location.url}: the response does not contain the length")
        return ObjectInfo(int(found.length), found.tag)

    def can_prove_absence(self, location: MediaLocation) -> bool:
        """Return True: a server that does not show a file to our account responds with an error."""
        return True

    def list_folder(self, location: MediaLocation) -> Iterator[StoredFile]:
        """Yield the files in the folder of `location`, while the response arrives."""
        from muxer.storage.webdav_listing import LISTING_DEPTH, read_listing

        url = location.sibling("").url
        with (
            self._guarded_request("PROPFIND", url),
            self._http_client.stream("PROPFIND", url, headers={"Depth": LISTING_DEPTH}) as response,
        ):
            if response.status_code != 404:
                self._check_response(response, "PROPFIND", url)
                yield from read_listing(response.iter_bytes(), url)

    def has_folder(self, location: MediaLocation) -> bool:
        """Whether the folder of `location` exists."""
        return self._read_properties(location.sibling("")) is not None

    def has_name_negotiation(self, location: MediaLocation) -> bool:
        """Whether the server shows the file at `location` under a shortened name, too, as Apache with MultiViews does."""
        stem, found = location.name.rpartition(".")[0], None
        with suppress(Transient, Permanent):
            found = self._read_properties(location.sibling(stem)) if stem else None
        return found is not None and found.name != stem

    def renaming_refusal(self, location: MediaLocation) -> str:
        """Return how the server of `location` refused to rename a file, empty when it did not."""
        return self._renaming.last_refusal(url_origin(location.url))

    def authentication_scheme(self, location: MediaLocation) -> str:
        """Return the authentication scheme of the server of `location`, empty when no credentials are sent."""
        return self._login.server_scheme(url_origin(location.url)) if self._login is not None else ""

    def _read_properties(self, location: MediaLocation) -> _FoundFile | None:
        import webdav4.client as webdav4
        from webdav4.multistatus import parse_multistatus_response

        def send_propfind() -> httpx.Response:
            response: httpx.Response = self._http_client.propfind(location.url, headers={"Depth": "0"})
            if not response.is_success:
                raise webdav4.HTTPError(response)
            return response

        with self._guarded_request("PROPFIND", location.url):
            try:
                status = parse_multistatus_response(self._server_client(location.url).with_retry(send_propfind))
                found = next(iter(status.responses.values()))
                name = location.name if not is_other_file(location.name, found.href) else file_name_in(found.href)
                tag = str(found.properties.etag or "").removeprefix("W/")
                return _FoundFile(name, found.properties.content_length, tag)
            except webdav4.HTTPError as error:
                if error.status_code == 404:
                    return None
                raise
            except (AssertionError, OverflowError, ValueError, ParseError, StopIteration) as error:
                raise UnreadableResponse(f"PROPFIND {location.url}: the response is not valid WebDAV") from error

    def _head_exact_name(self, location: MediaLocation, method: str) -> ObjectInfo | None:
        """Return length and tag before a change. Raises StorageMisconfigured when that would affect another file."""
        found = self._read_properties(location)
        if found is not None and found.name != location.name:
            raise refusals.other_file_error(method, location.url, found.name)
        return ObjectInfo(int(found.length or 0), found.tag) if found is not None else None

    def delete_file(self, location: MediaLocation) -> None:
        """Delete a file if it exists. Raises ServiceUnavailable when it still exists afterwards."""
        if self.head(location) is None:
            log.debug("%s is deleted already", location.url)
        else:
            self._remove_file(location)

    def _remove_file(self, location: MediaLocation) -> None:
        """Delete a file of ours without checking its name first, also while the process stops."""
        with self._guarded_request("DELETE", location.url):
            response = self._http_client.request("DELETE", location.url)
            if response.status_code == 404:
                log.debug("%s is deleted already", location.url)
                return
            self._check_response(response, "DELETE", location.url)
        if self.head(location) is not None:
            raise ServiceUnavailable(f"DELETE {location.url}: the file still exists")

    def remove_leftovers(self) -> None:
        """Delete the unfinished uploads of processes that died, and those that could not be deleted at the time."""
        self._intents.delete_unfinished(lambda location, _: self.delete_file(location))

    @contextmanager
    def _temporary_upload(self, location: MediaLocation) -> Iterator[MediaLocation]:
        """Yield the temporary location of an upload. It is recorded on disk, and deleted unless it was renamed."""
        unfinished = location.sibling(temporary_name(self._instance, location.name))
        with self._intents.pending_upload(unfinished) as record:
            try:
                yield unfinished
            except BaseException:
                with suppress(Transient, Permanent):
                    self._remove_file(unfinished)
                    remove_record(record)
                raise

    def _await_challenge(self, location: MediaLocation) -> None:
        """Send a small request where Digest may be needed, so that its challenge does not require a second upload."""
        client = self._http_client
        if self._login is not None and self._login.may_challenge(url_origin(location.url)):
            with self._guarded_request("PROPFIND", (folder := location.sibling("")).url):
                response = client.propfind(folder.url, headers={"Depth": "0"})
                if response.status_code == 401:
                    self._check_response(response, "PROPFIND", folder.url)

    def _upload_checked(self, path: Path, location: MediaLocation) -> ObjectInfo:
        self._repeat("upload", lambda: self._put_file(path, location))
        return self._check_upload(path, location)

    def _put_file(self, path: Path, location: MediaLocation) -> None:
        from muxer.storage import webdav_http

        length = path.stat().st_size
        limit = transfer.time_limit(length)
        deadline = time.monotonic() + limit
        with self._guarded_request("PUT", location.url), path.open("rb") as file:
            body = _UploadBody(file, length, lambda: transfer.check_progress(deadline, location.url, self._stop))
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
            timeout = webdav_http.upload_timeout(limit)
            response = self._http_client.put(location.url, content=body, headers=headers, timeout=timeout)
            self._check_response(response, "PUT", location.url)
            kind = response.headers.get("Content-Type", "")
            if response.status_code == 200 and response.content and is_message_type(kind):
                raise UnreadableResponse(f"PUT {location.url}: the response is {kind}")

    def _check_upload(self, path: Path, location: MediaLocation) -> ObjectInfo:
        return self._repeat("checking the upload", lambda: self._compare_length(path, location))

    def _compare_length(self, path: Path, location: MediaLocation) -> ObjectInfo:
        stored, length = self.head(location), path.stat().st_size
        if stored is None or stored.length != length:
            raise ServiceUnavailable(
                f"{location.url} holds {f'{stored.length} bytes' if stored else 'nothing'} after an upload of {length}",
                code=Code.NOT_STORED,
            )
        return stored

    def _move_file(self, source: MediaLocation, target: MediaLocation, may_replace: Callable[[], bool]) -> bool:
        """Rename; False when the server does not. Raises StoredByOtherMuxer when the target must stay."""
        status = self._request_move(source, target, overwrite="F")
        if status == _EXISTS:
            self._head_exact_name(target, "MOVE")
            if not may_replace():
                raise StoredByOtherMuxer(f"{target.url} is stored already")
            status = self._request_move(source, target, overwrite="T")
            if status == _EXISTS:
                raise ServiceUnavailable(
                    f"MOVE {source.url}: HTTP {status}; the server lets nothing replace {target.name}", code=Code.NOT_STORED
                )
        return status in _MOVED or self._is_moved(source, status)

    def _is_moved(self, source: MediaLocation, status: int) -> bool:
        """Whether a file was renamed although `status` does not say so."""
        if self.head(source) is None:
            return True
        server, refused = url_origin(source.url), f"MOVE {source.url}: HTTP {status}"
        if status in _MOVE_UNSUPPORTED:
            self._renaming.mark_impossible(server, f"{refused}; the server cannot rename files")
        elif status in _DOUBTFUL_MOVE:
            advice = "let the account, and each proxy before the server, rename files (MOVE, with its header Destination)"
            self._renaming.record_refusal(server, f"{refused}, also when repeated; {advice}")
        else:
            raise UnreadableResponse(f"{refused}, and the file was not renamed")
        return False

    def _request_move(self, source: MediaLocation, target: MediaLocation, overwrite: str) -> int:
        """Send MOVE, with several forms of the target address; return its status. Raises errors not about renaming."""
        server, first = url_origin(source.url), 0
        for delay, (form, destination) in zip(
            MOVE_DELAYS, self._renaming.destination_forms(server, target.url), strict=True
        ):
            if self._stop.wait(delay):
                raise Stopped(f"stopped while renaming {source.url}")
            with self._guarded_request("MOVE", source.url):
                headers = {"Destination": destination, "Overwrite": overwrite}
                response = self._http_client.request("MOVE", source.url, headers=headers)
                status = int(response.status_code)
                if status in (*_MOVED, _EXISTS, *_MOVE_UNSUPPORTED):
                    self._renaming.remember_form(server, form)
                    return status
                if not first and status not in _DOUBTFUL_MOVE:
                    self._check_response(response, "MOVE", source.url)
                    return status
                first = first or status
        return first

    @property
    def _http_client(self) -> webdav4.HTTPClient:
        from muxer.storage import webdav_http
        from muxer.storage.allowlist_transport import AllowlistTransport
        from muxer.storage.webdav_login import WebdavAuth

        with self._lock:
            if self._client is None:
                if self._options.username:
                    self._login = WebdavAuth(self._options.username, self._options.password)
                transport = AllowlistTransport(self._hosts, self._tls)
                self._client = webdav_http.create_http_client(self._login, transport, self._stop)
            return self._client

    def _server_client(self, url: str) -> webdav4.Client:
        import webdav4.client as webdav4

        server, http = url_origin(url), self._http_client
        with self._lock:
            if server not in self._servers:
                self._servers[server] = webdav4.Client(server, http_client=http)
            return self._servers[server]

    def _was_accepted(self, server: str) -> bool:
        return self._login is not None and self._login.was_accepted(server)

    def _check_response(self, response: httpx.Response, method: str, url: str) -> None:
        if not response.is_success:
            raise self._diagnosis.response_error(response, method, url)

    @contextmanager
    def _guarded_request(self, method: str, url: str) -> Iterator[None]:
        if self._unchecked and url.startswith("https:"):
            self._unchecked = False
            log.warning(UNCHECKED_TLS_TEXT.format("webdav"))
        with self._circuit_breaker.call(f"WebDAV {url_origin(url)}"), self._diagnosis.translate_errors(method, url):
            yield


class _UploadBody:
    """The body of an upload, which checks before each read whether to continue. It can be sent again."""

    def __init__(self, file: BinaryIO, length: int, check: Callable[[], None]) -> None:
        self._file, self._length, self._check = file, length, check

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        activity.set_expected_amount(self._length)
        while chunk := self._file.read(transfer.CHUNK_BYTES):
            self._check()
            yield chunk
            activity.add_progress(len(chunk))


@dataclass(frozen=True)
class _FoundFile:
    """A stored file: its name on the server, its length in bytes (None: unknown) and its tag."""

    name: str
    length: int | None
    tag: str
