"""The only place that starts external programs: argument lists, time limits, cancellation, no orphans.

A program is killed with all its children: its process group, on Windows its Job Object. When this process dies, the kernel
kills it; on Linux, the children of a wrapper script are then left to the service manager.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from muxer.errors import LocalResourceError, Stopped, ToolError
from muxer.system import openssl_libraries
from muxer.system.files import system_temp_folder, translate_disk_errors
from muxer.system.windows_job import WindowsJob

if sys.platform != "win32":
    import resource

log = logging.getLogger(__name__)

T = TypeVar("T")

STDERR_TAIL_BYTES = 2000
_MAX_LINE_BYTES = 65_536
# The memory limit of a program on Linux, against malicious files: an encoder of the largest frames needs half of it.
MAX_MEMORY_BYTES = 4 << 30
_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
# Error texts of programs that are caused by this machine, not by the media.
_RESOURCE_ERRORS = ("No space left on device", "Cannot allocate memory", "Disk quota exceeded", "Too many open files")
# Variables with these name parts may be secret; programs that read foreign media do not get them.
_SECRET_NAME_PARTS = ("PASSWORD", "PASSWD", "SECRET", "TOKEN", "CREDENTIAL", "AWS_", "BROKER_URL")
_SECRET_NAME_ENDS = ("KEY", "_PROXY")
_LINUX = sys.platform.startswith("linux")
# A static build of ffmpeg crashes with the character converters of another C library; the muxer does not need them.
_NO_CONVERTERS = ("GCONV_PATH", os.devnull)
_recorded: contextvars.ContextVar[list[tuple[str, ...]] | None] = contextvars.ContextVar("recorded", default=None)


@contextmanager
def record_commands() -> Iterator[list[tuple[str, ...]]]:
    """Yield a list that receives every command that this thread runs in the block."""
    commands: list[tuple[str, ...]] = []
    token = _recorded.set(commands)
    try:
        yield commands
    finally:
        _recorded.reset(token)


class _Program(subprocess.Popen[bytes]):
    """A running program with its children, because a wrapper script may start the real program."""

    job: WindowsJob | None = None

    def assign_job(self) -> None:
        if sys.platform == "win32":
            with contextlib.suppress(OSError):
                self.job = WindowsJob(int(self._handle))  # type: ignore[attr-defined,unused-ignore]

    def kill_all(self) -> None:
        if sys.platform == "win32":
            if self.job is not None:
                self.job.terminate_programs()
            self.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def close_job(self) -> None:
        if self.job is not None:
            self.job.close()


class _ErrorOutput:
    """The error output of a program in a temporary file, without the lines for which `hear` returns True."""

    def __init__(self, hear: Callable[[bytes], bool] | None) -> None:
        folder = system_temp_folder()
        with translate_disk_errors(folder):
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._hear = hear
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None
        self.target: IO[bytes] | int = self._file if hear is None else subprocess.PIPE

    def __enter__(self) -> _ErrorOutput:
        return self

    def __exit__(self, *_: object) -> None:
        self._join_reader()
        self._file.close()

    def start_reading(self, process: _Program) -> None:
        if self._hear is not None and process.stderr is not None:
            self._thread = threading.Thread(target=self._read_lines, args=(process, process.stderr, self._hear), daemon=True)
            self._thread.start()

    def read_tail(self) -> str:
        """Return the end of the output after the program has ended. Raises the exception of `hear`."""
        self._join_reader()
        if self._failure is not None:
            raise self._failure
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, end - STDERR_TAIL_BYTES))
        return self._file.read().decode(errors="replace").strip()

    def _join_reader(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _read_lines(self, process: _Program, lines: IO[bytes], hear: Callable[[bytes], bool]) -> None:
        with lines:
            for line in iter(lambda: lines.readline(_MAX_LINE_BYTES), b""):
                try:
                    taken = self._failure is None and hear(line)
                except Exception as error:
                    # Its output is read to the end all the same, so that nothing waits.
                    self._failure, taken = error, False
                    process.kill_all()
                if not taken:
                    self._file.write(line)


class Runner:
    """Runs programs, and can kill them. Safe to use from any thread. Only `openssl` gets its own libraries."""

    def __init__(self, openssl: str = "") -> None:
        self._openssl = openssl
        self._own_folders = openssl_libraries.library_folders(openssl) if _LINUX and openssl else ()
        self._lock = threading.Lock()
        self._running: set[_Program] = set()
        self._cancelled = False

    def run(
        self, command: Sequence[str | Path], *, timeout: float, cwd: Path | None = None, complaint: str | None = None
    ) -> bytes:
        """Run a command and return its output; `timeout` in seconds.

        Raises ToolError when it fails, takes too long, or prints an error line that starts with `complaint`; Stopped;
        LocalResourceError when this machine has too little memory or disk space.
        """
        return self.run_streaming(command, lambda out: out.read(), timeout=timeout, cwd=cwd, complaint=complaint)

    def run_streaming(
        self,
        command: Sequence[str | Path],
        consume: Callable[[IO[bytes]], T],
        *,
        timeout: float,
        cwd: Path | None = None,
        complaint: str | None = None,
        hear: Callable[[bytes], bool] | None = None,
        stdin: IO[bytes] | int = subprocess.DEVNULL,
        variables: Mapping[str, str] | None = None,
    ) -> T:
        """Like :meth:`run`, but `consume` the output while the program runs; return its result.

        `hear` gets each line of the error output, in another thread; it returns True for a line that is not kept. When it
        raises an error, the program is killed, and the error is raised here.
        `variables` are added to the environment.
        """
        arguments = [str(part) for part in command]
        log.debug("running: %s", " ".join(arguments))
        if (commands := _recorded.get()) is not None:
            commands.append(tuple(arguments))
        with _ErrorOutput(hear) as errors:
            process = self._start_program(arguments, errors.target, cwd, stdin, variables or {})
            errors.start_reading(process)
            expired = threading.Event()
            timer = threading.Timer(timeout, _kill_at_timeout, (process, expired))
            timer.daemon = True
            timer.start()
            try:
                assert process.stdout is not None
                result = consume(process.stdout)
                status = process.wait()
            except Exception:
                # The error output of the program explains more than the error that its broken output caused.
                if _quick_exit_status(process):
                    self._check_status(arguments, process.returncode, errors.read_tail(), expired.is_set(), complaint)
                raise
            finally:
                timer.cancel()
                self._end_program(process)
            self._check_status(arguments, status, errors.read_tail(), expired.is_set(), complaint)
        return result

    def cancel_all(self) -> None:
        """Kill every running program, and refuse to start others."""
        with self._lock:
            self._cancelled = True
            running = list(self._running)
        for process in running:
            process.kill_all()

    def _start_program(
        self,
        arguments: list[str],
        errors: IO[bytes] | int,
        cwd: Path | None,
        stdin: IO[bytes] | int,
        variables: Mapping[str, str],
    ) -> _Program:
        with self._lock:
            if self._cancelled:
                raise Stopped(f"not started, the process stops: {arguments[0]}")
            try:
                process = _Program(
                    arguments,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    cwd=cwd,
                    env={**self._program_environment(arguments[0]), **variables},
                    preexec_fn=_child_setup(os.getpid()) if _LINUX else None,
                    process_group=0 if os.name == "posix" else None,
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                )
            except OSError as error:
                raise LocalResourceError(f"{arguments[0]} cannot be started: {error.strerror}") from error
            process.assign_job()
            self._running.add(process)
        return process

    def _program_environment(self, program: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not _may_be_secret(name.upper())}
        if program == self._openssl:
            return openssl_libraries.add_own_folders(clean, self._own_folders)
        clean.setdefault(*_NO_CONVERTERS)
        return openssl_libraries.remove_foreign_folders(clean, self._own_folders, program)

    def _end_program(self, process: _Program) -> None:
        if process.poll() is None:
            process.kill_all()
            process.wait()
        process.close_job()
        if process.stdout is not None:
            process.stdout.close()
        with self._lock:
            self._running.discard(process)

    def _check_status(self, arguments: list[str], status: int, stderr: str, too_long: bool, complaint: str | None) -> None:
        name = Path(arguments[0]).name
        if status != 0 and self._cancelled:
            raise Stopped(f"{name} was cancelled")
        if too_long:
            raise ToolError(f"{name} took longer than its time limit")
        # Also with status 0: ffmpeg returns it when the disk is full at the end of its output.
        if status == -_SIGKILL or any(sign in stderr for sign in _RESOURCE_ERRORS):
            raise LocalResourceError(
                f"{name} ended with status {status} because there is too little memory or disk space: {stderr[-300:]}"
            )
        if status != 0 or (complaint and any(line.startswith(complaint) for line in stderr.splitlines())):
            raise ToolError(f"{name} ended with status {status}: {stderr or 'no message'}")
        if stderr:
            log.debug("%s printed: %s", name, stderr)


def _may_be_secret(name: str) -> bool:
    return name.endswith(_SECRET_NAME_ENDS) or any(part in name for part in _SECRET_NAME_PARTS)


def _kill_at_timeout(process: _Program, expired: threading.Event) -> None:
    expired.set()
    process.kill_all()


def _quick_exit_status(process: _Program) -> int:
    """Return the exit status of a program that ends by itself within a second, else 0."""
    try:
        return process.wait(1.0)
    except subprocess.TimeoutExpired:
        return 0


def _child_setup(parent: int) -> Callable[[], None]:
    """Return the function that limits the memory of a child, and lets the kernel kill it when its parent dies."""

    def limit_child() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, _SIGKILL)
        if sys.platform != "win32":
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            limit = MAX_MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MAX_MEMORY_BYTES, hard)
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        if os.getppid() != parent:
            os._exit(1)

    return limit_child


# Loaded here, because a child between fork and exec must not load libraries.
_LIBC = ctypes.CDLL(None) if _LINUX else None
