"""The long form of the suites: ``python -m tests.faults --kills 200 --minutes 10``, in the environment of the tests."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent


def main() -> int:
    """Run the suites and return the exit code of pytest."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Faults and kills, in their long form.")
    parser.add_argument("--kills", type=int, default=200, help="random kills of one instance; half as many of one of two")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long faults are injected at random")
    given = parser.parse_args()
    os.environ["FAULTS_KILLS"], os.environ["FAULTS_MINUTES"] = str(given.kills), str(given.minutes)
    return int(pytest.main([str(FOLDER), "-c", str(FOLDER.parents[1] / "pyproject.toml"), "-o", "faulthandler_timeout=0"]))


if __name__ == "__main__":
    sys.exit(main())
