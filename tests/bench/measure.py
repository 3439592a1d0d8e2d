"""Shared by all benchmarks: alternating repetition, ratios, and figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class BenchSetting:
    """The folder of a benchmark's files, and whether it only runs with tiny sizes to show that it works."""

    folder: Path
    quick: bool = False

    def pick_size(self, full: T, quick: T) -> T:
        """Return the size for this run."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Figure:
    """One line of the table. ``low`` and ``high``: the spread over the rounds. A goal is an upper or a lower bound."""

    what: str
    value: float
    unit: str = ""
    low: float | None = None
    high: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    @property
    def meets_goal(self) -> bool | None:
        """Whether the goal is met; None when there is no goal."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least

    def to_json(self) -> dict[str, Any]:
        """Return the figure for the JSON file."""
        return {**vars(self), "met": self.meets_goal}


def run_alternately(rounds: int, **actions: Callable[[], float]) -> dict[str, list[float]]:
    """Run actions in turns, A B A B. Each returns its seconds; returns the seconds of each round.

    Other load on the machine then affects all of them equally.
    """
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            taken[name].append(action())
    return taken


def time_action(action: Callable[[], object]) -> float:
    """Return the seconds that an action takes."""
    started = time.monotonic()
    action()
    return time.monotonic() - started


def ratio_figure(what: str, above: Sequence[float], below: Sequence[float], **goal: float) -> Figure:
    """Return the median ratio of the seconds of two actions in the same rounds."""
    each = [one / other for one, other in zip(above, below, strict=False)]
    return Figure(what, median(each), "x", min(each), max(each), **goal)


def seconds_figure(what: str, taken: Sequence[float], **goal: float) -> Figure:
    """Return the median of the seconds that an action took."""
    return Figure(what, median(taken), "s", min(taken), max(taken), **goal)


TABLE_HEADER = f"{'topic':<9} {'what':<66} {'value':>10}     {'spread':<19} {'goal':<9} verdict"


def format_row(topic: str, figure: Figure) -> str:
    """Return one line of the table."""
    spread = (
        "" if figure.low is None or figure.high is None else f"{_format_value(figure.low)} – {_format_value(figure.high)}"
    )
    goal = f"<= {figure.at_most:g}" if figure.at_most is not None else ""
    goal = f">= {figure.at_least:g}" if figure.at_least is not None else goal
    verdict = {None: "", True: "met", False: "NOT MET"}[figure.meets_goal]
    value = f"{_format_value(figure.value):>10} {figure.unit:<3}"
    return f"{topic:<9} {figure.what:<66} {value} {spread:<19} {goal:<9} {verdict}".rstrip()


def _format_value(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
