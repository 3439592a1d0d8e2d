"""Checks of the storages of the recordings found: credentials, folder, and with ``--write`` an upload."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from muxer.app.assembly import create_circuit_breaker, create_stores, site_addresses
from muxer.checks import webdav
from muxer.checks.checklist import Check, Finding, failed_finding, passed_finding, skipped_finding, warning_finding
from muxer.checks.connection import CheckedServer
from muxer.checks.rws import WINDOW_CHECK, RwsChecks
from muxer.checks.s3 import check_bucket, hidden_file_finding
from muxer.config.schema import Config, S3Options, WebdavOptions
from muxer.errors import MetadataError, MuxerError, Stopped
from muxer.gir.models import MediaFile
from muxer.status.advice import advice_for, unreachable_advice
from muxer.storage import base
from muxer.storage.allowed_hosts import AllowedHosts
from muxer.storage.base import MediaLocation, Storage, parse_descriptor
from muxer.storage.s3 import S3Storage
from muxer.system.files import system_temp_folder, temporary_folder

MAX_FOLDERS = 10
UPLOAD_TIMEOUT_SECONDS = 120.0
# How long an upload that is stopped may take to end and to delete its file itself.
END_TIMEOUT_SECONDS = 5.0
_TEST_CONTENT = b"The Recording Muxer tried whether it may write here. This file may be deleted.\n"
# More than the default upload limits of servers.
UPLOAD_BYTES = 4_000_000
_WRITE_SKIPPED_TEXT = "writing not checked (use --write)"


@dataclass(frozen=True)
class CheckedFolder:
    """A folder, or a prefix in a bucket, with one of its files. Muxed files are written only next to screen files."""

    file: MediaLocation
    is_written: bool

    @property
    def section_name(self) -> str:
        """The section of muxer.cfg that its storage is about."""
        return "webdav" if self.file.storage == base.WEBDAV else "s3"

    @property
    def check_name(self) -> str:
        """The name of its check."""
        if self.section_name == "webdav":
            return f"WebDAV folder {self.file.folder}"
        return f"S3 bucket {self.file.bucket}/{self.file.folder}"


class StorageChecks:
    """The checks of the storages. `servers` are those whose connection was checked."""

    def __init__(self, config: Config, seen: RwsChecks, write: bool, stop: threading.Event) -> None:
        """`seen` has the results of the checks of RWS; `write`: try an upload."""
        self._config, self._seen, self._write, self._stop = config, seen, write, stop
        self.servers: list[CheckedServer] = []
        # The test files that may exist, each with an event that its upload has ended.
        self._test_files: dict[MediaLocation, threading.Event] = {}
        # The folder of what is uploaded, from the first upload on.
        self._held, self._scratch = contextlib.ExitStack(), system_temp_folder()

    def remove_test_files(self) -> list[MediaLocation]:
        """Delete the test files of uploads that were interrupted or exceeded their time; return those that may be left.

        The caller has set the event that stops the checks.
        """
        deadline = time.monotonic() + END_TIMEOUT_SECONDS
        for ended in list(self._test_files.values()):
            ended.wait(max(0.0, deadline - time.monotonic()))
        with self._held:
            uploads = list(self._test_files.items())
            return [file for file, ended in uploads if not (self._remove_test_file(file) and ended.is_set())]

    def _remove_test_file(self, file: MediaLocation) -> bool:
        """Delete a test file, and what its unfinished upload has left, with new connections; return whether that worked."""
        try:
            # A copy: the records of an upload that has not ended are in use.
            records = Path(tempfile.mkdtemp(dir=self._scratch))
            for record in self._scratch.glob("*.json"):
                shutil.copy(record, records)
            stores = create_stores(
                self._config, secrets.token_hex(6), records, threading.Event(), create_circuit_breaker(self._config)
            )
            stores.remove_leftovers()
            stores.for_location(file).delete_file(file)
        except (MuxerError, OSError):
            return False
        return not any(records.glob("*.json"))

    def create_checks(self) -> Iterator[Check]:
        """Yield the checks for the storages of the recordings found."""
        folders = self._seen_folders()
        if not folders:
            yield Check("storages", self._check_nothing_seen, (WINDOW_CHECK, "RWS screen recordings"))
        for server in self._seen_servers(folders):
            self.servers.append(server)
            yield from server.create_checks(_section_options(server.section))
        for folder in folders[:MAX_FOLDERS]:
            needs = (*_section_options(folder.section_name), *self._needed_checks(folder))
            yield Check(
                folder.check_name, partial(self._check_folder, folder), needs, folder.section_name, UPLOAD_TIMEOUT_SECONDS
            )
        for entry in self._config.webdav.hosts or ():
            if "*" not in entry and entry not in self._seen_hosts(folders):
                yield Check(f"WebDAV {entry}", partial(_check_listed_host, entry), section="webdav")

    def _check_nothing_seen(self) -> Iterator[Finding]:
        advice = "run check again when the window contains recordings"
        yield skipped_finding("storages", "no media were found, so no storage is known", advice)

    def _seen_folders(self) -> list[CheckedFolder]:
        """Return the folders of the media, each once, those that are written to first."""
        screens = [one for screen in self._seen.screens.values() for one in screen.screen_files]
        audio = [one for call in self._seen.calls for one in call.audio]
        found: dict[tuple[str, str, str], CheckedFolder] = {}
        for place, is_screen in [
            *((one, True) for one in _media_locations(screens)),
            *((one, False) for one in _media_locations(audio)),
        ]:
            found.setdefault((place.storage, place.folder, place.bucket), CheckedFolder(place, is_screen))
        return list(found.values())

    def _seen_servers(self, folders: list[CheckedFolder]) -> Iterator[CheckedServer]:
        webdav, s3 = self._config.webdav, self._config.s3
        hosts = AllowedHosts(webdav.hosts or (), site_addresses(self._config))
        for origin in dict.fromkeys(_server_origin(one) for one in folders if one.section_name == "webdav"):
            parts = urlsplit(origin)
            admit = partial(hosts.resolve, parts.scheme, parts.hostname or "", parts.port)
            yield CheckedServer(f"WebDAV {parts.netloc}", origin, "webdav", webdav.trusted_ca, admit=admit)
        if s3.endpoint_url and any(one.section_name == "s3" for one in folders):
            yield CheckedServer("S3", s3.endpoint_url, "s3", s3.trusted_ca)

    def _needed_checks(self, folder: CheckedFolder) -> tuple[str, ...]:
        if folder.section_name == "s3":
            return ("S3 address", "S3 TLS") if self._config.s3.endpoint_url else ()
        name = f"WebDAV {urlsplit(_server_origin(folder)).netloc}"
        return f"{name} address", f"{name} TLS"

    def _seen_hosts(self, folders: list[CheckedFolder]) -> set[str]:
        parts = [urlsplit(_server_origin(one)) for one in folders if one.section_name == "webdav"]
        return {one.netloc for one in parts} | {one.hostname or "" for one in parts}

    def _check_folder(self, folder: CheckedFolder) -> Iterator[Finding]:
        writes = self._write and folder.is_written
        # Only an upload needs a temporary folder: the disk may be full, and the other checks are then wanted too.
        if writes and self._scratch == system_temp_folder():
            self._scratch = self._held.enter_context(temporary_folder("recording-muxer-check-"))
        circuit_breaker = create_circuit_breaker(self._config)
        stores = create_stores(self._config, secrets.token_hex(6), self._scratch, self._stop, circuit_breaker)
        store, check = stores.for_location(folder.file), folder.check_name
        if not store.has_folder(folder.file):
            what = "the folder" if folder.section_name == "webdav" else "the bucket"
            yield failed_finding(
                check, f"{what} does not exist", "create it on the server, or correct the path in the recorders"
            )
            return
        yield from self._check_media(store, folder)
        if isinstance(store, S3Storage):
            yield from check_bucket(store, folder.file, writes)

    def _check_media(self, store: Storage, folder: CheckedFolder) -> Iterator[Finding]:
        check = folder.check_name
        if store.head(folder.file) is None:
            hidden = hidden_file_finding(store, check, folder.file) if isinstance(store, S3Storage) else None
            if hidden is not None:
                yield hidden
                return
            advice = "check whether the recorders upload to the location in their metadata; the muxer waits for the file"
            yield warning_finding(check, f"credentials accepted, but {folder.file.name} does not exist", advice)
            return
        login = webdav.login_text(store, folder.file)
        if not folder.is_written:
            yield passed_finding(check, f"{login}, media exist; nothing is written here")
        elif not self._write:
            yield passed_finding(check, f"{login}, media exist; {_WRITE_SKIPPED_TEXT}")
        else:
            yield self._check_upload(store, folder)
        yield from webdav.check_multiviews(store, folder.file)

    def _check_upload(self, store: Storage, folder: CheckedFolder) -> Finding:
        name = f"recording-muxer-check-{secrets.token_hex(6)}.txt"
        source, target = self._scratch / name, folder.file.sibling(name)
        source.write_bytes(_TEST_CONTENT * (UPLOAD_BYTES // len(_TEST_CONTENT)))
        ended = self._test_files[target] = threading.Event()
        try:
            finding = self._try_upload(store, folder, source, target)
            del self._test_files[target]
        finally:
            ended.set()
        return finding

    def _try_upload(self, store: Storage, folder: CheckedFolder, source: Path, target: MediaLocation) -> Finding:
        try:
            store.upload_file(source, target, lambda: False)
        except Stopped:
            raise
        except MuxerError as error:
            return failed_finding(
                folder.check_name, f"media exist, but an upload failed: {error}", advice_for(error, folder.section_name)
            )
        try:
            store.delete_file(target)
        except MuxerError as error:
            what = f"an upload succeeded, but {target.name} cannot be deleted: {error}"
            return failed_finding(
                folder.check_name, what, "grant the account the right to delete there, and delete that file manually"
            )
        return webdav.upload_finding(store, target, folder.check_name, UPLOAD_BYTES)


def _media_locations(media: list[MediaFile]) -> Iterator[MediaLocation]:
    """Yield the locations of media; invalid descriptors are left to the muxer to report."""
    for one in media:
        if one.media_descriptor is not None:
            with contextlib.suppress(MetadataError):
                yield parse_descriptor(one.media_descriptor)


def _server_origin(folder: CheckedFolder) -> str:
    parts = urlsplit(folder.file.url)
    return f"{parts.scheme}://{parts.netloc}"


def _section_options(section: str) -> tuple[str, ...]:
    kind = WebdavOptions if section == "webdav" else S3Options
    return tuple(f"[{section}] {one.name}" for one in fields(kind))


def _check_listed_host(entry: str) -> Iterator[Finding]:
    """Check a server in [webdav] hosts that no recording uses."""
    check, parts = f"WebDAV {entry}", urlsplit(f"//{entry}")
    host = parts.hostname or ""
    try:
        if parts.port:
            socket.create_connection((host, parts.port), timeout=10.0).close()
        else:
            socket.getaddrinfo(host, None)
    except OSError as error:
        advice = unreachable_advice(error, host, parts.port or 0, "webdav")
        yield failed_finding(check, f"{error.strerror or error}", f"{advice}; or remove it from [webdav] hosts")
    else:
        yield passed_finding(check, "reachable; no recording found uses it, so credentials and folder are not checked")
