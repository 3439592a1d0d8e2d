"""The location of a media file, and the interface of a storage. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlsplit

from muxer.errors import Code, MetadataError
from muxer.gir.models import Json, is_encodable
from muxer.net.transfer import ReceivedLength

WEBDAV = "webDAV"
S3 = "awsS3"

_URL = re.compile(r"(https?)://([^/?#]+)(/.*)?", re.IGNORECASE | re.DOTALL)
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
# Characters that may be unquoted in the path of a URL (RFC 3986), and the percent sign of a quoted character.
_PATH_SAFE = "/%:@!$&'()*+,;=~"
_INVALID_NAMES = ("", ".", "..")


@dataclass(frozen=True)
class MediaLocation:
    """One file in a storage: `folder` as in the metadata (a URL, or a key prefix in `bucket`), and its unquoted `name`."""

    storage: str
    folder: str
    name: str
    bucket: str = ""

    def sibling(self, name: str) -> MediaLocation:
        """Return the location of the file `name` in the same folder."""
        return replace(self, name=name)

    @property
    def media_descriptor(self) -> dict[str, Any]:
        """The media descriptor under which the file is published (gir-api, section 5)."""
        if self.storage == S3:
            return {"storage": S3, "path": self.folder + self.name, "data": {"bucket": self.bucket}}
        return {"storage": WEBDAV, "path": self.name, "data": {"storagePath": self.folder}}

    @property
    def service_name(self) -> str:
        """Its WebDAV server or S3 bucket, as a service of the circuit breaker."""
        if self.storage == S3:
            return f"S3 bucket {self.bucket}"
        parts = urlsplit(self.url)
        return f"WebDAV {parts.scheme}://{parts.netloc}"

    @property
    def url(self) -> str:
        """The address of a WebDAV file, quoted."""
        return f"{quote_url(self.folder).rstrip('/')}/{quote(self.name, safe='')}"


@dataclass(frozen=True)
class ObjectInfo:
    """Length of a stored file in bytes, and a tag that changes with its content (empty: none)."""

    length: int
    tag: str = ""


@dataclass(frozen=True)
class StoredFile:
    """A file in a listing: its name, its length in bytes, when it was modified in epoch seconds (None: unknown)."""

    name: str
    info: ObjectInfo
    modified: float | None


class Storage(Protocol):
    """A store of media files. Every method raises only errors of :mod:`muxer.errors`."""

    def download_file(self, location: MediaLocation, path: Path) -> ReceivedLength:
        """Stream the file to `path`, check its length and return it. Raises MediaNotFound when it does not exist."""

    def upload_file(self, path: Path, location: MediaLocation, may_replace: Callable[[], bool]) -> ObjectInfo:
        """Upload a file whole or not at all. Before one is replaced, `may_replace` decides (else StoredByOtherMuxer).

        Raises ServiceUnavailable when the storage does not contain the whole file afterwards.
        """

    def head(self, location: MediaLocation) -> ObjectInfo | None:
        """Return length and tag of the file at `location`, None when it does not exist."""

    def can_prove_absence(self, location: MediaLocation) -> bool:
        """Whether None of :meth:`head` means that the file does not exist, and not that the account may not know."""

    def list_folder(self, location: MediaLocation) -> Iterator[StoredFile]:
        """Yield the files in the folder of `location`, one for each name. Raises UnreadableResponse when that is unclear."""

    def has_folder(self, location: MediaLocation) -> bool:
        """Whether the folder or the bucket of `location` exists."""

    def delete_file(self, location: MediaLocation) -> None:
        """Delete the file at `location` if it exists."""

    def remove_leftovers(self) -> None:
        """Delete what unfinished uploads have left in the storage."""


def parse_descriptor(descriptor: Json) -> MediaLocation:
    """Return the location in a descriptor (gir-api, sections 3 and 4). Raises MetadataError when it is unusable."""
    storage, path = descriptor.get("storage"), descriptor.get("path")
    kind = storage if isinstance(storage, str) else ""
    data = descriptor.get("data")
    data = data if isinstance(data, Mapping) else {}
    if not isinstance(path, str) or not path:
        raise _unusable_error("a media descriptor has no path")
    base, bucket = (one if isinstance(one, str) else "" for one in (data.get("storagePath"), data.get("bucket")))
    if not all(map(is_encodable, (path, base, bucket))):
        raise _unusable_error(f"a media descriptor contains incomplete characters: {path[:80]!r}")
    if kind.lower() == WEBDAV.lower():
        return _webdav_location(path, base)
    if kind.lower() == S3.lower():
        prefix, slash, name = path.rpartition("/")
        if not bucket or not name:
            raise _unusable_error(f"a media descriptor names no bucket, or a folder: {path[:80]!r}")
        return MediaLocation(S3, prefix + slash, name, bucket)
    raise _unusable_error(f"a media descriptor names the storage {kind[:40]!r}; supported are {WEBDAV} and {S3}")


def _unusable_error(what: str) -> MetadataError:
    return MetadataError(what, code=Code.BAD_DESCRIPTOR)


def _webdav_location(path: str, base: str) -> MediaLocation:
    if _URL.fullmatch(path):
        folder, _, name = path.rpartition("/")
        quote_url(folder)
        if unquote(name) in _INVALID_NAMES:
            raise _unusable_error(f"a media descriptor names a folder: {path[:80]!r}")
        return MediaLocation(WEBDAV, folder + "/", unquote(name))
    inner, _, name = path.strip("/").rpartition("/")
    if {".", ".."} & {*inner.split("/")} or name in _INVALID_NAMES:
        raise _unusable_error(f"a media descriptor names a path outside its folder: {path[:80]!r}")
    folder = base if not inner else f"{base.rstrip('/')}/{quote(inner)}/"
    quote_url(folder)
    return MediaLocation(WEBDAV, folder, name)


def quote_url(text: str) -> str:
    """Return the address of a WebDAV folder or file, quoted once, without credentials. Raises MetadataError.

    ``?`` and ``#`` belong to the name. Hosts must be ASCII (``xn--…``).
    """
    match = _URL.fullmatch(text)
    if match is None:
        raise _unusable_error(f"a media descriptor contains no http or https address: {text[:80]!r}")
    scheme, netloc, path = match[1].lower(), match[2].rpartition("@")[2], match[3] or "/"
    try:
        parts = urlsplit(f"{scheme}://{netloc}")
        if not parts.hostname or parts.port == 0 or not netloc.isascii():
            raise ValueError
    except ValueError:
        raise _unusable_error(
            f"a media descriptor contains an address with an invalid host or port: {netloc[:80]!r}"
        ) from None
    if {".", ".."} & set(unquote(path).split("/")):
        raise _unusable_error(f"a media descriptor names a path with dots: {path[:80]!r}")
    return f"{scheme}://{netloc}{quote(_LONE_PERCENT.sub('%25', path), safe=_PATH_SAFE)}"
