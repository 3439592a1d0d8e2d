"""What a WebDAV server does in its own way: the name that it gives to a file, and how it renames one."""

from __future__ import annotations

from collections.abc import Iterator

from muxer.checks.checklist import Finding, passed_finding, warning_finding
from muxer.storage.base import MediaLocation, Storage
from muxer.storage.webdav import WebdavStorage


def login_text(store: Storage, place: MediaLocation) -> str:
    """Return the words for the login that the server of `place` accepted."""
    scheme = store.authentication_scheme(place) if isinstance(store, WebdavStorage) else ""
    return "login accepted (Digest)" if scheme == "Digest" else "login accepted"


def check_multiviews(store: Storage, place: MediaLocation) -> Iterator[Finding]:
    """Yield a warning when the server shows the file at `place`, which exists, under another name, too."""
    if isinstance(store, WebdavStorage) and store.has_name_negotiation(place):
        found = f"the server shows {place.name} also under shorter names: Apache's MultiViews is on in this folder"
        advice = (
            "take MultiViews out of the line Options of that folder in the configuration of Apache (Options Indexes "
            "FollowSymLinks): with it, a request for a file that does not exist reaches another one"
        )
        yield warning_finding(f"WebDAV MultiViews {place.folder}", found, advice)


def upload_finding(store: Storage, place: MediaLocation, check: str, size: int) -> Finding:
    """Return the line of an upload of `size` bytes to `place`, which worked and was deleted. `check` is its name."""
    refusal = store.renaming_refusal(place) if isinstance(store, WebdavStorage) else ""
    done = f"{login_text(store, place)}, media are there; a file of {size / 1e6:.0f} MB was uploaded and deleted"
    if not refusal:
        return passed_finding(check, done)
    advice = "allow MOVE for this folder: without it, others see a muxed file before all of it is there"
    return warning_finding(check, f"{done}, but not renamed: {refusal}", advice)
