"""Counters of faults and results over a whole run, printed at its end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class RunCounter:
    """A count with a name."""

    name: str
    value: int = 0

    def increase(self, number: int = 1) -> None:
        """Add `number` to the count."""
        self.value += number


FAULTS, KILLS, RECORDINGS = RunCounter("faults injected"), RunCounter("kills"), RunCounter("recordings")
LOST, DOUBLED = RunCounter("lost"), RunCounter("doubled")


def summary_line() -> str:
    """Return all counters in one line."""
    return ", ".join(f"{one.name} {one.value}" for one in (FAULTS, KILLS, RECORDINGS, LOST, DOUBLED))
