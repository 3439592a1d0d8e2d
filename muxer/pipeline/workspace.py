"""The temporary folder of this instance: private, locked against a second instance, one folder for each job, clean-up."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from muxer.config.schema import ProcessingOptions
from muxer.errors import Code, ConfigError, Problem
from muxer.pipeline.disk_space import TempDisk
from muxer.system import files
from muxer.system.file_lock import acquire_lock
from muxer.system.files import is_disk_full, system_temp_folder, translate_disk_errors
from muxer.system.folder_owner import check_folder

log = logging.getLogger(__name__)

LOCK_FILE = "muxer.lock"
JOB_PREFIX = "muxer-job-"
# Muxed files that wait for another attempt; the folder exists only while there are any.
KEPT_FOLDER = "kept"
# The names that tempfile.mkdtemp creates. Anything else in the folder belongs to other programs.
_JOB_NAME = re.compile(re.escape(JOB_PREFIX) + "[a-z0-9_]{8}")


def temp_folder_for(configured: Path | None, instance: str) -> Path:
    """Return the temporary folder of an instance: as configured, or one in the system's temporary folder."""
    return configured if configured is not None else system_temp_folder() / f"recording-muxer-{instance}"


class Workspace:
    """The temporary folder, locked by this process until it ends."""

    def __init__(self, configured: Path | None, instance: str, min_free_megabytes: int | None = None) -> None:
        """Lock the temporary folder of `instance`. Raises ConfigError when it is unsafe, too small or locked."""
        self.path = temp_folder_for(configured, instance)
        try:
            if configured is None:
                private_folder(self.path)
            elif shared := check_folder(configured):
                log.warning("[processing] temp_dir: %s", shared)
            self._lock_file = acquire_lock(self.path / LOCK_FILE, self.path, "[processing] temp_dir")
            self.disk = TempDisk(self.path, min_free_megabytes)
            self.publishing, self.uploading = self.path / "publishing", self.path / "uploading"
            self.deleting, self.padding = self.path / "deleting", self.path / "padding"
            self.kept = self.path / KEPT_FOLDER
            self.touch_files()
        except OSError as error:
            problem = f"{self.path} cannot be used: {error.filename or ''}: {error.strerror or error}"
            raise ConfigError([Problem("[processing] temp_dir", problem, temporary=is_disk_full(error))]) from error
        self._lock = threading.Lock()
        self._active: set[str] = set()
        self._removed = False

    def touch_files(self) -> None:
        """Create missing folders, and mark all files as used: the system's clean-up removes old ones."""
        for folder in (self.publishing, self.uploading, self.deleting, self.padding):
            private_folder(folder)
            os.utime(folder)
            for path in folder.iterdir():
                with contextlib.suppress(OSError):
                    os.utime(path)
        os.utime(self.path / LOCK_FILE)

    def restore_folder(self) -> bool:
        """Create a removed folder and its lock again; return whether that was done. Raises ConfigError."""
        if self._is_held():
            return False
        if not self._removed:
            log.critical(
                "%s the temporary folder %s was removed while it is in use; running jobs fail and are retried, and the "
                "intent records of unfinished work are lost",
                *(Code.SYSTEM, self.path),
            )
        self._removed = True
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            fresh = acquire_lock(self.path / LOCK_FILE, self.path, "[processing] temp_dir")
            self.touch_files()
        except OSError:
            return False  # The job that needs the folder reports the error; the next call tries again.
        self._lock_file.close()
        self._lock_file, self._removed = fresh, False
        log.warning("the temporary folder %s was created again; jobs are resumed", self.path)
        return True

    def _is_held(self) -> bool:
        try:
            return os.path.samestat((self.path / LOCK_FILE).stat(), os.fstat(self._lock_file.fileno()))
        except FileNotFoundError:
            return False
        except OSError:
            return True  # unknown

    @contextmanager
    def job_folder(self) -> Iterator[Path]:
        """Yield a private folder, removed when the job ends. Raises LocalResourceError when the disk is full."""
        with translate_disk_errors(self.path):
            with self._lock:
                path = Path(tempfile.mkdtemp(prefix=JOB_PREFIX, dir=self.path))
                self._active.add(path.name)
            try:
                yield path
            finally:
                remove_folder(path)
                with self._lock:
                    self._active.discard(path.name)

    def remove_job_folders(self) -> None:
        """Remove the folders of jobs that did not end in time."""
        with self._lock:
            abandoned = list(self._active)
        for name in abandoned:
            remove_folder(self.path / name)

    def release_lock(self) -> None:
        """Unlock the folder for other processes."""
        self._lock_file.close()

    def clean_abandoned(self) -> int:
        """Remove the job folders that a terminated process has left. Returns their number."""
        with self._lock:
            folders = [path for path in self.path.glob(f"{JOB_PREFIX}*") if path.name not in self._active]
        return sum(remove_folder(path) for path in folders if _is_job_folder(path))

    @property
    def instance_mark(self) -> str:
        """A short text that identifies this instance; it is the same after a restart."""
        return hashlib.sha256(os.fsencode(f"{socket.gethostname()}:{self.path}")).hexdigest()[:12]


class TempFolderCleaner:
    """Cleans up the temporary folder at intervals (guide: ``clean_temp_folder_timeout``)."""

    def __init__(self, workspace: Workspace, *, enabled: bool, interval: int) -> None:
        """Create it for `workspace`. `interval` is the number of seconds between two clean-ups; -1 cleans whenever idle."""
        self._workspace = workspace
        self._enabled = enabled
        self._interval = interval
        self._last = float("-inf")

    @classmethod
    def from_config(cls, processing: ProcessingOptions, workspace: Workspace) -> TempFolderCleaner:
        """Create it for `workspace` from the options of ``[processing]``."""
        enabled, interval = processing.auto_clean_temp_folder, processing.clean_temp_folder_timeout
        return cls(workspace, enabled=enabled, interval=interval)

    def clean_if_due(self, idle: bool) -> int:
        """Clean up when due (see `interval`); return the number of removed folders."""
        due = idle if self._interval < 0 else time.monotonic() - self._last >= self._interval
        if not self._enabled or not (due or self._last == float("-inf")):
            return 0
        self._last = time.monotonic()
        return self._workspace.clean_abandoned()


def remove_folder(path: Path) -> bool:
    """Delete the folder at `path` with its content, as far as possible. Returns whether it is gone; what stays is logged."""
    try:
        files.retry_while_busy(lambda: _remove_tree(path))
    except OSError as error:
        log.warning("%s cannot be deleted now: %s", path, error)
    return not os.path.lexists(path)


def _remove_tree(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except OSError:
        # A file that another program holds open must not keep the others.
        shutil.rmtree(path, ignore_errors=True)
        if os.path.lexists(path):
            raise


def private_folder(path: Path) -> Path:
    """Create a folder for this account only, or check that the existing one is ours. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if not is_our_folder(path):
        raise PermissionError(errno.EPERM, "it is not a folder of this account", str(path))
    path.chmod(0o700)
    return path


def is_our_folder(path: Path) -> bool:
    """Return whether `path` is a folder (not a link) of this account."""
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and (not hasattr(os, "getuid") or found.st_uid == os.getuid())


def _is_job_folder(path: Path) -> bool:
    try:
        return _JOB_NAME.fullmatch(path.name) is not None and is_our_folder(path)
    except OSError:
        return False
