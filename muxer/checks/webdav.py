"""What a WebDAV server does in its own way: the name that it gives to a file, and how it renames one."""

from __future__ import annotations

from collections.abc import Iterator

from muxer.checks.checklist import Finding, ok, warning
from muxer.storage.base import Place, Storage
from muxer.storage.webdav import WebdavStorage


def login_of(store: Storage, place: Place) -> str:
    """Return the words for the login that the server of `place` accepted."""
    scheme = store.authentication(place) if isinstance(store, WebdavStorage) else ""
    return "login accepted (Digest)" if scheme == "Digest" else "login accepted"


def multiviews(store: Storage, place: Place) -> Iterator[Finding]:
    """Yield a warning when the server shows the file at `place`, which exists, under another name, too."""
    if isinstance(store, WebdavStorage) and store.serves_others(place):
        found = f"the server shows {place.name} also under shorter names: Apache's MultiViews is on in this folder"
        advice = (
            "take MultiViews out of the line Options of that folder in the configuration of Apache (Options Indexes "
            "FollowSymLinks): with it, a request for a file that does not exist reaches another one"
        )
        yield warning(f"WebDAV MultiViews {place.folder}", found, advice)


def uploaded(store: Storage, place: Place, check: str, size: int) -> Finding:
    """Return the line of an upload of `size` bytes to `place`, which worked and was deleted. `check` is its name."""
    refusal = store.renaming_refusal(place) if isinstance(store, WebdavStorage) else ""
    done = f"{login_of(store, place)}, media are there; a file of {size / 1e6:.0f} MB was uploaded and deleted"
    if not refusal:
        return ok(check, done)
    advice = "allow MOVE for this folder: without it, others see a muxed file before all of it is there"
    return warning(check, f"{done}, but not renamed: {refusal}", advice)
