"""The temporary folder of this instance: private, locked against a second instance, a folder for each job, clean-up."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from muxer.errors import ConfigError, Problem
from muxer.transfer import disk_errors

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

JOB_PREFIX = "muxer-job-"
_LOCKED_BYTE = 1 << 30


class Workspace:
    """The temporary folder, held by this process as long as it lives."""

    def __init__(self, configured: Path | None, instance: str) -> None:
        """Given ``temp_dir`` (None = a folder of this instance below the system's) and the instance's name, take the
        folder. Raise :class:`ConfigError` when it is unsafe or another instance holds it."""
        self.path = configured if configured is not None else Path(tempfile.gettempdir()) / f"recording-muxer-{instance}"
        try:
            if configured is None:
                _private(self.path)
            self._lock_file = _lock(self.path / "muxer.lock")
            self.publishing, self.uploading = self.path / "publishing", self.path / "uploading"
            self.padding = self.path / "padding"
            self.keep()
        except OSError as error:
            what = f"{self.path} cannot be used: {error.filename or ''}: {error.strerror or error}"
            raise ConfigError([Problem("[processing] temp_dir", what)]) from error
        self._lock = threading.Lock()
        self._active: set[str] = set()

    def keep(self) -> None:
        """Make the folders that are missing, and mark everything as used: the system's own cleaners remove what is old."""
        for folder in (self.publishing, self.uploading, self.padding):
            _private(folder)
            for path in (folder, *folder.iterdir()):
                with contextlib.suppress(FileNotFoundError):
                    os.utime(path)
        os.utime(self.path / "muxer.lock")

    @contextmanager
    def job(self) -> Iterator[Path]:
        """Yield a new private folder for one job, and remove it with everything in it when the job ends.

        Raise :class:`~muxer.errors.LocalResourceError` when the disk is full.
        """
        with disk_errors(self.path):
            with self._lock:
                path = Path(tempfile.mkdtemp(prefix=JOB_PREFIX, dir=self.path))
                self._active.add(path.name)
            try:
                yield path
            finally:
                shutil.rmtree(path, ignore_errors=True)
                with self._lock:
                    self._active.discard(path.name)

    def close(self) -> None:
        """Remove the folders of all jobs, also of those that could not be ended in time."""
        for path in self.path.glob(f"{JOB_PREFIX}*"):
            if not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)

    def clean(self) -> int:
        """Remove the folders of jobs that are not running, left behind by a process that died; return their number."""
        removed = 0
        for path in self.path.glob(f"{JOB_PREFIX}*"):
            with self._lock:
                if path.name in self._active or path.is_symlink() or not path.is_dir():
                    continue
                shutil.rmtree(path, ignore_errors=True)
            removed += 1
        return removed

    @property
    def mark(self) -> str:
        """A short text that is the same after a restart and different for every other instance."""
        return hashlib.sha256(os.fsencode(f"{socket.gethostname()}:{self.path}")).hexdigest()[:12]


class Cleaning:
    """When the next clean-up of the temporary folder is due (guide: ``clean_temp_folder_timeout``)."""

    def __init__(self, workspace: Workspace, *, enabled: bool, interval: int) -> None:
        self._workspace = workspace
        self._enabled = enabled
        self._interval = interval
        self._last = float("-inf")

    def tick(self, idle: bool) -> int:
        """Clean up if it is due: at the first call, then every ``interval`` seconds, or for -1 whenever idle."""
        due = idle if self._interval < 0 else time.monotonic() - self._last >= self._interval
        if not self._enabled or not (due or self._last == float("-inf")):
            return 0
        self._last = time.monotonic()
        return self._workspace.clean()


def _private(path: Path) -> Path:
    """Make a folder that only this account can enter, or check that an existing one is ours."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        raise PermissionError(errno.EPERM, "it is no folder of this account", str(path))
    path.chmod(0o700)
    return path


def _lock(path: Path) -> IO[str]:
    """Lock a file until the process ends, however it ends, and write into it who holds it."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    file = os.fdopen(os.open(path, flags, 0o600), "r+", encoding="utf-8")
    try:
        _lock_now(file)
    except OSError as error:
        file.seek(0)
        holder = file.read(300).strip() or "unknown"
        file.close()
        what = f"{path.parent} is used by another instance ({holder}); give each instance a folder of its own"
        raise ConfigError([Problem("[processing] temp_dir", what)]) from error
    file.seek(0)
    file.truncate()
    file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
    file.flush()
    return file


def _lock_now(file: IO[str]) -> None:
    """Lock a file, or raise ``OSError`` when somebody else has. On Windows a byte far behind the text is locked, so that
    the text can still be read."""
    if sys.platform == "win32":
        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
