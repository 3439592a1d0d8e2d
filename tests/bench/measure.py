"""What all benchmarks share: repetition side by side, ratios, and the figures that they yield."""

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
    """Where a benchmark keeps its files, and whether it only shows that it works, with tiny sizes."""

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
        """Whether the goal is met; None when there is none."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least

    def to_json(self) -> dict[str, Any]:
        """Return the figure for the JSON file."""
        return {**vars(self), "met": self.meets_goal}


def run_alternately(rounds: int, **actions: Callable[[], float]) -> dict[str, list[float]]:
    """Given actions that return how many seconds they took, run them in turns, A B A B, and return the seconds of each.

    Whatever else the machine does then meets all of them alike.
    """
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            taken[name].append(action())
    return taken


def time_action(action: Callable[[], object]) -> float:
    """Return how many seconds an action takes."""
    started = time.monotonic()
    action()
    return time.monotonic() - started


def ratio_figure(what: str, above: Sequence[float], below: Sequence[float], **goal: float) -> Figure:
    """Given the seconds of two actions in the same rounds, return the median of their ratios."""
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
