"""The release script starts only when it is called as it should be."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.posix
SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "release.sh"


@pytest.mark.parametrize("arguments", [("--help",), ("--no-check",), ("--no-checks", "now")])
def test_an_unknown_option_starts_no_release(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "tools").mkdir()
    copy = shutil.copy2(SCRIPT, tmp_path / "tools")  # a folder that cannot be released, whatever the script does
    done = subprocess.run([copy, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "release.sh: usage: tools/release.sh [--no-checks]\n")
