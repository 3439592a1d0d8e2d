"""Every kind of real store in one interface: the storage under test, and the content of the store.

The content is read from the folder of a WebDAV server, or with a separate client from an S3 store.
"""

from __future__ import annotations

import functools
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lab.dav import ExternalDav
from lab.lab import Lab
from muxer.config.schema import WebdavOptions
from muxer.storage.base import MediaLocation, Storage, parse_descriptor
from muxer.storage.webdav import WebdavStorage
from tests.support import s3, s3rver, seaweedfs, swift
from tests.support.apache import GENESYS_FOLDER, run_apache
from tests.support.bucket import MotoBucket
from tests.support.lighttpd import IGNORING_CASE, run_lighttpd
from tests.support.nginx import run_nginx

# Names that muxed files and sources may have and that every store accepts.
FILE_NAMES = (
    *("plain.mp4", "with blank.mp4", "hash#mark.mp4", "per%20cent.mp4", "100%.mp4", "grüße.mp4", "名前.mp4"),
    *("a&b=c+d.mp4", "plus+and blank.mp4", "12:30:05.mp4", "a@b,c~d!.mp4", "no-suffix", "encrypted.mp4.bin"),
)
ODD_NAMES = tuple(name for name in s3.OBJECT_NAMES if name not in FILE_NAMES)  # additional names that S3 stores accept
_notes = tempfile.TemporaryDirectory(prefix="muxer-notes-")  # removed when the tests end


class RealStore(Protocol):
    """A running store."""

    @property
    def is_atomic(self) -> bool:
        """Whether a file that is uploaded in one request appears complete or not at all, as the protocol requires."""

    @property
    def odd_names(self) -> tuple[str, ...]:
        """Further names that this kind of store accepts."""

    def create_storage(self, wrong: bool = False, stop: threading.Event | None = None, notes: Path | None = None) -> Storage:
        """Return a storage under test for this store, with an invalid password or key if `wrong`.

        It stores its intent records in `notes`, by default in a separate folder."""

    def location_of(self, name: str) -> MediaLocation:
        """Return the location of a file of this name."""

    @property
    def missing_location(self) -> MediaLocation:
        """A location in a folder or bucket that does not exist."""

    @property
    def ignores_case(self) -> bool:
        """Whether names that differ only in case are the same name, as on Windows."""

    def stored_lengths(self) -> dict[str, int]:
        """Return the lengths of all files next to :meth:`location_of` by name, including unfinished uploads."""

    def read_content(self, name: str) -> bytes:
        """Return the content of the file with a name."""


@dataclass(frozen=True)
class WebdavStore:
    """A WebDAV server."""

    server: ExternalDav
    ignores_case: bool = False
    is_atomic: bool = True
    odd_names: tuple[str, ...] = ()

    def create_storage(self, wrong: bool = False, stop: threading.Event | None = None, notes: Path | None = None) -> Storage:
        options = WebdavOptions(self.server.username, "wrong" if wrong else self.server.password, trusted_ca=False)
        mark = secrets.token_hex(6)  # one mark per muxer
        return WebdavStorage(options, mark, notes or _create_notes_folder(), stop or threading.Event())

    def location_of(self, name: str) -> MediaLocation:
        return parse_descriptor({"storage": "webDAV", "path": name, "data": {"storagePath": f"{self.server.url}/screens"}})

    @property
    def missing_location(self) -> MediaLocation:
        return parse_descriptor(
            {"storage": "webDAV", "path": "a.mp4", "data": {"storagePath": f"{self.server.url}/no/such/folder"}}
        )

    def stored_lengths(self) -> dict[str, int]:
        folder = self.server.root / "screens"
        return {path.name: path.stat().st_size for path in folder.iterdir() if not path.name.startswith(".")}

    def read_content(self, name: str) -> bytes:
        return (self.server.root / "screens" / name).read_bytes()


