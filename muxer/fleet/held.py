"""What a poller knows of the orders that are out: each target from its order to its outcome. A target that is out is not
ordered again; one whose order has vanished is. Pure but for its lock; times are epoch seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Container
from dataclasses import dataclass, replace

from muxer.journal import Key

# An order counts as vanished when all lanes were seen empty for so long, and no living worker has it.
SETTLE_SECONDS = 60.0
# In lanes that are never empty an order may vanish unseen; after so long it is given again, which doubles nothing: a worker
# asks RWS first.
LONGEST_SECONDS = 12 * 3600.0


@dataclass(frozen=True)
class Held:
    """A target that is out: the id of its message, when it was put into a lane, and when a worker began it."""

    key: Key
    message: str
    queued: float
    begun: float | None = None


class Holdings:
    """The targets that are out, by name. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, Held] = {}

    def __contains__(self, file: object) -> bool:
        with self._lock:
            return file in self._held

    def __len__(self) -> int:
        with self._lock:
            return len(self._held)

    def get(self, file: str) -> Held | None:
        """Return what is known of a target, None when it is not out."""
        with self._lock:
            return self._held.get(file)

    def put(self, held: Held) -> None:
        """Note that a target is out."""
        with self._lock:
            self._held[held.key.name] = held

    def begun(self, key: Key, now: float) -> Held:
        """Note that a worker has begun a target, ours or that of another poller; return what is known of it."""
        with self._lock:
            known = self._held.get(key.name) or Held(key, "", now)
            agent = key.agent or known.key.agent
            self._held[key.name] = held = replace(known, key=replace(known.key, agent=agent), begun=now)
        return held

    def drop(self, file: str) -> Held | None:
        """Note that a target is not out any more; return what was known of it."""
        with self._lock:
            return self._held.pop(file, None)

    @property
    def all(self) -> tuple[Held, ...]:
        """Everything that is out."""
        with self._lock:
            return tuple(self._held.values())

    def lost(self, now: float, empty_since: float | None, at_workers: Container[str]) -> list[Held]:
        """Given the time, since when all lanes have been empty (None = they are not) and what living workers have, return
        what is out no more, although nobody has told its end."""
        has_settled = empty_since is not None and now - empty_since >= SETTLE_SECONDS
        found = []
        for held in self.all:
            age = now - max(held.queued, held.begun or 0.0)
            if held.key.name not in at_workers and (age >= LONGEST_SECONDS or (has_settled and age >= SETTLE_SECONDS)):
                found.append(held)
        return found
