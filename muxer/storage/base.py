"""Where media lie, and what a storage must be able to do. The pure part of the room."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
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
# What may stand unquoted in the path of a URL (RFC 3986), and a percent sign that begins a quoted character.
_PATH_SAFE = "/%:@!$&'()*+,;=~"
_INVALID_NAMES = ("", ".", "..")


@dataclass(frozen=True)
class MediaLocation:
    """One file in a storage: the folder as metadata write it (a URL, or bucket and key prefix), and its plain name."""

    storage: str
    folder: str
    name: str
    bucket: str = ""

    def sibling(self, name: str) -> MediaLocation:
        """Given a plain file name, return its place in the same folder."""
        return replace(self, name=name)

    @property
    def media_descriptor(self) -> dict[str, Any]:
        """The media descriptor under which the file is published (gir-api, section 5)."""
        if self.storage == S3:
            return {"storage": S3, "path": self.folder + self.name, "data": {"bucket": self.bucket}}
        return {"storage": WEBDAV, "path": self.name, "data": {"storagePath": self.folder}}

    @property
    def service_name(self) -> str:
        """The name of what holds it, for the log: what one S3 bucket refuses says nothing of the others."""
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
    """What a storage tells about a file: its length in bytes, and a tag that changes with its content, if any."""

    length: int
    tag: str = ""


class Storage(Protocol):
    """A store of media files. Every method raises only errors of :mod:`muxer.errors`."""

    def download_file(self, place: MediaLocation, path: Path) -> ReceivedLength:
        """Stream a file to ``path``, check its length and return it."""

    def upload_file(self, path: Path, place: MediaLocation, may_replace: Callable[[], bool]) -> ObjectInfo:
        """Upload a file so that it appears whole or not at all, and check its stored length.

        ``may_replace`` is asked when something is stored there already, as late as possible; when it says no,
        :class:`StoredByOtherMuxer` is raised.
        """

    def head(self, place: MediaLocation) -> ObjectInfo | None:
        """Return what is stored at a place, None when nothing is."""

    def has_folder(self, place: MediaLocation) -> bool:
        """Whether the folder, or the bucket, of a place is there."""

    def delete_file(self, place: MediaLocation) -> None:
        """Delete a file; one that is gone already is no error."""

    def remove_leftovers(self) -> None:
        """Delete what uploads that never ended have left in the storage."""


def parse_descriptor(descriptor: Json) -> MediaLocation:
    """Given a media descriptor in one of the forms of gir-api section 3 and 4, return the place it names.

    Raise :class:`MetadataError` when it names none, or one outside its own folder.
    """
    storage, path = descriptor.get("storage"), descriptor.get("path")
    kind = storage if isinstance(storage, str) else ""
    data = descriptor.get("data")
    data = data if isinstance(data, Mapping) else {}
    if not isinstance(path, str) or not path:
        raise _unusable_error("a media descriptor has no path")
    base, bucket = (one if isinstance(one, str) else "" for one in (data.get("storagePath"), data.get("bucket")))
    if not all(map(is_encodable, (path, base, bucket))):
        raise _unusable_error(f"a media descriptor holds halves of characters: {path[:80]!r}")
    if kind.lower() == WEBDAV.lower():
        return _webdav_location(path, base)
    if kind.lower() == S3.lower():
        prefix, slash, name = path.rpartition("/")
        if not bucket or not name:
            raise _unusable_error(f"a media descriptor names no bucket, or a folder: {path[:80]!r}")
        return MediaLocation(S3, prefix + slash, name, bucket)
    raise _unusable_error(f"a media descriptor names the storage {kind[:40]!r}; known are {WEBDAV} and {S3}")


def _unusable_error(what: str) -> MetadataError:
    """Return the error of a media descriptor that cannot be used."""
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
    """Given the address of a WebDAV folder or file, return it quoted; characters that are quoted already stay so.

    ``?`` and ``#`` belong to the name. A login in the address is left out: the configured account is used. Raise
    :class:`MetadataError` when it is no http or https address, or its host has other characters than ASCII: such a name is
    written in its form for the network (``xn--…``).
    """
    match = _URL.fullmatch(text)
    if match is None:
        raise _unusable_error(f"a media descriptor holds no http or https address: {text[:80]!r}")
    scheme, netloc, path = match[1].lower(), match[2].rpartition("@")[2], match[3] or "/"
    try:
        parts = urlsplit(f"{scheme}://{netloc}")
        if not parts.hostname or parts.port == 0 or not netloc.isascii():
            raise ValueError
    except ValueError:
        raise _unusable_error(f"a media descriptor holds an address with a wrong host or port: {netloc[:80]!r}") from None
    if {".", ".."} & set(unquote(path).split("/")):
        raise _unusable_error(f"a media descriptor names a path with dots: {path[:80]!r}")
    return f"{scheme}://{netloc}{quote(_LONE_PERCENT.sub('%25', path), safe=_PATH_SAFE)}"
