"""Remembers how WebDAV servers rename files: whether at all, and in which form of the new address."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

# After this time a server that cannot rename is tried again: it may have been reconfigured (our decision).
RETRY_RENAME_SECONDS = 3600.0
# The delays before each attempt of a MOVE: two in the known form of the header Destination, then the others.
MOVE_DELAYS = (0.0, 0.5, 1.0, 1.0)


class RenameSupport:
    """The memory of the renaming of all servers, each named by scheme, host and port. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._without: dict[str, float] = {}
        self._form: dict[str, int] = {}
        self._refused: dict[str, str] = {}

    def is_possible(self, server: str) -> bool:
        """Whether `server` can rename, as far as is known."""
        with self._lock:
            return time.monotonic() >= self._without.get(server, 0.0)

    def mark_impossible(self, server: str, reason: str) -> None:
        """Note that `server` cannot rename, and the `reason` for the checklist."""
        with self._lock:
            self._without[server] = time.monotonic() + RETRY_RENAME_SECONDS
            self._refused[server] = reason

    def record_refusal(self, server: str, reason: str) -> None:
        """Note for the checklist the `reason` for which `server` did not rename one file."""
        with self._lock:
            self._refused[server] = reason

    def last_refusal(self, server: str) -> str:
        """Return why `server` did not rename a file, empty when it always did."""
        with self._lock:
            return self._refused.get(server, "")

    def destination_forms(self, server: str, url: str) -> Iterator[tuple[int, str]]:
        """Yield forms of the header Destination for `url`, with their numbers: mod_dav behind a proxy refuses some."""
        parts = urlsplit(url)
        other = "http" if parts.scheme == "https" else "https"
        forms = (url, urlunsplit(parts._replace(scheme=other)), urlunsplit(("", "", parts.path, "", "")))
        with self._lock:
            first = self._form.get(server, 0)
        for number in (first, first, *(one for one in range(len(forms)) if one != first)):
            yield number, forms[number]

    def remember_form(self, server: str, form: int) -> None:
        """Note that `server` takes the header Destination in the `form` of this number."""
        with self._lock:
            self._form[server] = form
