"""The figures are printed at the end of a run."""

from __future__ import annotations

from typing import Any

from tests.faults import run_counters


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the figures of this process; workers of pytest-xdist print nothing."""
    if run_counters.RECORDINGS.value:
        terminalreporter.write_line(f"faults and kills: {run_counters.summary_line()}")
