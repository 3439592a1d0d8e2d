"""Fixtures of the tests on Windows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builds.fetch import FetchError
from tests.support.requirements import skip_or_fail
from tests.windows.machine import WindowsMachine, set_up_windows
from tests.windows.muxer import WindowsMuxer


@pytest.fixture(scope="session")
def windows() -> WindowsMachine:
    """Return the Windows of the tests; the first run sets it up."""
    try:
        return set_up_windows()
    except FetchError as error:
        skip_or_fail(str(error))


@pytest.fixture
def muxer(windows: WindowsMachine, tmp_path: Path) -> WindowsMuxer:
    """Return an installation in a folder whose name has blanks and umlauts."""
    return WindowsMuxer.install(windows, tmp_path / "Mitschnitt für Büro")
