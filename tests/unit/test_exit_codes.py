"""Signals and exit codes of the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A process that has set `stop` itself, as at the end of a migration, and then gets this many signals.
_PROGRAM = """
import os, signal, sys, threading
from muxer.system.exit_codes import handle_signals
stop = threading.Event()
handle_signals(stop)
stop.set()
for _ in range(int(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.posix
@pytest.mark.parametrize(("signals", "code"), [(1, 0), (2, 130)])
def test_the_first_signal_after_the_own_end_is_not_taken_for_a_second_one(signals: int, code: int) -> None:
    command = [sys.executable, "-c", _PROGRAM, str(signals)]
    assert subprocess.run(command, cwd=ROOT, timeout=60, check=False).returncode == code