@dataclass(frozen=True)
class S3Store:
    """An S3 store, and a key that it refuses; `lists_parts` is False for one that does not list unfinished uploads."""

    server: s3.S3Server
    key: str
    secret: str
    wrong_key: Mapping[str, str]
    region: str = ""
    lists_parts: bool = True
    ignores_case: bool = False
    is_atomic: bool = True
    odd_names: tuple[str, ...] = ODD_NAMES

    def create_storage(self, wrong: bool = False, stop: threading.Event | None = None, notes: Path | None = None) -> Storage:
        right = {"access_key_id": self.key, "secret_access_key": self.secret, "region": self.region}
        return s3.create_storage(
            self.server.url, stop, notes or _create_notes_folder(), **right | dict(self.wrong_key if wrong else {})
        )

    def location_of(self, name: str) -> MediaLocation:
        return s3.s3_location(name)

    @property
    def missing_location(self) -> MediaLocation:
        return s3.s3_location("a.mp4", bucket="no-such-bucket")

    def stored_lengths(self) -> dict[str, int]:
        listed = self.server.client.list_objects_v2(Bucket=s3.BUCKET).get("Contents", [])
        found = {str(name["Key"]).removeprefix("screens/"): int(name["Size"]) for name in listed}
        parts = self.server.client.list_multipart_uploads(Bucket=s3.BUCKET).get("Uploads", []) if self.lists_parts else []
        return {**found, **{f"unfinished {part['Key']} {part['UploadId']}": 0 for part in parts}}

    def read_content(self, name: str) -> bytes:
        return self.server.read_object(f"screens/{name}")


def _create_notes_folder() -> Path:
    return Path(tempfile.mkdtemp(dir=_notes.name))


def _webdav_starter(
    server: Callable[[], AbstractContextManager[ExternalDav]], *, ignores_case: bool = False
) -> StoreStarter:
    @contextmanager
    def start_webdav(_: Path) -> Iterator[RealStore]:
        with server() as running:
            yield WebdavStore(running, ignores_case)

    return start_webdav


@contextmanager
def _start_wsgidav(folder: Path) -> Iterator[RealStore]:
    with Lab(folder / "lab") as lab:
        user = lab.site.dav_account
        yield WebdavStore(ExternalDav(lab.dav_url, lab.site.media.folder, user.username, user.password))


@contextmanager
def _start_moto(_: Path) -> Iterator[RealStore]:
    with MotoBucket(checks_signatures=True) as bucket:
        server = s3.S3Server(bucket.url, bucket.key_id, bucket.secret)
        yield S3Store(server, bucket.key_id, bucket.secret, {"secret_access_key": "wrong"})


@contextmanager
def _start_s3rver(folder: Path) -> Iterator[RealStore]:
    """Start an s3rver.

    It accepts any secret for a known key, lists no unfinished uploads, stores the beginning of a file whose upload is
    aborted, and mixes two concurrent uploads."""
    with s3rver.S3rver(folder / "s3rver", s3.BUCKET) as running:
        server, wrong = s3.S3Server(running.url, s3rver.KEY, s3rver.SECRET), {"access_key_id": "NOBODY"}
        yield S3Store(server, s3rver.KEY, s3rver.SECRET, wrong, lists_parts=False, is_atomic=False)


@contextmanager
def _start_swift(folder: Path) -> Iterator[RealStore]:
    with swift.Swift(folder / "swift") as running:
        server = s3.S3Server(running.url, swift.KEY, swift.SECRET, region=swift.REGION)
        server.client.create_bucket(Bucket=s3.BUCKET)
        yield S3Store(server, swift.KEY, swift.SECRET, {"secret_access_key": "wrong"}, swift.REGION)


@contextmanager
def _start_seaweedfs(folder: Path) -> Iterator[RealStore]:
    """Start a SeaweedFS.

    Uploads of its administrator create missing buckets, so the muxer gets other keys. A backslash in a name becomes
    a slash."""
    with seaweedfs.SeaweedFS(folder / "seaweedfs", {"muxer": ["Read", "Write", "List"]}) as running:
        server = s3.S3Server(running.url, seaweedfs.access_key(seaweedfs.ADMIN), seaweedfs.secret_key(seaweedfs.ADMIN))
        server.client.create_bucket(Bucket=s3.BUCKET)
        names = tuple(name for name in ODD_NAMES if "\\" not in name)
        key, secret, wrong = seaweedfs.access_key("muxer"), seaweedfs.secret_key("muxer"), {"secret_access_key": "wrong"}
        yield S3Store(server, key, secret, wrong, odd_names=names)


StoreStarter = Callable[[Path], AbstractContextManager[RealStore]]
# Starts each store with a separate folder. SeaweedFS belongs to the long tier.
STORES: dict[str, StoreStarter] = {
    "wsgidav": _start_wsgidav,
    "apache": _webdav_starter(run_apache),
    "apache of the Genesys guide": _webdav_starter(functools.partial(run_apache, GENESYS_FOLDER)),
    "nginx": _webdav_starter(run_nginx),
    "lighttpd": _webdav_starter(run_lighttpd),
    "lighttpd that ignores case": _webdav_starter(functools.partial(run_lighttpd, IGNORING_CASE), ignores_case=True),
    "moto": _start_moto,
    "s3rver": _start_s3rver,
    "swift": _start_swift,
} | ({"seaweedfs": _start_seaweedfs} if seaweedfs.IS_WANTED else {})
