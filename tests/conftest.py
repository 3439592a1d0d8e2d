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
