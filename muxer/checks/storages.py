"""The storages in which the media of the recordings lie that were seen: login, folder, and with ``--write`` an upload."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from muxer.checks import webdav
from muxer.checks.advice import remedy, unreachable
from muxer.checks.checklist import Check, Finding, failed, ok, skipped, warning
from muxer.checks.connection import Server
from muxer.checks.rws import WINDOW, OfRws
from muxer.checks.s3 import bucket_findings, not_shown
from muxer.config.schema import S3, Config, Webdav
from muxer.errors import MetadataError, MuxerError
from muxer.gir.models import MediaFile
from muxer.outages import Outages
from muxer.services import site_of, stores_of
from muxer.storage import base
from muxer.storage.base import Place, Storage, place_of
from muxer.storage.hosts import Hosts
from muxer.storage.s3 import S3Storage

MOST_FOLDERS = 10
UPLOAD_SECONDS = 120.0
_CONTENT = b"The Recording Muxer tried whether it may write here. This file may be deleted.\n"
# More than the limits for uploads that servers have unless they are set up otherwise.
UPLOAD_BYTES = 4_000_000
_NO_WRITE = "writing was not tried (--write does)"


@dataclass(frozen=True)
class Folder:
    """A folder, or a part of a bucket, by one of its files; muxed files are written beside screen files only."""

    file: Place
    is_written: bool

    @property
    def section(self) -> str:
        """The section of muxer.cfg that its storage is about."""
        return "webdav" if self.file.storage == base.WEBDAV else "s3"

    @property
    def check(self) -> str:
        """The name of its check."""
        if self.section == "webdav":
            return f"WebDAV folder {self.file.folder}"
        return f"S3 bucket {self.file.bucket}/{self.file.folder}"


class OfStorages:
    """The checks of the storages. ``servers`` are those whose way was looked at."""

    def __init__(self, config: Config, seen: OfRws, scratch: Path, write: bool, stop: threading.Event) -> None:
        """Given the configuration, what the checks of RWS have seen, a folder of our own, whether to try an upload, and what
        ends requests that wait."""
        self._config, self._seen, self._scratch, self._write, self._stop = config, seen, scratch, write, stop
        self.servers: list[Server] = []

    def checks(self) -> Iterator[Check]:
        """Yield them; which there are follows from the recordings that were seen."""
        folders = self._folders()
        if not folders:
            yield Check("storages", self._nothing_seen, (WINDOW, "RWS screen recordings"))
        for server in self._found_servers(folders):
            self.servers.append(server)
            yield from server.checks(_options(server.section))
        for folder in folders[:MOST_FOLDERS]:
            needs = (*_options(folder.section), *self._way_to(folder))
            yield Check(folder.check, partial(self._folder, folder), needs, folder.section, UPLOAD_SECONDS)
        for entry in self._config.webdav.hosts or ():
            if "*" not in entry and entry not in self._netlocs(folders):
                yield Check(f"WebDAV {entry}", partial(_listed, entry), section="webdav")

    def _nothing_seen(self) -> Iterator[Finding]:
        advice = "check again when recordings are in the window"
        yield skipped("storages", "no media were seen, so no storage is known", advice)

    def _folders(self) -> list[Folder]:
        """Return the folders of the media that were seen, each once, those that are written to first."""
        screens = [one for screen in self._seen.screens.values() for one in screen.screens]
        audio = [one for call in self._seen.calls for one in call.audio]
        found: dict[tuple[str, str, str], Folder] = {}
        for place, is_screen in [*((one, True) for one in _places(screens)), *((one, False) for one in _places(audio))]:
            found.setdefault((place.storage, place.folder, place.bucket), Folder(place, is_screen))
        return list(found.values())

    def _found_servers(self, folders: list[Folder]) -> Iterator[Server]:
        webdav, s3 = self._config.webdav, self._config.s3
        hosts = Hosts(webdav.hosts or (), site_of(self._config))
        for origin in dict.fromkeys(_origin(one) for one in folders if one.section == "webdav"):
            parts = urlsplit(origin)
            admit = partial(hosts.admit, parts.scheme, parts.hostname or "", parts.port)
            yield Server(f"WebDAV {parts.netloc}", origin, "webdav", webdav.trusted_ca, admit=admit)
        if s3.endpoint_url and any(one.section == "s3" for one in folders):
            yield Server("S3", s3.endpoint_url, "s3", s3.trusted_ca)

    def _way_to(self, folder: Folder) -> tuple[str, ...]:
        if folder.section == "s3":
            return ("S3 address", "S3 TLS") if self._config.s3.endpoint_url else ()
        name = f"WebDAV {urlsplit(_origin(folder)).netloc}"
        return f"{name} address", f"{name} TLS"

    def _netlocs(self, folders: list[Folder]) -> set[str]:
        """Return the servers of folders as [webdav] hosts may name them."""
        parts = [urlsplit(_origin(one)) for one in folders if one.section == "webdav"]
        return {one.netloc for one in parts} | {one.hostname or "" for one in parts}

    def _folder(self, folder: Folder) -> Iterator[Finding]:
        stores = stores_of(self._config, secrets.token_hex(6), self._scratch, self._stop, Outages())
        store, check = stores.of(folder.file), folder.check
        if not store.has_folder(folder.file):
            what = "the folder" if folder.section == "webdav" else "the bucket"
            yield failed(check, f"{what} is not there", "make it on the server, or correct the path in the recorders")
            return
        yield from self._media_of(store, folder)
        if isinstance(store, S3Storage):
            yield from bucket_findings(store, folder.file, self._write and folder.is_written)

    def _media_of(self, store: Storage, folder: Folder) -> Iterator[Finding]:
        check = folder.check
        if store.describe(folder.file) is None:
            hidden = not_shown(store, check, folder.file) if isinstance(store, S3Storage) else None
            if hidden is not None:
                yield hidden
                return
            advice = "see whether the recorders upload to where their metadata say; the muxer waits for the file"
            yield warning(check, f"login accepted, but {folder.file.name} is not there", advice)
            return
        login = webdav.login_of(store, folder.file)
        if not folder.is_written:
            yield ok(check, f"{login}, media are there; nothing is written here")
        elif not self._write:
            yield ok(check, f"{login}, media are there; {_NO_WRITE}")
        else:
            yield self._written(store, folder)
        yield from webdav.multiviews(store, folder.file)

    def _written(self, store: Storage, folder: Folder) -> Finding:
        """Upload a file of some megabytes as the muxer does, and delete it."""
        name = f"recording-muxer-check-{secrets.token_hex(6)}.txt"
        source, target = self._scratch / name, folder.file.beside(name)
        source.write_bytes(_CONTENT * (UPLOAD_BYTES // len(_CONTENT)))
        try:
            store.store(source, target, lambda: False)
        except MuxerError as error:
            return failed(folder.check, f"media are there, but an upload failed: {error}", remedy(error, folder.section))
        try:
            store.delete(target)
        except MuxerError as error:
            what = f"an upload worked, but {name} could not be deleted: {error}"
            return failed(folder.check, what, "give the account the right to delete there, and delete that file by hand")
        return webdav.uploaded(store, target, folder.check, UPLOAD_BYTES)


def _places(media: list[MediaFile]) -> Iterator[Place]:
    """Yield where media lie, as far as their descriptors say so; the muxer itself complains of the others."""
    for one in media:
        if one.descriptor is not None:
            with contextlib.suppress(MetadataError):
                yield place_of(one.descriptor)


def _origin(folder: Folder) -> str:
    parts = urlsplit(folder.file.url)
    return f"{parts.scheme}://{parts.netloc}"


def _options(section: str) -> tuple[str, ...]:
    kind = Webdav if section == "webdav" else S3
    return tuple(f"[{section}] {one.name}" for one in fields(kind))


def _listed(entry: str) -> Iterator[Finding]:
    """Look at a server that stands in [webdav] hosts, and in no metadata that were seen."""
    check, parts = f"WebDAV {entry}", urlsplit(f"//{entry}")
    host = parts.hostname or ""
    try:
        if parts.port:
            socket.create_connection((host, parts.port), timeout=10.0).close()
        else:
            socket.getaddrinfo(host, None)
    except OSError as error:
        advice = unreachable(error, host, parts.port or 0, "webdav")
        yield failed(check, f"{error.strerror or error}", f"{advice}; or take it out of [webdav] hosts")
    else:
        yield ok(check, "reachable; no recording that was seen names it, so login and folder cannot be told")
