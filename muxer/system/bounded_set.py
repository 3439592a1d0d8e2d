"""A set and a map of limited size."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable


class BoundedSet:
    """Thread-safe set of the last `capacity` keys."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._keys: OrderedDict[Hashable, None] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._keys

    def add(self, key: Hashable) -> bool:
        """Add a key; return whether it is new."""
        with self._lock:
            if key in self._keys:
                return False
            self._keys[key] = None
            if len(self._keys) > self._capacity:
                self._keys.popitem(last=False)
            return True


class BoundedMap:
    """Thread-safe map of the last `capacity` keys to a text."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._texts: OrderedDict[Hashable, str] = OrderedDict()
        self._lock = threading.Lock()

    def store(self, key: Hashable, text: str) -> bool:
        """Store the text of a key; return whether it is new or another one."""
        with self._lock:
            if self._texts.get(key) == text:
                return False
            self._texts.pop(key, None)
            self._texts[key] = text
            if len(self._texts) > self._capacity:
                self._texts.popitem(last=False)
            return True

    def remove(self, key: Hashable) -> None:
        """Remove a key."""
        with self._lock:
            self._texts.pop(key, None)
