"""WebDAV storage: webdav4 for the questions, GET and PUT of our own on its HTTP client.

webdav4's own download resumes without looking at the answer's status and does not check lengths, and its upload is not
tried again; so media are streamed here, with length checks, quoted names and time limits. Both libraries are imported at the
first use: their loading takes time at the start.
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

from muxer import activity, tls, transfer
from muxer.config.load import UNCHECKED_TLS
from muxer.config.schema import Webdav
from muxer.errors import (
    Code,
    MediaNotFound,
    Permanent,
    ServiceUnavailable,
    Stopped,
    StoredElsewhere,
    Transient,
    UnreadableAnswer,
)
from muxer.gate import LoginGate
from muxer.gir.answers import is_message
from muxer.outages import Outages
from muxer.repeat import Repeat, once
from muxer.storage import webdav_refusals as refusals
from muxer.storage.base import WEBDAV, Place, Stored
from muxer.storage.hosts import Hosts
from muxer.storage.notes import Notes, remove_note
from muxer.storage.webdav_diagnosis import Diagnosis
from muxer.storage.webdav_names import is_other, name_of, origin, temporary_name
from muxer.storage.webdav_renaming import DELAYS, Renaming

if TYPE_CHECKING:
    import httpx
    import webdav4.client as webdav4

    from muxer.storage.webdav_login import Login

log = logging.getLogger(__name__)

# A server that answers MOVE so cannot rename; after one of the others it may, in another form or a moment later.
_NO_MOVE = (405, 501)
_DOUBTFUL_MOVE = (400, 403, 502)
_EXISTS = 412
# What a server says that has renamed a file (RFC 4918). 207 means that it has not, 200 may be the page of a proxy.
_MOVED = (201, 204)


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
        self._options = options
        self._hosts = Hosts(options.hosts, site)
        self._tls = tls.context(options.trusted_ca)
        self._lock = threading.Lock()
        self._made: webdav4.HTTPClient | None = None
        self._login: Login | None = None
        self._servers: dict[str, webdav4.Client] = {}
        self._gate = LoginGate()
        self._diagnosis = Diagnosis(lambda: self._http, self._was_accepted, self._gate)
        self._renaming = Renaming()
        self._unchecked = not options.trusted_ca

    def fetch(self, place: Place, path: Path) -> transfer.Received:
        """Stream a file to ``path``, check its length and return it. Raise :class:`MediaNotFound` when it is not there."""
        with self._talking("GET", place.url), self._http.stream("GET", place.url, follow_redirects=True) as response:
            if response.status_code == 404:
                raise MediaNotFound(f"{place.url} is not there (404)")
            self._check(response, "GET", place.url)
            if is_other(place.name, other := response.headers.get("Content-Location", "")):
                raise MediaNotFound(f"{place.url} is not there; the server sends {name_of(other)} for it")
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
        server = origin(place.url)
        self._await_challenge(place)
        if self._renaming.is_possible(server):
            with self._unfinished(place) as unfinished:
                self._upload(path, unfinished)
                if self._repeat("rename", lambda: self._move(unfinished, place, may_replace)):
                    return self._checked(path, place)
                self._remove(unfinished)
            log.warning("%s; the upload goes to its final name", self._renaming.refusal(server))
        if self._describe_exactly(place, "PUT") is not None and not may_replace():
            raise StoredElsewhere(f"{place.url} is stored already")
        return self._upload(path, place)

    def describe(self, place: Place) -> Stored | None:
        """Return length and tag of what is stored at a place, None when nothing is."""
        found = self._properties(place)
        if found is None or found.name != place.name:
            return None
        if found.length is None:
            raise ServiceUnavailable(f"PROPFIND {place.url}: the server does not tell the length")
        return Stored(int(found.length), found.tag)

    def has_folder(self, place: Place) -> bool:
        """Whether the folder of a place is there."""
        return self._properties(place.beside("")) is not None

    def serves_others(self, place: Place) -> bool:
        """Whether the server shows the file at `place` under a shortened name, too, as Apache with MultiViews does."""
        stem, found = place.name.rpartition(".")[0], None
        with suppress(Transient, Permanent):
            found = self._properties(place.beside(stem)) if stem else None
        return found is not None and found.name != stem

    def renaming_refusal(self, place: Place) -> str:
        """Return how the server of `place` refused to rename a file, empty when it did not."""
        return self._renaming.refusal(origin(place.url))

    def authentication(self, place: Place) -> str:
        """Return the authentication scheme of the server of `place`, empty when no credentials are sent."""
        return self._login.scheme(origin(place.url)) if self._login is not None else ""

    def _properties(self, place: Place) -> _Found | None:
        """Return what the server shows at a place, None when it shows nothing; a folder has no length."""
        import webdav4.client as webdav4
        from webdav4.multistatus import parse_multistatus_response

        def ask() -> httpx.Response:
            response: httpx.Response = self._http.propfind(place.url, headers={"Depth": "0"})
            if not response.is_success:
                raise webdav4.HTTPError(response)
            return response

        with self._talking("PROPFIND", place.url):
            try:
                answer = parse_multistatus_response(self._server(place.url).with_retry(ask))
                found = next(iter(answer.responses.values()))
                name = place.name if not is_other(place.name, found.href) else name_of(found.href)
                tag = str(found.properties.etag or "").removeprefix("W/")
                return _Found(name, found.properties.content_length, tag)
            except webdav4.HTTPError as error:
                if error.status_code == 404:
                    return None
                raise
            except (AssertionError, OverflowError, ValueError, ParseError, StopIteration) as error:
                raise UnreadableAnswer(f"PROPFIND {place.url}: the answer is none of WebDAV") from error

    def _describe_exactly(self, place: Place, method: str) -> Stored | None:
        """Return what is stored at a place, before a request with `method` changes it. Raises StorageMisconfigured when that
        request would hit a file of another name."""
        found = self._properties(place)
        if found is not None and found.name != place.name:
            raise refusals.other_name(method, place.url, found.name)
        return Stored(int(found.length or 0), found.tag) if found is not None else None

    def delete(self, place: Place) -> None:
        """Delete a file; one that is gone already is no error. Raise :class:`ServiceUnavailable` when it is still there: the
        page of a proxy is a success, too."""
        if self.describe(place) is None:
            log.debug("%s is gone already", place.url)
        else:
            self._remove(place)

    def _remove(self, place: Place) -> None:
        """Delete a file without a look at its name first: one of ours, also while the process stops."""
        with self._talking("DELETE", place.url):
            response = self._http.request("DELETE", place.url)
            if response.status_code == 404:
                log.debug("%s is gone already", place.url)
                return
            self._check(response, "DELETE", place.url)
        if self.describe(place) is not None:
            raise ServiceUnavailable(f"DELETE {place.url}: the file is still there")

    def remove_left_overs(self) -> None:
        """Delete the unfinished uploads of an earlier process that died, and those that could not be deleted at the time."""
        self._notes.clean(lambda place, _: self.delete(place))

    @contextmanager
    def _unfinished(self, place: Place) -> Iterator[Place]:
        """Yield the temporary place of an upload. It is noted on disk before, and deleted unless it was renamed."""
        unfinished = place.beside(temporary_name(self._instance, place.name))
        with self._notes.during(unfinished) as note:
            try:
                yield unfinished
            except BaseException:
                with suppress(Transient, Permanent):
                    self._remove(unfinished)
                    remove_note(note)
                raise

    def _await_challenge(self, place: Place) -> None:
        """Send a small request where Digest may be needed, so that its challenge does not cost a second upload."""
        client = self._http
        if self._login is not None and self._login.may_challenge(origin(place.url)):
            with self._talking("PROPFIND", (folder := place.beside("")).url):
                response = client.propfind(folder.url, headers={"Depth": "0"})
                if response.status_code == 401:
                    self._check(response, "PROPFIND", folder.url)

    def _upload(self, path: Path, place: Place) -> Stored:
        self._repeat("upload", lambda: self._put(path, place))
        return self._checked(path, place)

    def _put(self, path: Path, place: Place) -> None:
        from muxer.storage import webdav_http

        length = path.stat().st_size
        limit = transfer.time_limit(length)
        deadline = time.monotonic() + limit
        with self._talking("PUT", place.url), path.open("rb") as file:
            body = _Body(file, length, lambda: transfer.check_progress(deadline, place.url, self._stop))
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
            timeout = webdav_http.upload_timeout(limit)
            response = self._http.put(place.url, content=body, headers=headers, timeout=timeout)
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
        """Rename a file; return False when the server does not. Raise :class:`StoredElsewhere` when the target exists and
        must stay."""
        status = self._moved(source, target, overwrite="F")
        if status == _EXISTS:
            self._describe_exactly(target, "MOVE")
            if not may_replace():
                raise StoredElsewhere(f"{target.url} is stored already")
            status = self._moved(source, target, overwrite="T")
            if status == _EXISTS:
                raise ServiceUnavailable(
                    f"MOVE {source.url}: HTTP {status}; the server lets nothing replace {target.name}", code=Code.NOT_STORED
                )
        return status in _MOVED or self._is_moved(source, status)

    def _is_moved(self, source: Place, status: int) -> bool:
        """Whether a file was renamed although `status`, the response to it, does not say so."""
        if self.describe(source) is None:
            return True
        server, refused = origin(source.url), f"MOVE {source.url}: HTTP {status}"
        if status in _NO_MOVE:
            self._renaming.impossible(server, f"{refused}; the server cannot rename files")
        elif status in _DOUBTFUL_MOVE:
            advice = "let the account, and each proxy before the server, rename files (MOVE, with its header Destination)"
            self._renaming.refused(server, f"{refused}, also when repeated; {advice}")
        else:
            raise UnreadableAnswer(f"{refused}, and the file is where it was")
        return False

    def _moved(self, source: Place, target: Place, overwrite: str) -> int:
        """Ask the server to rename a file and return its status; raise what is no answer to that question.

        A refusal that may be due to the form of the target's address, or to a moment, is followed by other forms.
        """
        server, first = origin(source.url), 0
        for delay, (form, destination) in zip(DELAYS, self._renaming.destinations(server, target.url), strict=True):
            if self._stop.wait(delay):
                raise Stopped(f"stopped while renaming {source.url}")
            with self._talking("MOVE", source.url):
                headers = {"Destination": destination, "Overwrite": overwrite}
                response = self._http.request("MOVE", source.url, headers=headers)
                status = int(response.status_code)
                if status in (*_MOVED, _EXISTS, *_NO_MOVE):
                    self._renaming.understood(server, form)
                    return status
                if not first and status not in _DOUBTFUL_MOVE:
                    self._check(response, "MOVE", source.url)
                    return status
                first = first or status
        return first

    @property
    def _http(self) -> webdav4.HTTPClient:
        from muxer.storage import webdav_http
        from muxer.storage.guard import Guard
        from muxer.storage.webdav_login import Login

        with self._lock:
            if self._made is None:
                if self._options.username:
                    self._login = Login(self._options.username, self._options.password)
                self._made = webdav_http.client(self._login, Guard(self._hosts, self._tls), self._stop)
            return self._made

    def _server(self, url: str) -> webdav4.Client:
        import webdav4.client as webdav4

        server, http = origin(url), self._http
        with self._lock:
            if server not in self._servers:
                self._servers[server] = webdav4.Client(server, http_client=http)
            return self._servers[server]

    def _was_accepted(self, server: str) -> bool:
        return self._login is not None and self._login.was_accepted(server)

    def _check(self, response: httpx.Response, method: str, url: str) -> None:
        if not response.is_success:
            raise self._diagnosis.error_of(response, method, url)

    @contextmanager
    def _talking(self, method: str, url: str) -> Iterator[None]:
        """Watch over a request; nothing is sent to a server that refused our login."""
        if self._unchecked and url.startswith("https:"):
            self._unchecked = False
            log.warning(UNCHECKED_TLS.format("webdav"))
        with self._outages.talking(f"WebDAV {origin(url)}"), self._diagnosis.our_errors(method, url):
            self._gate.check(origin(url))
            yield


class _Body:
    """The body of an upload: a file whose every read checks that the upload may go on. It can be sent again."""

    def __init__(self, file: BinaryIO, length: int, check: Callable[[], None]) -> None:
        self._file, self._length, self._check = file, length, check

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        activity.expect(self._length)
        while chunk := self._file.read(transfer.CHUNK):
            self._check()
            yield chunk
            activity.advance(len(chunk))


@dataclass(frozen=True)
class _Found:
    """What a server shows at a place: the name that it has there, its length in bytes (None: unknown) and its tag."""

    name: str
    length: int | None
    tag: str
