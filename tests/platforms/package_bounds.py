#!/usr/bin/env python3
"""Creates an environment with the lowest or the newest packages that pyproject.toml allows, and runs the main tests in it.

Needs the registry of Python packages; uv, which chooses the versions, comes from there too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WHEELS = ("--only-binary", ":all:")
LOWEST, NEWEST, LOCKED = "lowest", "newest", "locked"
# They use every package: HTTP, TLS, storages, times, terminal and pages, certificates, the fleet, the lab.
MAIN_TESTS = (
    *("tests/unit", "tests/e2e/test_package_versions.py", "tests/e2e/test_main_job.py", "tests/e2e/test_s3_job.py"),
    *("tests/e2e/test_fleet.py", "tests/integration/test_clients.py", "tests/integration/test_tls.py"),
    *("tests/integration/test_webdav.py", "tests/integration/test_s3.py", "tests/integration/test_monitoring_server.py"),
    *("tests/integration/test_fleet_connection.py", "tests/integration/test_lab.py"),
)
# About the tools of developers, not about the program.
LEFT_OUT = ("tests/unit/test_rooms.py", "tests/unit/test_fetch.py", "tests/unit/test_docs_site.py")


class Environment:
    """A virtual environment in `folder`, filled by uv."""

    def __init__(self, folder: Path) -> None:
        self.python = folder / "venv" / "bin" / "python"
        self._folder, self._uv = folder, folder / "uv" / "bin" / "uv"

    def create(self, which: str, python: str) -> None:
        """Create it and print its versions."""
        run_command(sys.executable, "-m", "venv", self._uv.parents[1])
        run_command(self._uv.with_name("python"), "-m", "pip", "install", "--quiet", "uv")
        self._run_uv("venv", "--seed", "--no-python-downloads", "--python", python, self._folder / "venv")
        if which == LOCKED:
            self._run_uv("pip", "install", *WHEELS, "--python", self.python, "-r", ROOT / "thirdparty/requirements-test.txt")
        else:
            self._install_chosen("lowest-direct" if which == LOWEST else "highest")
        run_command(self._uv, "pip", "freeze", "--no-config", "--python", self.python)

    def _install_chosen(self, resolution: str) -> None:
        pins, project = self._folder / "versions.txt", ROOT / "pyproject.toml"
        choose = ("pip", "compile", *WHEELS, "--python", self.python, "--resolution", resolution, "--output-file", pins)
        self._run_uv(*choose, "--extra", "fleet", "--extra", "lab", project)
        # The packages of the tests themselves are as new as those versions allow.
        self._run_uv("pip", "install", *WHEELS, "--python", self.python, "-r", pins, "-r", project, "--extra", "test")

    def _run_uv(self, *words: str | Path) -> None:
        run_command(self._uv, *words, "--quiet", "--no-config")


def run_command(*words: str | Path) -> None:
    subprocess.run(words, check=True)


def main() -> int:
    """Return the exit code of pytest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("which", choices=(LOWEST, NEWEST, LOCKED), help="locked: those of thirdparty/requirements-test.txt")
    parser.add_argument("folder", type=Path, help="a new folder for the environment")
    parser.add_argument("--python", default=sys.executable, help="a version, as 3.13, or a path; by default this Python")
    parser.add_argument("tests", nargs="*", help="arguments of pytest; by default the main tests")
    options = parser.parse_intermixed_args()
    environment = Environment(options.folder.resolve())
    environment.create(options.which, options.python)
    arguments = options.tests or ["-m", "not long", *(f"--ignore={path}" for path in LEFT_OUT), *MAIN_TESTS]
    command = [environment.python, "-m", "pytest", "-n", "2", *arguments]
    variables = os.environ | {"MUXER_RUNTIME_PYTHON": str(environment.python)}
    return subprocess.run(command, cwd=ROOT, env=variables, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
