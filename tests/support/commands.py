"""The commands of ``python -m muxer`` as processes, with nothing installed but the declared dependencies."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from pathlib import Path
from typing import Any

from support.daemon import PACKAGE, PYTHON

ROOT = PACKAGE.parent
DYING = Path(__file__).with_name("dying.py")
SECONDS = 120


def clean_environment(**more: str) -> dict[str, str]:
    """Return the environment without what concerns this Python, and with more."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | more


def start(config: Path, name: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a command."""
    line = [PYTHON, "-m", "muxer", name, f"--config-file={config}", *arguments]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(line, cwd=ROOT, env=clean_environment(), text=True, **pipes)


def run(config: Path, name: str, *arguments: str) -> tuple[int, str, str]:
    """Run a command; return its exit code and what it has printed on stdout and stderr."""
    process = start(config, name, *arguments)
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


def run_json(config: Path, name: str, *arguments: str) -> Any:
    """Run a command that ends well with ``--json``; return what it says."""
    code, out, err = run(config, name, "--json", *arguments)
    assert code == 0, err
    return json.loads(out)


def killed_at(point: str, config: Path, name: str, *arguments: str) -> None:
    """Run a command that kills itself with SIGKILL at a point of ``dying.py``."""
    line = [PYTHON, str(DYING), point, name, f"--config-file={config}", *arguments]
    done = subprocess.run(line, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == -signal.SIGKILL, done.stderr


def run_on_terminal(columns: int, config: Path, name: str, *arguments: str) -> tuple[int, str]:
    """Run a command on a terminal that knows colours and UTF-8; return its exit code and all that it has written."""
    line = [PYTHON, "-m", "muxer", name, f"--config-file={config}", *arguments]
    environment = clean_environment(TERM="xterm-256color", COLUMNS=str(columns), LINES="40", LC_ALL="C.UTF-8")
    master, slave = pty.openpty()
    process = subprocess.Popen(line, cwd=ROOT, env=environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    written = b""
    with os.fdopen(master, "rb", buffering=0) as terminal:
        try:
            while chunk := terminal.read(65536):
                written += chunk
        except OSError:
            pass  # the end of a terminal
    return process.wait(SECONDS), written.decode()
