"""Requests without a response of the lab: each trap holds the first matching request until it is released."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from lab.lab import Lab
from lab.store import ScriptedFailure

MAX_HOLD_SECONDS = 120.0


class RequestTraps:
    """Traps by name; `caught` are the names of those that hold a request."""

    def __init__(self, traps: Mapping[str, tuple[str, str, str]]) -> None:
        """Create the traps: for each name the service, the method and a regular expression for the path with the query."""
        self._open = dict(traps)
        self._lock = threading.Lock()
        self._end = threading.Event()
        self.caught: set[str] = set()

    def hold_if_trapped(self, service: str, method: str, path: str) -> None:
        """Hold a request that matches a trap."""
        with self._lock:
            fits = (name for name, one in self._open.items() if one[:2] == (service, method) and re.search(one[2], path))
            name = next(fits, None)
            if name is None:
                return
            del self._open[name]
            self.caught.add(name)
        self._end.wait(MAX_HOLD_SECONDS)

    def release_all(self) -> None:
        """Release all requests and hold no more."""
        with self._lock:
            self._open.clear()
        self._end.set()


@contextmanager
def set_traps(lab: Lab, **traps: tuple[str, str, str]) -> Iterator[RequestTraps]:
    """Set traps in a lab; they are released at the end of the block."""
    request_traps, real = RequestTraps(traps), lab.store.take_failure

    def take_failure(service: str, method: str, path: str) -> ScriptedFailure | None:
        request_traps.hold_if_trapped(service, method, path)
        return real(service, method, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab.store, "take_failure", take_failure)
        try:
            yield request_traps
        finally:
            request_traps.release_all()
