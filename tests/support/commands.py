"""The commands of ``python -m muxer``, run as processes or, which is faster, in this process.

The processes have only the declared dependencies installed."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from muxer.commands import main
from tests.support.daemon import PACKAGE, PYTHON

ROOT = PACKAGE.parent
CRASH_SCRIPT = Path(__file__).with_name("crash_point.py")
TIMEOUT_SECONDS = 600


def clean_environment(**more: str) -> dict[str, str]:
    """Return the environment without the variables of this Python, with additional ones."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | more


def start_command(config: Path, name: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a command."""
    line = [PYTHON, "-m", "muxer", name, f"--config-file={config}", *arguments]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(line, cwd=ROOT, env=clean_environment(), text=True, **pipes)


def run_subprocess(config: Path, name: str, *arguments: str) -> tuple[int, str, str]:
    """Run a command; return its exit code, stdout and stderr."""
    process = start_command(config, name, *arguments)
    out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    return process.returncode, out, err


def run_in_process(config: Path, name: str, *arguments: str) -> tuple[int, str, str]:
    """Run a command in this process; return its exit code, stdout and stderr."""
    return run_main_in_process(name, f"--config-file={config}", *arguments)


def run_json_in_process(config: Path, name: str, *arguments: str) -> Any:
    """Run a successful command with ``--json`` in this process; return its JSON."""
    code, out, err = run_in_process(config, name, "--json", *arguments)
    assert code == 0, err
    return json.loads(out)


def run_main_in_process(*arguments: str) -> tuple[int, str, str]:
    """Run a complete command line in this process; return its exit code, stdout and stderr."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _restore_process():
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
    return code, *(value.buffer.getvalue().decode() for value in (out, err))  # type: ignore[return-value]


@contextlib.contextmanager
def _restore_process() -> Iterator[None]:
    """Restore the process state that a command changes."""
    signals, root, mask = (signal.SIGINT, signal.SIGTERM), logging.getLogger(), os.umask(0o077)
    handlers, earlier = root.handlers[:], [signal.getsignal(item) for item in signals]
    os.umask(mask)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        os.umask(mask)
        for number, handler in zip(signals, earlier, strict=True):
            signal.signal(number, handler)


def run_until_killed(point: str, config: Path, name: str, *arguments: str) -> None:
    """Run a command that kills itself with SIGKILL at a point named in ``crash_point.py``."""
    line = [PYTHON, str(CRASH_SCRIPT), point, name, f"--config-file={config}", *arguments]
    done = subprocess.run(line, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    assert done.returncode == -signal.SIGKILL, done.stderr


def run_on_terminal(columns: int, config: Path, name: str, *arguments: str) -> tuple[int, str]:
    """Run a command on a terminal with colours and UTF-8; return its exit code and its output."""
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
            pass  # the terminal has been closed
    return process.wait(TIMEOUT_SECONDS), written.decode()
