"""A bounded memory of keys: what was seen lately, without growth over the years that a muxer runs."""

from __future__ import annotations

import threading
from collections.abc import Hashable


class BoundedSet:
    """Remembers so many keys; the oldest are forgotten first. Safe to use from any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys: dict[Hashable, None] = {}
        self._lock = threading.Lock()

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._keys

    def add(self, key: Hashable) -> bool:
        """Remember a key; return whether it is new."""
        with self._lock:
            if key in self._keys:
                return False
            self._keys[key] = None
            if len(self._keys) > self._most:
                del self._keys[next(iter(self._keys))]
            return True
