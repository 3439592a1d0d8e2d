"""Streams a response body to disk, with a checked length, a time limit and an end when the process stops."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from muxer.errors import Code, LocalResourceError, ServiceUnavailable, Stopped, UnreadableResponse
from muxer.status import activity
from muxer.system.files import open_private

CHUNK_BYTES = 256 * 1024
# How often the free space is checked during a transfer of unknown length.
CHECK_INTERVAL_BYTES = 16 * 1024 * 1024
# A transfer may take this long, plus its size at this rate; a slower one counts as stalled (our decision).
GRACE_SECONDS = 600.0
MIN_BYTES_PER_SECOND = 64 * 1024
UNKNOWN_LENGTH_SECONDS = 4 * 3600.0
_MAX_LENGTH_DIGITS = 18
# A server that creates each response states that it was modified just now: that is not the age of the file.
JUST_NOW_SECONDS = 2.0


def time_limit(length: int | None) -> float:
    """Return the number of seconds that a transfer of `length` bytes (None: unknown) may take."""
    return UNKNOWN_LENGTH_SECONDS if length is None else GRACE_SECONDS + length / MIN_BYTES_PER_SECOND


def content_length(text: str) -> int | None:
    """Parse a ``Content-Length``. Returns None when it is not a number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_LENGTH_DIGITS else None


class ReceivedLength(int):
    """The length of a fetched file; `modified` is in epoch seconds of this machine's clock, None when not stated."""

    modified: float | None

    def __new__(cls, length: int, modified: float | None = None) -> ReceivedLength:
        received = super().__new__(cls, length)
        received.modified = modified
        return received


def modified_at(headers: Mapping[str, str]) -> float | None:
    """Return when a file was modified: now less its age by the server's clock; None when not stated."""
    modified, sent = _http_time(headers.get("last-modified")), _http_time(headers.get("date"))
    if modified is None or sent is None:
        return None
    age = (sent - modified).total_seconds()
    return time.time() - age if age > JUST_NOW_SECONDS else None


def _http_time(text: str | None) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(text) if text else None
    except (ValueError, TypeError, OverflowError):
        return None
    return parsed if parsed is not None and parsed.tzinfo is not None else None


def receive_file(
    chunks: Iterable[bytes],
    path: Path,
    *,
    expected: int | None,
    source: str,
    stop: threading.Event,
    modified: float | None = None,
) -> ReceivedLength:
    """Write the `chunks` of a body to `path`; `expected` is the announced length, `source` is for errors.

    Raises ServiceUnavailable when the body breaks off, is too long or too slow, LocalResourceError, or Stopped.
    """
    _check_room(expected or 0, path.parent, source)
    deadline = time.monotonic() + time_limit(expected)
    length, checked = 0, 0
    activity.set_expected_amount(expected or 0)
    with open_private(path) as file:
        for chunk in chunks:
            file.write(chunk)
            length += len(chunk)
            activity.add_progress(len(chunk))
            check_progress(deadline, source, stop)
            if expected is None and length - checked >= CHECK_INTERVAL_BYTES:
                # The body may have no end: it gets half of the free space, so that enough is left for others.
                checked = length
                _check_room(length, path.parent, source)
            if expected is not None and length > expected:
                break
    if expected is not None and length != expected:
        raise ServiceUnavailable(f"{source} broke off: {length} of {expected} bytes", code=Code.BROKE_OFF)
    return ReceivedLength(length, modified)


def _check_room(length: int, folder: Path, source: str) -> None:
    """Raise LocalResourceError when a transfer would fill the disk, before others lack space, too."""
    usage = shutil.disk_usage(folder)
    if usage.total and length > usage.free:
        raise LocalResourceError(
            f"{source} has {length} bytes, but only {usage.free} are free in {folder}", code=Code.DISK_FULL
        )


def limit_body(
    chunks: Iterable[bytes], what: str, max_bytes: int, deadline: float, stop: threading.Event
) -> Iterator[bytes]:
    """Yield the `chunks` of a response that is not media. Raises UnreadableResponse, and as :func:`check_progress`."""
    length = 0
    for chunk in chunks:
        length += len(chunk)
        if length > max_bytes:
            raise UnreadableResponse(f"{what}: the response is longer than {max_bytes} bytes")
        yield chunk
        check_progress(deadline, what, stop)


def check_progress(deadline: float, what: str, stop: threading.Event) -> None:
    """Raise Stopped when `stop` is set, ServiceUnavailable after `deadline` (``time.monotonic``)."""
    if stop.is_set():
        raise Stopped(f"stopped while transferring {what}")
    if time.monotonic() > deadline:
        raise ServiceUnavailable(f"{what} took longer than its time limit", code=Code.BROKE_OFF)
