"""Decides whether a fetched file may still be incomplete (docs/gir-api.md, section 4).

The muxer waits until it has the size in its metadata, or has not grown for `[advanced] incomplete_after` minutes. Notes on
disk survive a restart and are shared by all processes of an instance.
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
from muxer.media.analyze.arrival import Arrival, MediaInput
from muxer.media.analyze.completeness import Structure, examine_structure, is_text
from muxer.net.transfer import ReceivedLength
from muxer.pipeline.workspace import private_folder
from muxer.system import files
from muxer.system.bounded_set import BoundedSet
from muxer.system.files import open_private

log = logging.getLogger(__name__)

# The last block of a ciphertext is padded with 1 to 16 bytes (AES-CBC).
_MAX_PADDING_BYTES = 16
# A file whose note was not used for this long has left the window.
MAX_NOTE_AGE_SECONDS = 2 * 86_400.0
MAX_NOTES = 10_000
MAX_WARNED = 10_000
_CALL, _SCREEN = "call", "screen"


@dataclass(frozen=True)
class FetchedFile:
    """A fetched, decrypted source. `is_call` is True for the call's audio, `decrypted` when RCS has decrypted it."""

    media: MediaFile
    path: Path
    received: ReceivedLength
    is_call: bool
    decrypted: bool

    @property
    def media_kind(self) -> str:
        """The kind of its metadata: a server may state wrong sizes for calls but not for screens."""
        return _CALL if self.is_call else _SCREEN

    @property
    def has_promised_size(self) -> bool:
        """Whether it has the size in its metadata, which is that of the ciphertext for an encrypted file."""
        size, length = self.media.stated_size, int(self.received)
        if self.decrypted:
            return 0 <= size - _MAX_PADDING_BYTES <= length < size
        return 0 < size == length

    @property
    def missing_text(self) -> str:
        """What is missing by the size in its metadata, as text; empty when nothing is."""
        min_size = self.media.stated_size - (_MAX_PADDING_BYTES if self.decrypted else 0)
        return f"{int(self.received)} of {self.media.stated_size} bytes are there" if self.received < min_size else ""


class ArrivalTracker:
    """Decides for each fetched file whether it may still be incomplete. Safe to use from any thread."""

    def __init__(
        self, folder: Path, minutes: float, *, single_look: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        """`folder` contains the notes; `minutes` is how long to wait for growth.

        `single_look` is True when no later poll returns a recording again: then the time of modification decides, if any.
        """
        self._folder = folder
        self._seconds = 60 * minutes
        self._single_look = single_look
        self._clock = clock
        self._lock = threading.Lock()
        self._credible: set[str] = set()
        self._warned = BoundedSet(MAX_WARNED)

    def with_single_look(self) -> ArrivalTracker:
        """Return one with the same notes for a recording that no later poll returns."""
        return ArrivalTracker(self._folder, self._seconds / 60, single_look=True, clock=self._clock)

    def check_arrival(self, recording_id: str, files: Sequence[FetchedFile]) -> list[MediaInput]:
        """Return the fetched `files` of a recording as inputs of the media engine, each with its arrival."""
        with self._lock:
            self._credible |= {file.media_kind for file in files if file.has_promised_size}
            credible = frozenset(self._credible)
        return [self._check_file(recording_id, file, is_credible=file.media_kind in credible) for file in files]

    def _check_file(self, recording_id: str, file: FetchedFile, *, is_credible: bool) -> MediaInput:
        media = file.media
        assert media.start is not None  # fetch_source requires it
        # An error page instead of media does not grow.
        shortfall = file.missing_text if is_credible and not is_text(file.path) else ""
        arrival = Arrival.COMPLETE if is_credible and file.has_promised_size else Arrival.GROWING
        if self._is_settled(recording_id, file) and (
            arrival is Arrival.GROWING or examine_structure(file.path) is Structure.TRUNCATED
        ):
            arrival = Arrival.SETTLED
        return MediaInput(file.path, media.media_id, media.start, media.stop, arrival, shortfall)

    def _is_settled(self, recording_id: str, file: FetchedFile) -> bool:
        if not self._seconds:
            return True
        since = self._first_seen(self._note_path(recording_id, file.media.media_id), int(file.received))
        modified = file.received.modified
        if self._single_look and modified is not None:
            since = modified
        return since is not None and self._clock() - max(since, modified or 0.0) >= self._seconds

    @contextmanager
    def track_muxing(self, recording_id: str, sources: Sequence[MediaInput]) -> Iterator[None]:
        """Watch the muxing of `sources`; when one is incomplete, note the lengths of all and raise MediaIncomplete."""
        try:
            yield
        except MediaIncomplete as error:
            for source in sources:
                self._write_note(recording_id, source)
            length = next((source.path.stat().st_size for source in sources if source.name == error.source), 0)
            waiting = f"waiting until it has not grown for {self._seconds / 60:g} minutes"
            is_new = self._warned.add((recording_id, error.source, length))
            raise MediaIncomplete(f"{error}; {waiting}", error.source, warned_once=not is_new) from error

    def forget_files(self, recording_id: str, names: Sequence[str]) -> None:
        """Remove the notes of the files of a muxed recording. `names` are their mediaIds."""
        for name in names:
            with suppress(OSError):
                files.remove_file(self._note_path(recording_id, name))

    def prune_notes(self) -> None:
        """Remove notes older than MAX_NOTE_AGE_SECONDS, and the oldest ones beyond MAX_NOTES."""
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
        """Return when a file was first seen with this `length`, in seconds since 1970; None when it was not."""
        try:
            content = json.loads(note.read_text(encoding="utf-8"))
            since = float(content["since"])
            # After the clock was set back, the muxer would wait too long.
            return since if content["length"] == length and since <= self._clock() else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _write_note(self, recording_id: str, source: MediaInput) -> None:
        """Note the length of a file. When that fails, the muxer waits longer for it."""
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
