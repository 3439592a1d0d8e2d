"""Creates many recordings from the media of one: each has its own id, entries and muxed file, and shares the sources."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lab import metadata
from lab.build import AddedCall, build_calls
from lab.cases import ALICE, CallPlan, Case, ScreenPart
from lab.lab import Lab
from lab.site import SCREENS
from muxer.gir.muxed_names import muxed_name

SCREEN_PARTS = (ScreenPart(0, 2), ScreenPart(2, 1))
CALL_SECONDS = 3
OLD_CONTENT = b"the muxed file of an earlier screen file"


@dataclass(frozen=True)
class FaultRecording:
    """A recording that is to be muxed: its id, its start time, and the mediaIds of its sources."""

    id: str
    start: datetime
    sources: list[str]


class RecordingFactory:
    """Creates recordings in a lab: the audio encrypted, the screens clear or encrypted."""

    def __init__(self, lab: Lab, serial: int = 0) -> None:
        """Create the media in the lab's current storage. `serial` differs from that of other factories in the lab."""
        self._lab = lab
        start = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
        plans = [CallPlan(name, CALL_SECONDS, SCREEN_PARTS, encrypted=name == "closed") for name in ("open", "closed")]
        calls, _ = build_calls(lab.site, [(Case.PLAIN, plan, start, serial) for plan in plans])
        self._open, self._closed = calls
        # They are templates, and no recordings themselves.
        self._call = lab.store.get_call(self._closed.id) or {}
        self._screens = {call.id: (lab.store.get_screen(call.id) or {})["mediaFiles"] for call in calls}
        for call in calls:
            lab.store._calls.pop(call.id)
        self._sources = self._source_digests()
        self.created: list[FaultRecording] = []

    def add_recording(self, *, superseded: bool = False, closed: bool = True, complete: bool = True) -> FaultRecording:
        """Add a recording; with ``superseded``, it was muxed before its second screen file existed. One that is not
        ``complete`` has no second screen file until :meth:`complete_recording`."""
        call, lab = self._closed if closed else self._open, self._lab
        id = str(uuid.uuid4())
        recording = FaultRecording(id, call.start, [self._closed.audio_id, *(screen.media_id for screen in call.screens)])
        screens = [*self._screens[call.id], *([self._create_superseded(recording, call)] if superseded else [])]
        for media in screens if complete else screens[:1]:
            lab.store.add_screen_media(id, lab.region, media)
        lab.store.add_call({**self._call, "id": id})
        self.created.append(recording)
        return recording

    def remove_recordings(self) -> None:
        """Remove all created recordings; their files stay."""
        for recording in self.created:
            self._lab.store._calls.pop(recording.id)
        self.created = []

    def restore_recording(self, recording: FaultRecording) -> None:
        """Add a removed recording again."""
        self._lab.store.add_call({**self._call, "id": recording.id})
        self.created.append(recording)

    def complete_recording(self, recording: FaultRecording, *, closed: bool = True) -> None:
        """Add the missing second screen file of a recording."""
        for media in self._screens[(self._closed if closed else self._open).id][1:]:
            self._lab.store.add_screen_media(recording.id, self._lab.region, media)

    @property
    def source_names(self) -> set[str]:
        """The mediaIds of all sources."""
        return {one for call in (self._open, self._closed) for one in (call.audio_id, *(s.media_id for s in call.screens))}

    def changed_sources(self) -> list[str]:
        """Return the changed sources on WebDAV."""
        now = self._source_digests()
        return [path.name for path in {**now, **self._sources} if now.get(path) != self._sources.get(path)]

    def _source_digests(self) -> dict[Path, str]:
        paths = [path for path in self._lab.site.media.folder.rglob("*") if path.name in self.source_names]
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)}

    def _create_superseded(self, recording: FaultRecording, call: AddedCall) -> dict[str, Any]:
        stored = self._lab.site.media.folder / SCREENS / muxed_name(recording.id, recording.sources[:2])
        stored.write_bytes(OLD_CONTENT)
        plan = CallPlan("old", 2, (ScreenPart(0, 2, ALICE),))
        return metadata.muxed_media(self._lab.site, plan, recording.id, call.start, stored, recording.sources[:2])
