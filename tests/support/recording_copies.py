"""Many recordings that share the media of one: cheap to create, and muxed like any other."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lab.lab import Lab
from lab.times import wire_time
from tests.support.calls import add_short, muxed_entries

_TIMES = ("startTime", "stopTime", "occurredAt")


class RecordingCopies:
    """Copies of a short call in a lab; `made` are their ids, the oldest of each :meth:`add_copies` first."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        (call,) = add_short(lab, [0])
        self._start = call.start
        # It is the template of the copies, not a recording itself.
        self._call = lab.store._calls.pop(call.id)
        self._media = (lab.store.get_screen(call.id) or {})["mediaFiles"]
        self.source: Path = lab.site.media.folder / "screens" / call.screens[0].media_id
        self.made: list[str] = []

    def add_copies(self, number: int = 1, ago: timedelta = timedelta(minutes=10)) -> list[str]:
        """Add `number` copies; the first one started `ago`, each next one a second later."""
        first = datetime.now(UTC) - ago
        ids = [self._add_copy(first + timedelta(seconds=offset)) for offset in range(number)]
        self.made += ids
        return ids

    def remove_copies(self) -> None:
        """Remove all of them."""
        for id in self.made:
            self._lab.store._calls.pop(id)
        self.made = []

    @property
    def labelled_ids(self) -> set[str]:
        """The recordings with a label, which is the last step of the muxer."""
        return {id for id, _ in self._lab.store.label_posts}

    def unfinished_ids(self, ids: list[str] | None = None) -> list[str]:
        """Return the ids without exactly one muxed file in RWS and in the storage, or without exactly one label."""
        stored = [path.name for path in self.source.parent.iterdir()]
        labels = [id for id, _ in self._lab.store.label_posts]
        return [id for id in ids or self.made if not self._is_done(id, stored, labels)]

    def _is_done(self, id: str, stored: list[str], labels: list[str]) -> bool:
        entries = [entry["mediaId"] for entry in muxed_entries(self._lab, id)]
        return len(entries) == 1 and [item for item in stored if item.startswith(id)] == entries and labels.count(id) == 1

    def _add_copy(self, start: datetime) -> str:
        id, later = str(uuid.uuid4()), start - self._start
        for media in self._media:
            self._lab.store.add_screen_media(id, self._lab.region, _shift_times(media, later))
        self._lab.store.add_call({**_shift_times(self._call, later), "id": id})
        return id


def _shift_times(value: Any, later: timedelta) -> Any:
    """Return metadata with all times shifted by `later`."""
    if isinstance(value, list):
        return [_shift_times(item, later) for item in value]
    if isinstance(value, dict):
        return {name: _shift_time(one, later) if name in _TIMES else _shift_times(one, later) for name, one in value.items()}
    return value


def _shift_time(time: str, later: timedelta) -> str:
    return wire_time(datetime.fromisoformat(time) + later)
