"""WebDAV storage: webdav4 for the questions, GET and PUT of our own on its HTTP client.

webdav4's own download resumes without looking at the answer's status and does not check lengths, and its upload is not
tried again; so media are streamed here, with length checks, quoted names and time limits. Both libraries are imported at the
first use: their loading takes time at the start.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

from muxer import activity, tls, transfer
from muxer.config.load import UNCHECKED_TLS
from muxer.config.schema import Webdav
from muxer.errors import (
    Code,
    LoginRefused,
    MediaNotFound,
    MuxerError,
    Permanent,
    PlaceClosed,
    RequestRejected,
    ServiceFailed,
    ServiceUnavailable,
    StoredElsewhere,
    Transient,
    UnreadableAnswer,
)
from muxer.gate import LoginGate
from muxer.gir.answers import is_message, retry_after
from muxer.outages import Outages
from muxer.repeat import Repeat, once
from muxer.storage.base import WEBDAV, Place, Stored
from muxer.storage.hosts import Hosts
from muxer.storage.notes import Notes, remove_note

if TYPE_CHECKING:
    import httpx
    import webdav4.client as webdav4

log = logging.getLogger(__name__)

# A server that cannot rename answers so; 502 is what a proxy says that does not know the Destination's scheme.
_NO_MOVE = (400, 403, 405, 501, 502)
_EXISTS = 412
# What a server says that has renamed a file (RFC 4918). 207 means that it has not, 200 may be the page of a proxy.
_MOVED = (201, 204)
# What to do about some answers.
_ADVICE = {
    403: "; the account of [webdav] lacks the right to it",
    409: "; the folder does not exist, make it on the server",
    423: "; it is locked on the server",
    507: "; the storage is full, make room there",
}


class WebdavStorage:
    """All WebDAV servers of the region under one account (guide). Safe to use from any thread."""

    def __init__(
        self,
        options: Webdav,
        instance: str,
        uploading: Path,
        stop: threading.Event,
        outages: Outages | None = None,
        site: Sequence[str] = (),
        repeat: Repeat = once,
    ) -> None:
        """Given the account, a short name for this instance (it marks unfinished uploads), the folder that keeps what is
        being uploaded, the stop event, what is told of the servers' failures, and the addresses of RWS and RCS. `repeat`
        calls each part of an upload that may fail."""
        self._stop = stop
        self._repeat = repeat
        self._outages = outages or Outages()
        self._instance = instance
        self._notes = Notes(uploading, WEBDAV)
        self._login = (options.username, options.password)
        self._hosts = Hosts(options.hosts, site)
        self._tls = tls.context(options.trusted_ca)
        self._lock = threading.Lock()
        self._made: webdav4.HTTPClient | None = None
        self._servers: dict[str, webdav4.Client] = {}
        self._gate = LoginGate()
        self._without_move: set[str] = set()
        self._unchecked = not options.trusted_ca

    def fetch(self, place: Place, path: Path) -> transfer.Received:
        """Stream a file to ``path``, check its length and return it. Raise :class:`MediaNotFound` when it is not there."""
        with self._talking("GET", place.url), self._http.stream("GET", place.url, follow_redirects=True) as response:
            if response.status_code == 404:
                raise MediaNotFound(f"{place.url} is not there (404)")
            self._check(response, "GET", place.url)
            if is_message(kind := response.headers.get("Content-Type", "")):
                raise UnreadableAnswer(f"GET {place.url}: answered {kind} where media was expected")
            length = response.headers.get("Content-Length", "")
            return transfer.receive(
                response.iter_raw(),
                path,
                expected=transfer.announced(length),
                source=place.url,
                stop=self._stop,
                modified=transfer.modified_at(response.headers),
            )

    def store(self, path: Path, place: Place, may_replace: Callable[[], bool]) -> Stored:
        """Upload a file under a temporary name, check its length, and rename it; see :class:`Storage`.

        A server that cannot rename gets the file under its final name, with a check of its length all the same.
        """
        origin = _origin(place.url)
        if origin not in self._without_move:
            with self._unfinished(place) as unfinished:
                self._upload(path, unfinished)
                if self._repeat("rename", lambda: self._move(unfinished, place, may_replace)):
                    return self._checked(path, place)
                self.delete(unfinished)
            log.warning("%s cannot rename files; uploads go to their final names", origin)
            self._without_move.add(origin)
        if self.describe(place) is not None and not may_replace():
            raise StoredElsewhere(f"{place.url} is stored already")
        return self._upload(path, place)

    def describe(self, place: Place) -> Stored | None:
        """Return length and tag of what is stored at a place, None when nothing is."""
        found = self._properties(place)
        if found is None:
            return None
        length, tag = found
        if length is None:
            raise ServiceUnavailable(f"PROPFIND {place.url}: the server does not tell the length")
        return Stored(int(length), tag)

    def has_folder(self, place: Place) -> bool:
        """Whether the folder of a place is there."""
        return self._properties(place.beside("")) is not None

    def _properties(self, place: Place) -> tuple[int | None, str] | None:
        """Return length and tag of what is at a place, None when nothing is; a folder has no length."""
        import webdav4.client as webdav4

        with self._talking("PROPFIND", place.url):
            try:
                answer = self._server(place.url).propfind(urlsplit(place.url).path, headers={"Depth": "0"})
                properties = next(iter(answer.responses.values())).properties
                return properties.content_length, str(properties.etag or "").removeprefix("W/")
            except webdav4.ResourceNotFound:
                return None
            except (ValueError, ParseError, StopIteration) as error:
                raise UnreadableAnswer(f"PROPFIND {place.url}: the answer is none of WebDAV") from error

    def delete(self, place: Place) -> None:
        """Delete a file; one that is gone already is no error. Raise :class:`ServiceUnavailable` when it is still there: the
        page of a proxy is a success, too."""
        import webdav4.client as webdav4

        with self._talking("DELETE", place.url):
            try:
                self._server(place.url).remove(urlsplit(place.url).path)
            except webdav4.ResourceNotFound:
                log.debug("%s is gone already", place.url)
                return
        if self.describe(place) is not None:
            raise ServiceUnavailable(f"DELETE {place.url}: the file is still there")

    def remove_left_overs(self) -> None:
        """Delete the unfinished uploads of an earlier process that died, and those that could not be deleted at the time."""
        self._notes.clean(lambda place, _: self.delete(place))

    @contextmanager
    def _unfinished(self, place: Place) -> Iterator[Place]:
        """Yield the temporary place of an upload. It is noted on disk before, and deleted unless it was renamed."""
        unfinished = place.beside(f"{place.name}.{self._instance}.part")
        with self._notes.during(unfinished) as note:
            try:
                yield unfinished
            except BaseException:
                with suppress(Transient, Permanent):
                    self.delete(unfinished)
                    remove_note(note)
                raise

    def _upload(self, path: Path, place: Place) -> Stored:
        self._repeat("upload", lambda: self._put(path, place))
        return self._checked(path, place)

    def _put(self, path: Path, place: Place) -> None:
        length = path.stat().st_size
        deadline = time.monotonic() + transfer.time_limit(length)
        activity.expect(length)
        with self._talking("PUT", place.url), path.open("rb") as file:
            body = _Body(file, lambda: transfer.check_progress(deadline, place.url, self._stop))
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
            response = self._http.put(place.url, content=body, headers=headers)
            self._check(response, "PUT", place.url)
            kind = response.headers.get("Content-Type", "")
            if response.status_code == 200 and response.content and is_message(kind):
                raise UnreadableAnswer(f"PUT {place.url}: answered {kind}")

    def _checked(self, path: Path, place: Place) -> Stored:
        return self._repeat("looking at the upload", lambda: self._compared(path, place))

    def _compared(self, path: Path, place: Place) -> Stored:
        stored, length = self.describe(place), path.stat().st_size
        if stored is None or stored.length != length:
            raise ServiceUnavailable(
                f"{place.url} holds {'nothing' if stored is None else f'{stored.length} bytes'} after an upload of {length}",
                code=Code.NOT_STORED,
            )
        return stored

    def _move(self, source: Place, target: Place, may_replace: Callable[[], bool]) -> bool:
        """Rename a file; return False when the server cannot. Raise :class:`StoredElsewhere` when the target exists and
        must stay."""
        status = self._moved(source, target, overwrite="F")
        if status == _EXISTS:
            if not may_replace():
                raise StoredElsewhere(f"{target.url} is stored already")
            status = self._moved(source, target, overwrite="T")
            if status == _EXISTS:
                raise ServiceUnavailable(
                    f"MOVE {source.url}: HTTP {status}; the server lets nothing replace {target.name}", code=Code.NOT_STORED
                )
        if status not in (*_NO_MOVE, *_MOVED) and self.describe(source) is not None:
            raise UnreadableAnswer(f"MOVE {source.url}: HTTP {status}, and the file is where it was")
        return status not in _NO_MOVE

    def _moved(self, source: Place, target: Place, overwrite: str) -> int:
        """Ask the server to rename a file and return its status; raise what is no answer to that question."""
        headers = {"Destination": target.url, "Overwrite": overwrite}
        with self._talking("MOVE", source.url):
            response = self._http.request("MOVE", source.url, headers=headers)
            if response.status_code not in (*_NO_MOVE, _EXISTS):
                self._check(response, "MOVE", source.url)
            return int(response.status_code)

    @property
    def _http(self) -> webdav4.HTTPClient:
        from muxer.storage import webdav_http
        from muxer.storage.guard import Guard

        with self._lock:
            if self._made is None:
                self._made = webdav_http.client(self._login, Guard(self._hosts, self._tls), self._stop)
            return self._made

    def _server(self, url: str) -> webdav4.Client:
        import webdav4.client as webdav4

        origin, http = _origin(url), self._http
        with self._lock:
            if origin not in self._servers:
                self._servers[origin] = webdav4.Client(origin, http_client=http)
            return self._servers[origin]

    def _check(self, response: httpx.Response, method: str, url: str) -> None:
        if not response.is_success:
            raise self._failure(response.status_code, response.headers, f"{method} {url}")

    def _failure(self, status: int, headers: Any, what: str) -> MuxerError:
        """Given a status that means failure, return the error it stands for."""
        text = f"{what}: HTTP {status}{_ADVICE.get(status, '')}"
        if status == 401:
            refused = LoginRefused(f"{text}; check [webdav] username and password")
            return self._gate.close(_origin(what.split(" ", 1)[1]), refused)
        if status == 403:
            return PlaceClosed(text)
        if status == 500:
            return ServiceFailed(text, retry_after(headers))
        if status >= 500 or status in (404, 408, 409, 423, 429) or status < 400:
            return ServiceUnavailable(text, retry_after(headers))
        return RequestRejected(text, status)

    @contextmanager
    def _talking(self, method: str, url: str) -> Iterator[None]:
        """Watch over a request; nothing is sent to a server that refused our login."""
        what = f"{method} {url}"
        if self._unchecked and url.startswith("https:"):
            self._unchecked = False
            log.warning(UNCHECKED_TLS.format("webdav"))
        with self._outages.talking(f"WebDAV {_origin(url)}"), _our_errors(self._failure, what):
            self._gate.check(_origin(url))
            yield


@contextmanager
def _our_errors(failure: Callable[[int, Any, str], MuxerError], what: str) -> Iterator[None]:
    """Turn what httpx and webdav4 raise into our errors; ``failure`` makes one of a status and headers."""
    import httpx
    import webdav4.client as webdav4

    try:
        yield
    except webdav4.HTTPError as error:
        raise failure(error.status_code, error.response.headers, what) from error
    except webdav4.InsufficientStorage as error:
        raise failure(507, {}, what) from error
    except webdav4.ClientError as error:
        raise ServiceUnavailable(f"{what}: {type(error).__name__}") from error
    except httpx.TimeoutException as error:
        raise ServiceUnavailable(f"{what}: no answer within the time limit") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServiceUnavailable(f"{what}: {type(error).__name__}: {error}", code=_code_of(error)) from error


def _code_of(error: BaseException | None) -> Code | None:
    """Return the code of TLS when it is to blame for an error of the HTTP library."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return Code.TLS
        error = error.__cause__ or error.__context__
    return None


class _Body:
    """The body of an upload: a file whose every read checks that the upload may go on."""

    def __init__(self, file: BinaryIO, check: Callable[[], None]) -> None:
        self._file = file
        self._check = check

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._file.read(transfer.CHUNK):
            self._check()
            yield chunk
            activity.advance(len(chunk))




def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
