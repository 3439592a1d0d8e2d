"""Checks of settings of a WebDAV server: name negotiation and renaming."""

from __future__ import annotations

from collections.abc import Iterator

from muxer.checks.checklist import Finding, passed_finding, warning_finding
from muxer.storage.base import MediaLocation, Storage
from muxer.storage.webdav import WebdavStorage


def login_text(store: Storage, place: MediaLocation) -> str:
    """Return a text on the authentication that the server of `place` accepted."""
    scheme = store.authentication_scheme(place) if isinstance(store, WebdavStorage) else ""
    return "credentials accepted (Digest)" if scheme == "Digest" else "credentials accepted"


def check_multiviews(store: Storage, place: MediaLocation) -> Iterator[Finding]:
    """Yield a warning when the server returns the existing file at `place` under another name, too."""
    if isinstance(store, WebdavStorage) and store.has_name_negotiation(place):
        found = f"the server returns {place.name} also for shorter names: MultiViews of Apache is enabled for this folder"
        advice = (
            "remove MultiViews from the line Options of that folder in the configuration of Apache (Options Indexes "
            "FollowSymLinks): with it, a request for a file that does not exist may return another one"
        )
        yield warning_finding(f"WebDAV MultiViews {place.folder}", found, advice)


def upload_finding(store: Storage, place: MediaLocation, check: str, size: int) -> Finding:
    """Return the finding for a successful test upload of `size` bytes to `place`. `check` is the name of the check."""
    refusal = store.renaming_refusal(place) if isinstance(store, WebdavStorage) else ""
    done = f"{login_text(store, place)}, media exist; a file of {size / 1e6:.0f} MB was uploaded and deleted"
    if not refusal:
        return passed_finding(check, done)
    advice = "allow MOVE for this folder: without it, a muxed file is visible before it is complete"
    return warning_finding(check, f"{done}, but not renamed: {refusal}", advice)
