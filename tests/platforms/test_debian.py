"""Other releases of Debian, created with debootstrap: the demo runs in them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.platforms.package_bounds import ROOT
from tests.support.requirements import require_program

pytestmark = pytest.mark.long
SCRIPT = ROOT / "tests" / "platforms" / "debian.sh"
NO_SYSTEM = 3


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder for a system, which is removed: it takes a gigabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root can create another system")
    require_program("debootstrap")
    yield tmp_path / "system"
    shutil.rmtree(tmp_path / "system", ignore_errors=True)


def run_script(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *words], capture_output=True, text=True, check=False, timeout=1800)


@pytest.mark.parametrize("suite", ["trixie", "forky"])
def test_demo_runs_in_another_release(suite: str, folder: Path) -> None:
    created = run_script("make", suite, folder)
    if created.returncode == NO_SYSTEM:
        pytest.skip(created.stderr.strip())
    assert created.returncode == 0, created.stderr[-3000:]
    done = run_script("check", suite, folder, "demo")
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-3000:]
    assert done.stdout.endswith(f"{suite}: ./install.sh --demo: ok\n")
    assert not any(str(folder) in line for line in Path("/proc/self/mounts").read_text().splitlines())
