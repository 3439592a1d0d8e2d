"""The versions that pyproject.toml allows are true: the main tests pass with the lowest and the newest packages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.platforms.package_bounds import LOCKED, LOWEST, NEWEST, ROOT

pytestmark = pytest.mark.long
SCRIPT = ROOT / "tests" / "platforms" / "package_bounds.py"


def find_python(version: str) -> str | None:
    """Return the path of a Python of this version that runs: on PATH, or of pyenv."""
    others = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for path in filter(None, [shutil.which(f"python{version}"), *map(str, others)]):
        if subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    return None


@pytest.mark.parametrize(
    ("which", "python"), [(LOWEST, "3.11"), (NEWEST, "3.11"), (LOCKED, "3.12"), (LOCKED, "3.13"), (LOCKED, "3.14")]
)
def test_main_tests_pass(which: str, python: str, tmp_path: Path) -> None:
    path = find_python(python)
    if path is None:
        pytest.skip(f"there is no Python {python} here")
    command = [sys.executable, SCRIPT, which, tmp_path, "--python", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5000:]
