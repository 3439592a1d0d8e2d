"""Fetched files that may still be on their way: what their size promises, and how long they have not grown.

A file can be fetched while it is still being uploaded or replicated (docs/gir-api.md, section 4). It is awaited until it is
complete, or until it has not grown for `[advanced] incomplete_after` minutes. What is remembered on disk survives a restart
and is shared by all processes of an instance.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from muxer.errors import MediaIncomplete, MuxerError
from muxer.gir.models import MediaFile
from muxer.media.arrival import Arrival
from muxer.media.completeness import Structure, examine_structure, is_text
from muxer.media.engine import MediaInput
from muxer.net.transfer import ReceivedLength
from muxer.pipeline.workspace import private_folder
from muxer.system import files
from muxer.system.bounded_set import BoundedSet
from muxer.system.files import open_private

log = logging.getLogger(__name__)

# The last block of a ciphertext is filled up with 1 to 16 bytes (AES-CBC).
_MAX_PADDING_BYTES = 16
# A file that nobody has looked at for this long has left the window.
MAX_NOTE_AGE_SECONDS = 2 * 86_400.0
MAX_NOTES = 10_000
MAX_WARNED = 10_000
_CALL, _SCREEN = "call", "screen"


@dataclass(frozen=True)
class FetchedFile:
    """A source that was fetched in clear: its metadata, its path, what was received, whether it is the call's audio, and
    whether it was decrypted on the way."""

    media: MediaFile
    path: Path
    received: ReceivedLength
    is_call: bool
    decrypted: bool

    @property
    def media_kind(self) -> str:
        """The kind of its metadata: servers may write the sizes of calls wrongly and those of screens not."""
        return _CALL if self.is_call else _SCREEN

    @property
    def has_promised_size(self) -> bool:
        """Whether its bytes equal the size in its metadata, which counts the ciphertext of an encrypted file."""
        size, length = self.media.stated_size, int(self.received)
        if self.decrypted:
            return 0 <= size - _MAX_PADDING_BYTES <= length < size
        return 0 < size == length

    @property
    def missing_text(self) -> str:
        """What it lacks by the size in its metadata, in words; empty when it lacks nothing."""
        least = self.media.stated_size - (_MAX_PADDING_BYTES if self.decrypted else 0)
        return f"{int(self.received)} of {self.media.stated_size} bytes are there" if self.received < least else ""


class ArrivalTracker:
    """Decides for each fetched file whether it may still be on its way. Safe to use from any thread."""

    def __init__(
        self, folder: Path, minutes: float, *, single_look: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        """Create it for an instance.

        `folder` keeps one note for each file that is awaited. `minutes` is how long a file is awaited that does not grow.
        `single_look` is True when no later poll brings a recording again: then the storage alone states the age of a file,
        where it does. `clock` returns seconds since 1970.
        """
        self._folder = folder
        self._seconds = 60 * minutes
        self._single_look = single_look
        self._clock = clock
        self._lock = threading.Lock()
        self._credible: set[str] = set()
        self._warned = BoundedSet(MAX_WARNED)

    def check_arrival(self, recording_id: str, files: Sequence[FetchedFile]) -> list[MediaInput]:
        """Return the fetched `files` of a recording as the engine takes them, each with its arrival."""
        with self._lock:
            self._credible |= {one.media_kind for one in files if one.has_promised_size}
            credible = frozenset(self._credible)
        return [self._check_file(recording_id, one, is_credible=one.media_kind in credible) for one in files]

    def _check_file(self, recording_id: str, one: FetchedFile, *, is_credible: bool) -> MediaInput:
        media = one.media
        assert media.start is not None  # nothing else is fetched
        # An error page in place of media is no file that grows.
        shortfall = one.missing_text if is_credible and not is_text(one.path) else ""
        arrival = Arrival.COMPLETE if is_credible and one.has_promised_size else Arrival.GROWING
        if self._is_settled(recording_id, one) and (
            arrival is Arrival.GROWING or examine_structure(one.path) is Structure.TRUNCATED
        ):
            arrival = Arrival.SETTLED
        return MediaInput(one.path, media.media_id, media.start, media.stop, arrival, shortfall)

    def _is_settled(self, recording_id: str, one: FetchedFile) -> bool:
        """Return whether a file is not awaited any longer."""
        if not self._seconds:
            return True
        seen, modified = (
            self._first_seen(self._note_path(recording_id, one.media.media_id), int(one.received)),
            one.received.modified,
        )
        if self._single_look and modified is not None:
            seen = modified
        return seen is not None and self._clock() - max(seen, modified or 0.0) >= self._seconds

    @contextmanager
    def track_muxing(self, recording_id: str, sources: Sequence[MediaInput]) -> Iterator[None]:
        """Watch over the muxing of the `sources` of a recording.

        When one of them turns out to be incomplete, the lengths of all are noted, so that the time in which they do not grow
        counts from now on. Raises MediaIncomplete as the block does, with the time for which the file is awaited.
        """
        try:
            yield
        except MediaIncomplete as error:
            for source in sources:
                self._write_note(recording_id, source)
            length = next((one.path.stat().st_size for one in sources if one.name == error.source), 0)
            awaited = f"it is awaited until it has not grown for {self._seconds / 60:g} minutes"
            is_new = self._warned.add((recording_id, error.source, length))
            raise MediaIncomplete(f"{error}; {awaited}", error.source, warned_once=not is_new) from error

    def forget_files(self, recording_id: str, names: Sequence[str]) -> None:
        """Remove what is remembered about the files of a recording, by their mediaIds: it is muxed."""
        for name in names:
            with suppress(OSError):
                files.remove_file(self._note_path(recording_id, name))

    def prune_notes(self) -> None:
        """Remove the notes that no poll has needed for :data:`KEPT_SECONDS`, and the oldest of too many."""
        with suppress(OSError):
            notes = sorted(((note.stat().st_mtime, note) for note in self._folder.iterdir()), reverse=True)
            for number, (touched, note) in enumerate(notes):
                if number >= MAX_NOTES or self._clock() - touched > MAX_NOTE_AGE_SECONDS:
                    with suppress(OSError):
                        files.remove_file(note)

    def _note_path(self, recording_id: str, name: str) -> Path:
        digest = hashlib.sha256(json.dumps([recording_id, name]).encode()).hexdigest()[:32]
        return self._folder / f"{digest}.json"

    def _first_seen(self, note: Path, length: int) -> float | None:
        """Return when a file was first seen at this `length`, in seconds since 1970. Returns None when it was not."""
        try:
            kept = json.loads(note.read_text(encoding="utf-8"))
            since = float(kept["since"])
            # A clock that was set back would keep the file waiting.
            return since if kept["length"] == length and since <= self._clock() else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _write_note(self, recording_id: str, source: MediaInput) -> None:
        """Note the length of a file, unless it is noted; a file that cannot be noted is awaited longer."""
        note = self._note_path(recording_id, source.name)
        try:
            length = source.path.stat().st_size
            if self._first_seen(note, length) is not None:
                os.utime(note)
                return
            private_folder(self._folder)
            fresh = note.with_suffix(f".{os.getpid()}-{threading.get_ident()}.new")
            with open_private(fresh) as file:
                file.write(json.dumps({"length": length, "since": self._clock()}).encode())
            files.replace_file(fresh, note)
        except (OSError, MuxerError) as error:
            log.info("the length of %s cannot be noted: %s", source.name, error)
