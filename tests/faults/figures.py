"""What the suites did and what became of it, counted over a whole run and printed at its end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Figure:
    """A count with a name."""

    name: str
    value: int = 0

    def add(self, number: int = 1) -> None:
        """Count."""
        self.value += number


FAULTS, KILLS, RECORDINGS = Figure("faults injected"), Figure("kills"), Figure("recordings")
LOST, DOUBLED = Figure("lost"), Figure("doubled")


def line() -> str:
    """Return all of them in one line."""
    return ", ".join(f"{one.name} {one.value}" for one in (FAULTS, KILLS, RECORDINGS, LOST, DOUBLED))
