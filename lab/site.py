"""What all servers of a lab share: accounts, switches, state, and the folder of the media."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from lab.bucket import STORAGE_TYPE, ExternalBucket
from lab.keys import Recipient
from lab.service import ServiceAccount
from lab.store import RecordingStore
from lab.switches import DEFAULT_SWITCHES, Switches

CHUNK_BYTES = 1 << 16
CALLS, SCREENS = "calls", "screens"
RWS_ACCOUNT, RCS_ACCOUNT, DAV_ACCOUNT = (ServiceAccount(name, f"{name}%lab") for name in ("ops", "rcs", "dav"))


@dataclass(frozen=True)
class MediaRoot:
    """The WebDAV storage: its URL and the folder behind it. Some collections may be in a bucket."""

    url: str
    folder: Path
    bucket: ExternalBucket | None = None

    def storage_path(self, collection: str) -> str:
        """Return the URL of a collection, with a slash at the end: the storagePath of a descriptor [gir-api 4, S]."""
        return f"{self.url.rstrip('/')}/{collection}/"

    def call_descriptor(self, name: str) -> dict[str, Any]:
        """Return the descriptor of a call's media file: on WebDAV, ``path`` is the full URL [gir-api 3, S]."""
        if self.bucket and CALLS in self.bucket.external.collections:
            return self.bucket.external.media_descriptor(CALLS, name)
        return {"storage": "webDAV", "path": self.storage_path(CALLS) + quote(name)}

    def screen_descriptor(self, name: str) -> dict[str, Any]:
        """Return the descriptor of a screen's media file: on WebDAV, ``path`` is the file name [gir-api 4, S]."""
        if self.bucket and SCREENS in self.bucket.external.collections:
            return self.bucket.external.media_descriptor(SCREENS, name)
        return {"storage": "webDAV", "path": name, "data": {"storagePath": self.storage_path(SCREENS)}}

    def find_file(self, media: dict[str, Any]) -> Path | None:
        """Return the stored file of a media entry, or None: by its descriptor, without one by its mediaId."""
        descriptor = media.get("originalMediaDescriptor")
        if self.bucket and descriptor and descriptor["storage"] == STORAGE_TYPE:
            return self.bucket.fetch_object(descriptor["path"])
        if descriptor is None:
            candidates = [self.folder / collection / media["mediaId"] for collection in (CALLS, SCREENS)]
        else:
            candidates = [path for path in [self._find_described(descriptor)] if path]
        return next((p for p in candidates if p.is_file() and p.resolve().is_relative_to(self.folder.resolve())), None)

    def delete_file(self, media: dict[str, Any]) -> None:
        """Delete the stored file of a media entry; a missing one is no error."""
        descriptor = media.get("originalMediaDescriptor")
        if self.bucket and descriptor and descriptor["storage"] == STORAGE_TYPE:
            self.bucket.delete_object(descriptor["path"])
        elif path := self.find_file(media):
            path.unlink(missing_ok=True)

    def move_to_storage(self, collection: str, name: str) -> None:
        """Move a file from the folder to where its descriptor says it is stored."""
        if self.bucket:
            self.bucket.move_in(collection, self.folder / collection / name)

    def _find_described(self, descriptor: dict[str, Any]) -> Path | None:
        base = (descriptor.get("data") or {}).get("storagePath")
        name = descriptor.get("path", "")
        address = unquote(name) if base is None else f"{unquote(base).rstrip('/')}/{name}"
        root = self.url.rstrip("/") + "/"
        return self.folder / address.removeprefix(root) if address.startswith(root) else None


def read_chunks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file in chunks."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


@dataclass
class LabSite:
    """What the servers of a lab know. `switches` and `rcs_permission` may be changed while they run."""

    media: MediaRoot
    recipients: tuple[Recipient, ...]
    switches: Switches = DEFAULT_SWITCHES
    rcs_permission: bool = True
    # RCS keeps the keys of certificates that are no longer in the settings.
    former_recipients: tuple[Recipient, ...] = ()
    ccid: str = "9a1c2f36-0d5e-4b7c-8a53-5f0c7d1e2b90"
    region: str = "r1"
    store: RecordingStore = field(default_factory=RecordingStore)
    rws_account: ServiceAccount = RWS_ACCOUNT
    rcs_account: ServiceAccount = RCS_ACCOUNT
    dav_account: ServiceAccount = DAV_ACCOUNT
    rws_url: str = ""
    rcs_url: str = ""
