"""The calls whose targets need work, so that a poll reads them again although its reach is shorter than their age."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass

MAX_OPEN_CALLS = 20_000


@dataclass(frozen=True)
class OpenTarget:
    """A target that needs work: the name of its file, and the services that it needs."""

    name: str
    services: frozenset[str]


# Stands for the unknown targets of a call whose screen recording RWS fails to return.
UNREAD = OpenTarget("", frozenset())


@dataclass(frozen=True)
class OpenCall:
    """A call with open targets. `start` is when its first audio began, in epoch seconds."""

    id: str
    start: float
    targets: tuple[OpenTarget, ...]


class OpenCalls:
    """The open calls by id, at most :data:`MAX_OPEN_CALLS`. `is_full`: some were left out since `begin_whole`."""

    def __init__(self) -> None:
        self._calls: dict[str, OpenCall] = {}
        # The calls that were not read since `begin_whole`.
        self._unread: set[str] = set()
        self.is_full = False

    def record_call(self, call: OpenCall) -> None:
        """Record what a call needs, which may be nothing any more."""
        self.forget_call(call.id)
        if not call.targets:
            return
        if len(self._calls) < MAX_OPEN_CALLS:
            self._calls[call.id] = call
        else:
            self.is_full = True

    def forget_call(self, recording_id: str) -> None:
        """Forget a call that no longer exists."""
        self._calls.pop(recording_id, None)
        self._unread.discard(recording_id)

    def forget_older(self, start: float) -> None:
        """Forget the calls that began before `start`: they have left the window."""
        self._calls = {one.id: one for one in self._calls.values() if one.start >= start}

    def begin_whole(self) -> None:
        """Note that the whole window will be read. The calls stay known: full queues or an error may end the poll early."""
        self._unread, self.is_full = set(self._calls), False

    def end_whole(self) -> None:
        """Forget the calls that the whole window does not have any more."""
        for one in self._unread:
            self._calls.pop(one, None)
        self._unread = set()

    def find_older(self, start: float, is_wanted: Callable[[OpenTarget], bool]) -> list[OpenCall]:
        """Return the calls that began before `start` and have a target for which `is_wanted` is true, the newest first."""
        found = (one for one in self._older_than(start) if any(map(is_wanted, one.targets)))
        return sorted(found, key=lambda one: one.start, reverse=True)

    def count_targets(
        self, start: float, is_open: Callable[[OpenTarget], bool], without: Container[str] = ()
    ) -> tuple[int, float | None]:
        """Return how many targets of calls that began before `start`, other than those `without`, are open, and when the
        oldest of these calls began."""
        others = (one for one in self._older_than(start) if one.id not in without)
        counts = [(one.start, sum(map(is_open, one.targets))) for one in others]
        return sum(count for _, count in counts), min((began for began, count in counts if count), default=None)

    def _older_than(self, start: float) -> Iterator[OpenCall]:
        return (one for one in self._calls.values() if one.start < start)
