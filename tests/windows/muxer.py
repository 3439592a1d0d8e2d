"""An installation of the muxer on the Windows of the tests, and its processes there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.lab import Lab
from muxer.pipeline.workspace import LOCK_FILE
from tests.support.daemon import wait_until
from tests.windows.machine import PROGRAMS, ROOT, VENV_PYTHON, WindowsMachine, windows_path

RUN_SECONDS = 240.0
SOURCES = ("muxer", "lab", "encryptPassword.py")


@dataclass(frozen=True)
class Finished:
    """The result of a program: its exit code, and what it wrote, decoded as UTF-8 unless it is not."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class WindowsMuxer:
    """The muxer, copied into `folder` of this machine, as the installation of an instance with its muxer.cfg and log."""

    machine: WindowsMachine
    folder: Path

    @classmethod
    def install(cls, machine: WindowsMachine, folder: Path) -> WindowsMuxer:
        """Copy the muxer of this source into `folder`, as docs/services.md describes."""
        for name in SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, folder)
        return cls(machine, folder)

    @property
    def config(self) -> Path:
        """The path of muxer.cfg."""
        return self.folder / "muxer" / "muxer.cfg"

    @property
    def temp(self) -> Path:
        """The temporary folder of the instance."""
        return self.folder / "temp"

    @property
    def log(self) -> Path:
        """The log file."""
        return self.folder / "log" / "recording-muxer-single.log"

    def write_config(self, lab: Lab, **overrides: str) -> None:
        """Write muxer.cfg for `lab` as an editor of Windows does: with a byte order mark and its line ends."""
        options = {
            "processing.temp_dir": str(self.temp),
            "logfile.logfile_path": str(self.log.parent),
            "logfile.format": "json",
        }
        text = lab.config_text(**options, **overrides)
        for path in (self.temp, self.log.parent):
            text = text.replace(str(path), windows_path(path))
        self.config.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())

    def run_python(self, *arguments: str, stdin: bytes = b"", seconds: float = RUN_SECONDS, **variables: str) -> Finished:
        """Run the Python of the installation, in the folder of muxer.cfg, to its end."""
        done = self.machine.run_program(
            VENV_PYTHON, *arguments, stdin=stdin, seconds=seconds, cwd=self.config.parent, variables=variables
        )
        return Finished(
            done.returncode, *(text.replace(b"\r\n", b"\n").decode(errors="replace") for text in (done.stdout, done.stderr))
        )

    def run_muxer(self, *arguments: str, **how: Any) -> Finished:
        """Run ``muxer_process.py`` to its end."""
        return self.run_python("muxer_process.py", "--config-file=muxer.cfg", *arguments, **how)

    def run_command(self, name: str, *arguments: str, **how: Any) -> Finished:
        """Run a command of ``python -m muxer`` to its end."""
        return self.run_python(
            "-m", "muxer", name, "--config-file=muxer.cfg", *arguments, PYTHONPATH=windows_path(self.folder), **how
        )

    @contextmanager
    def running(self) -> Iterator[WindowsProcess]:
        """Run ``muxer_process.py`` during the block; what is left of it then is killed."""
        command = ["wine", VENV_PYTHON, "muxer_process.py", "--config-file=muxer.cfg"]
        environment = self.machine.environment()
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started = subprocess.Popen(command, cwd=self.config.parent, env=environment, **pipes)  # type: ignore[call-overload]
        process = WindowsProcess(self, started)
        try:
            yield process
        finally:
            process.kill()

    def log_lines(self, message: str = "") -> list[dict[str, Any]]:
        """Return the lines of the log, those with this `message` if it is given. A line being written is left out."""
        text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in lines if message in ("", line["message"])]


class WindowsProcess:
    """A running muxer. Its first process only starts the Python of the system (a venv of Windows does that)."""

    def __init__(self, muxer: WindowsMuxer, started: subprocess.Popen[bytes]) -> None:
        self.muxer, self._started, self._output = muxer, started, bytearray()
        self._reader = threading.Thread(target=self._read_output, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """What it has written to its standard streams."""
        return self._output.decode(errors="replace").replace("\r\n", "\n")

    @property
    def process_id(self) -> int:
        """The number by which Windows knows it."""
        found = re.match(r"process (\d+) on ", self._lock_text())
        assert found, self.output
        return int(found[1])

    def _lock_text(self) -> str:
        lock = self.muxer.temp / LOCK_FILE
        return lock.read_text(encoding="utf-8") if lock.exists() else ""

    def wait_for(self, message: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until the log has `count` lines with this `message`, and return them."""
        enough = lambda: len(self.muxer.log_lines(message)) >= count or self._started.poll() is not None  # noqa: E731
        wait_until(enough, RUN_SECONDS, f"{count} times {message!r}", self.muxer.log)
        lines = self.muxer.log_lines(message)
        assert len(lines) >= count, (self._started.poll(), self.output)
        return lines

    def wait_until(self, happened: Callable[[], object], what: str) -> None:
        """Wait until `happened` returns true, at most as long as the muxer runs."""
        wait_until(lambda: happened() or self._started.poll() is not None, RUN_SECONDS, what, self.muxer.log)
        assert self._started.poll() is None, self.output

    def send_control(self, key: str) -> None:
        """Send Ctrl-C ("c") or Ctrl-Break ("break")."""
        script = windows_path(PROGRAMS / "send_control.py")
        done = self.muxer.machine.run_program(VENV_PYTHON, script, str(self.process_id), key)
        assert done.returncode == 0, done.stderr

    def wait(self, seconds: float = RUN_SECONDS) -> int:
        """Wait for the end and return the exit code."""
        code = self._started.wait(seconds)
        self._reader.join(seconds)
        return code

    def kill(self) -> None:
        """End it as the task manager does, if it runs."""
        try:
            if self._started.poll() is None and self._lock_text():
                self.muxer.machine.run_program("taskkill", "/F", "/PID", str(self.process_id), seconds=60)
        finally:
            self._started.kill()
            self._started.wait(RUN_SECONDS)

    def _read_output(self) -> None:
        assert self._started.stdout is not None
        while chunk := self._started.stdout.read1():  # type: ignore[attr-defined]
            self._output += chunk


@contextmanager
def held_files(machine: WindowsMachine, *paths: Path) -> Iterator[None]:
    """Keep files open during the block, so that no other program can open, replace or delete them."""
    command = ["wine", VENV_PYTHON, windows_path(PROGRAMS / "hold_files.py"), *map(windows_path, paths)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env=machine.environment(), **pipes) as holder:  # type: ignore[call-overload]
        said = holder.stdout.readline()
        assert said.strip() == b"held", said + holder.stdout.read()
        yield
        holder.stdin.close()
