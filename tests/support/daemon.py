"""The muxer as a process, started as in the guide, with only the declared dependencies installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[2] / "muxer"
# For MuxerProcess(): a muxer with short retry delays.
FAST_RETRY: dict[str, Any] = {"package": PACKAGE.parent / "tests" / "support", "script": "fast_retry_launcher.py"}
PYTHON = os.environ.get("MUXER_RUNTIME_PYTHON", sys.executable)


class MuxerProcess:
    """A process ``python muxer_process.py --config-file=…`` of a `package`.

    It runs in the folder of the package or in `cwd`, and is started `through` another command, with a `umask` and by
    another `script` if they are given."""

    def __init__(
        self,
        config: Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        through: Sequence[str] = (),
        umask: int = -1,
        package: Path = PACKAGE,
        script: str = "muxer_process.py",
    ) -> None:
        folder = cwd or package
        script = os.path.relpath(package / script, folder)
        command = [*through, PYTHON, script, f"--config-file={config}", *arguments]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            umask=umask,
            env={**clean, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out = self.err = ""

    def __enter__(self) -> MuxerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def stop(self, number: int = signal.SIGTERM, seconds: float = 20.0) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.process.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds: float) -> int:
        """Wait for the end and return the exit code."""
        self.out, self.err = self.process.communicate(timeout=seconds)
        return self.process.returncode


def run_muxer(config: Path, *arguments: str, seconds: float = 120.0, **how: Any) -> MuxerProcess:
    """Run the muxer until it ends by itself; `how` as for :class:`MuxerProcess`."""
    with MuxerProcess(config, *arguments, **how) as muxer:
        muxer.wait(seconds)
        return muxer


def wait_until(happened: Callable[[], object], seconds: float, what: str, log: Path | None = None) -> None:
    """Wait until `happened` returns true; fail with the end of the log when it does not.

    The interval grows with the time, because each check takes processor time from the process under test."""
    deadline, pause = time.monotonic() + seconds, 0.02
    while time.monotonic() < deadline:
        if happened():
            return
        time.sleep(pause)
        pause = min(0.2, 1.2 * pause)
    tail = log.read_text()[-4000:] if log and log.exists() else ""
    raise AssertionError(f"{what} did not happen within {seconds} s\n{tail}")


def log_lines(log: Path) -> list[dict[str, Any]]:
    """Return the lines of a JSON log."""
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
