"""Everything that is checked without running the program: ``python -m tools.lint``, which ``make lint`` and ``./install.sh
--test`` run. Prints one line for each check, and what a failed one says. Exit code 1 when one failed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = Path(sys.executable).parent
# What runs on Windows. Most tests use modules of POSIX.
FOR_WINDOWS = ("muxer", "lab", "encryptPassword.py", "tools", "tests/windows/programs")
MYPY = [sys.executable, "-m", "mypy"]
CHECKS = {
    "ruff check": [sys.executable, "-m", "ruff", "check", "."],
    "ruff format": [sys.executable, "-m", "ruff", "format", "--check", "."],
    "mypy": MYPY,
    # With a separate cache: a common one would be useless for the other platform.
    "mypy for Windows": [*MYPY, "--platform", "win32", "--cache-dir", ".mypy_cache/win32", *FOR_WINDOWS],
    "import contracts": [str(SCRIPTS / "lint-imports"), "--no-cache"],
    "codespell": [str(SCRIPTS / "codespell")],
    "plain English": [sys.executable, "-m", "tools.prose"],
}


def main() -> int:
    """Run all checks, also after one has failed. Returns the exit code."""
    failed = False
    for name, command in CHECKS.items():
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        print(f"{name}: {'ok' if done.returncode == 0 else 'FAILED'}", flush=True)
        if done.returncode:
            failed = True
            print(done.stdout + done.stderr, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
