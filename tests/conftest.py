"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from muxer.lab.lab import Lab
from muxer.lab.switches import Switches


@pytest.fixture
def make_lab(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    """Return a function that starts a lab with the given switches; all of them are stopped at the end."""
    with ExitStack() as stack:
        count = iter(range(100))

        def make(**switches: object) -> Lab:
            return stack.enter_context(Lab(tmp_path / f"lab-{next(count)}", Switches(**switches)))  # type: ignore[arg-type]

        yield make


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests have measured: the worst errors of picture and sound, one line for each case."""
    reports = [one for held in terminalreporter.stats.values() for one in held if isinstance(one, pytest.TestReport)]
    rows = [value for one in reports for name, value in one.user_properties if name == "worst error" and one.when == "call"]
    if not rows:
        return
    terminalreporter.section("worst errors, in milliseconds")
    terminalreporter.write_line(f"{'source':<40}{'picture':>10}{'sound':>10}{'allowed':>10}")
    for source, picture, sound, allowed in sorted(rows):
        terminalreporter.write_line(f"{source:<40}{picture:>10.1f}{sound:>10.1f}{allowed:>10.1f}")
