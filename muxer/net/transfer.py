"""Streams from the network to disk: checked length, time limit, rights, and an end when the process stops."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from muxer.errors import Code, LocalResourceError, ServiceUnavailable, Stopped
from muxer.status import activity
from muxer.system.files import open_private

CHUNK_BYTES = 256 * 1024
# How often the room for a transfer of unknown length is looked at.
CHECK_INTERVAL_BYTES = 16 * 1024 * 1024
# A transfer may take this long, plus its size at this rate; slower is taken for a stall (our decision).
GRACE_SECONDS = 600.0
MIN_BYTES_PER_SECOND = 64 * 1024
UNKNOWN_LENGTH_SECONDS = 4 * 3600.0
_MAX_LENGTH_DIGITS = 18
# A server that creates each response calls it modified just now: that states nothing about the file.
JUST_NOW_SECONDS = 2.0


def time_limit(length: int | None) -> float:
    """Given the length of a transfer in bytes, if known, return how many seconds it may take."""
    return UNKNOWN_LENGTH_SECONDS if length is None else GRACE_SECONDS + length / MIN_BYTES_PER_SECOND


def content_length(text: str) -> int | None:
    """Given a ``Content-Length``, return the number of bytes that it announces, None when it is no such number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_LENGTH_DIGITS else None


class ReceivedLength(int):
    """The number of bytes of a fetched file.

    `modified` is the time at which the server says that the file was modified last, in seconds since 1970 by the clock of
    this machine. It is None when the server does not state it.
    """

    modified: float | None

    def __new__(cls, length: int, modified: float | None = None) -> ReceivedLength:
        """Create it from the number of bytes, `length`, and `modified`."""
        made = super().__new__(cls, length)
        made.modified = modified
        return made


def modified_at(headers: Mapping[str, str]) -> float | None:
    """Return when a file was modified last, by the response `headers` Last-Modified and Date, whose names are in lower case
    or matched in any case.

    The age is the difference of the two headers, so that the clocks of server and client need not agree. The result is in
    seconds since 1970. Returns None when the headers do not state it.
    """
    modified, sent = _http_time(headers.get("last-modified")), _http_time(headers.get("date"))
    if modified is None or sent is None:
        return None
    age = (sent - modified).total_seconds()
    return time.time() - age if age > JUST_NOW_SECONDS else None


def _http_time(text: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(text) if text else None
    except (ValueError, TypeError, OverflowError):
        return None
    return found if found is not None and found.tzinfo is not None else None


def receive_file(
    chunks: Iterable[bytes],
    path: Path,
    *,
    expected: int | None,
    source: str,
    stop: threading.Event,
    modified: float | None = None,
) -> ReceivedLength:
    """Given the chunks of a body and the length that was announced, write them to ``path`` and return the length, with
    `modified` (see :class:`Received`).

    Raise :class:`ServiceUnavailable` when it breaks off, is too long or too slow, :class:`LocalResourceError` when there
    is no room for it, :class:`Stopped` when ``stop`` is set.
    """
    _check_room(expected or 0, path.parent, source)
    deadline = time.monotonic() + time_limit(expected)
    length, looked = 0, 0
    activity.set_expected_amount(expected or 0)
    with open_private(path) as file:
        for chunk in chunks:
            file.write(chunk)
            length += len(chunk)
            activity.add_progress(len(chunk))
            check_progress(deadline, source, stop)
            if expected is None and length - looked >= CHECK_INTERVAL_BYTES:
                # It may have no end: it gets half of what is free, so that others are not left without.
                looked = length
                _check_room(length, path.parent, source)
            if expected is not None and length > expected:
                break
    if expected is not None and length != expected:
        raise ServiceUnavailable(f"{source} broke off: {length} of {expected} bytes", code=Code.BROKE_OFF)
    return ReceivedLength(length, modified)


def _check_room(length: int, folder: Path, source: str) -> None:
    """Raise :class:`LocalResourceError` when a transfer would fill the disk: until it failed, others would lack room."""
    usage = shutil.disk_usage(folder)
    if usage.total and length > usage.free:
        raise LocalResourceError(f"{source} has {length} bytes, and {usage.free} are free in {folder}", code=Code.DISK_FULL)


def check_progress(deadline: float, what: str, stop: threading.Event) -> None:
    """Raise when the transfer must not go on: the process stops, or the time limit (``time.monotonic``) is over."""
    if stop.is_set():
        raise Stopped(f"stopped while transferring {what}")
    if time.monotonic() > deadline:
        raise ServiceUnavailable(f"{what} took longer than its time limit", code=Code.BROKE_OFF)
