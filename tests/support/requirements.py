"""Requirements of tests that a machine may lack: the test is skipped, and fails in CI."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

# Set by ./install.sh --test, which installs all requirements, so that none may be missing.
IS_STRICT = bool(os.environ.get("MUXER_TEST_STRICT"))


def require_program(*names: str | Path) -> str:
    """Return the path of the first installed program of `names`; skip the test, or fail it in CI, when there is none."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    return next((found for name in names if (found := shutil.which(name, path=path))), "") or report_missing(str(names[0]))


def require_file(path: Path, name: str) -> Path:
    """Return `path`, a file of the package `name`; skip the test, or fail it in CI, when it does not exist."""
    return path if path.exists() else report_missing(name)


def report_missing(name: str) -> NoReturn:
    """Skip the test because `name` is missing; in CI fail it."""
    skip_or_fail(f"{name} is missing: ./install.sh --test installs it")


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the test for a `reason`; in CI fail it."""
    if IS_STRICT:
        pytest.fail(reason)
    pytest.skip(reason)


def missing_programs(names: Sequence[str]) -> list[str]:
    """Return the programs of `names` that are not installed."""
    return [name for name in names if shutil.which(name) is None]
