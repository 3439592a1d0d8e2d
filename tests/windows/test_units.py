"""The fast tests of tests/unit, run by the Python of Windows. Those that are marked `posix` are skipped there."""

from __future__ import annotations

import re

import pytest

from tests.windows.machine import ROOT, VENV_PYTHON, WindowsMachine

pytestmark = pytest.mark.long

MAX_SECONDS = 1800
LEFT_OUT = "tests/unit/test_docs_site.py"  # mkdocs is not installed there


def test_the_fast_tests_pass(windows: WindowsMachine) -> None:
    options = ["-q", "--color=no", "-m", "fast", "-o", "faulthandler_timeout=0", f"--ignore={LEFT_OUT}"]
    command = [VENV_PYTHON, "-m", "pytest", *options, "tests/unit"]
    done = windows.run_program(*command, seconds=MAX_SECONDS, cwd=ROOT)
    out = done.stdout.decode(errors="replace")
    assert done.returncode == 0, out[-8000:] + done.stderr.decode(errors="replace")
    assert "is about POSIX" in out and not re.search(r"^(FAILED|ERROR) ", out, re.MULTILINE)
