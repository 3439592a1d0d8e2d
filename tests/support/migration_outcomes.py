"""What a migration records of its targets, for tests that process one target."""

from __future__ import annotations

from typing import Any


class MigrationOutcomes:
    """The outcomes in their order; every failed attempt may be repeated."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failures: list[str] = []

    def record_start(self, *_: object) -> None:
        """Ignore the start."""

    def record_done(self, key: object, outcome: str, facts: object) -> None:
        """Record the end of a target."""
        self.done.append(outcome)

    def record_failure(self, key: object, failure: Any, *_: object, **__: object) -> bool:
        """Record a failed attempt. Returns True: it may be repeated."""
        self.failures.append(failure.reason)
        return True
