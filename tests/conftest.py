"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.media import KeptLab, Shelf, shared_folder

from muxer.lab.keys import recipients
from muxer.lab.lab import Lab
from muxer.lab.switches import Switches


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """Return where the media of this run are kept."""
    return Shelf(shared_folder(tmp_path_factory.getbasetemp()) / "media")


@pytest.fixture(scope="session")
def kept_lab(tmp_path_factory: pytest.TempPathFactory, shelf: Shelf) -> type[Lab]:
    """Return a kind of lab that takes its media and keys from what other labs of this run have made."""
    KeptLab.shelf, KeptLab.keys = shelf, tmp_path_factory.mktemp("keys")
    recipients(KeptLab.keys)
    return KeptLab


@pytest.fixture
def make_lab(tmp_path: Path, kept_lab: type[Lab]) -> Iterator[Callable[..., Lab]]:
    """Return a function that starts a lab with the given switches; all of them are stopped at the end."""
    with ExitStack() as stack:
        count = iter(range(100))

        def make(**switches: object) -> Lab:
            folder = tmp_path / f"lab-{next(count)}"
            return stack.enter_context(kept_lab(folder, Switches(**switches)))  # type: ignore[arg-type]

        yield make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests that share a fixture of their module run in one worker; any other test runs where there is room."""
    for item in items:
        fixtures = item._fixtureinfo.name2fixturedefs.values() if isinstance(item, pytest.Function) else ()
        if any(found[-1].scope == "module" for found in fixtures):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
