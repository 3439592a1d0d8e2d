"""The versions that pyproject.toml allows are true: the main tests pass with the lowest and the newest packages."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from muxer.system.packages import PACKAGES
from tests.platforms.package_bounds import LOCKED, LOWEST, NEWEST, ROOT

pytestmark = pytest.mark.long
# The versions that the guide of Genesys lists for its own script.
GUIDE = {
    "boto3": "1.28.36",
    "httpx": "0.25.0",
    "python-dateutil": "2.8.2",
    "requests": "2.31.0",
    "urllib3": "1.26.16",
    "webdav4": "0.9.8",
}
CONFIG = "[htcc]\nbase_uri = http://127.0.0.1:9\ncontact_center_id = center\npassword = geheim99\n"
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
    if path is None:  # no registry has one, so this is no fault of the machine
        pytest.skip(f"there is no Python {python} here")
    command = [sys.executable, SCRIPT, which, tmp_path, "--python", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5000:]


def test_the_start_names_each_package_of_the_guide(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
    wanted = (f"{name}=={GUIDE[name]}" if name in GUIDE else name for name in PACKAGES)
    install: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary",
        ":all:",
    ]
    subprocess.run([*install, *wanted], check=True, timeout=600)
    (config := tmp_path / "muxer.cfg").write_text(f"{CONFIG}[logfile]\nlogfile_path = {tmp_path}\n")
    config.chmod(0o600)
    start = [python, "-m", "muxer", "run", f"--config-file={config}"]
    done = subprocess.run(start, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    named = re.findall(r"Python package (\S+): (\S+) is installed, \S+ or later", done.stderr)
    assert done.returncode == 2 and dict(named) == GUIDE and "Traceback" not in done.stderr, done.stderr
