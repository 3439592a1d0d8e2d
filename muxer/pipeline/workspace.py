"""The temporary folder of this instance: private, locked against a second instance, a folder for each job, clean-up."""

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

from muxer.config.schema import Config
from muxer.errors import Code, ConfigError, Problem
from muxer.pipeline.disk_space import TempDisk
from muxer.system import files
from muxer.system.file_lock import acquire_lock
from muxer.system.files import translate_disk_errors
from muxer.system.folder_owner import check_folder

log = logging.getLogger(__name__)

LOCK_FILE = "muxer.lock"
JOB_PREFIX = "muxer-job-"
# Muxed files that wait for another attempt; the folder is there only while there are any.
KEPT_FOLDER = "kept"
# What tempfile.mkdtemp makes of the prefix. Anything else in the folder belongs to somebody else.
_JOB_NAME = re.compile(re.escape(JOB_PREFIX) + "[a-z0-9_]{8}")


def temp_folder_for(configured: Path | None, instance: str) -> Path:
    """Given ``temp_dir`` (None = a folder of the instance below the system's) and the instance's name, return its folder."""
    return configured if configured is not None else Path(tempfile.gettempdir()) / f"recording-muxer-{instance}"


class Workspace:
    """The temporary folder, held by this process as long as it lives."""

    def __init__(self, configured: Path | None, instance: str, min_free_megabytes: int | None = None) -> None:
        """Given ``temp_dir`` (None = a folder of this instance below the system's), the instance's name and how much of the
        disk must stay free, take the folder. Raise :class:`ConfigError` when it is unsafe or too small, or another
        instance holds it."""
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
            what = f"{self.path} cannot be used: {error.filename or ''}: {error.strerror or error}"
            raise ConfigError([Problem("[processing] temp_dir", what)]) from error
        self._lock = threading.Lock()
        self._active: set[str] = set()
        self._removed = False

    def touch_files(self) -> None:
        """Make the folders that are missing, and mark everything as used: the system's own cleaners remove what is old."""
        for folder in (self.publishing, self.uploading, self.deleting, self.padding):
            private_folder(folder)
            os.utime(folder)
            for path in folder.iterdir():
                with contextlib.suppress(OSError):
                    os.utime(path)
        os.utime(self.path / LOCK_FILE)

    def restore_folder(self) -> bool:
        """Make the folder and its lock anew when somebody has removed them, which is logged once; return whether that was
        done. Raise :class:`ConfigError` when another instance holds them since."""
        if self._is_held():
            return False
        if not self._removed:
            log.critical(
                "%s the temporary folder %s was removed while it is in use; running jobs fail and are tried again, notes of "
                "what was half done are lost",
                *(Code.SYSTEM, self.path),
            )
        self._removed = True
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            fresh = acquire_lock(self.path / LOCK_FILE, self.path, "[processing] temp_dir")
            self.touch_files()
        except OSError:
            return False  # What needs the folder says what is wrong with it; the next call tries again.
        self._lock_file.close()
        self._lock_file, self._removed = fresh, False
        log.warning("the temporary folder %s is there again; the work goes on", self.path)
        return True

    def _is_held(self) -> bool:
        """Whether the lock that this process holds is the one that others would find."""
        try:
            return os.path.samestat((self.path / LOCK_FILE).stat(), os.fstat(self._lock_file.fileno()))
        except FileNotFoundError:
            return False
        except OSError:
            return True  # It cannot be told.

    @contextmanager
    def job_folder(self) -> Iterator[Path]:
        """Yield a new private folder for one job, and remove it with everything in it when the job ends.

        Raise :class:`~muxer.errors.LocalResourceError` when the disk is full.
        """
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
        """Remove the folders of jobs that could not be ended in time."""
        with self._lock:
            given_up = list(self._active)
        for name in given_up:
            remove_folder(self.path / name)

    def release_lock(self) -> None:
        """Let others have the folder."""
        self._lock_file.close()

    def clean_abandoned(self) -> int:
        """Remove the folders of jobs that are not running, left behind by a process that died; return their number."""
        with self._lock:
            found = self.path.glob(f"{JOB_PREFIX}*")
            left_over = [path for path in found if path.name not in self._active and _is_job_folder(path)]
        return sum(remove_folder(path) for path in left_over)

    @property
    def instance_mark(self) -> str:
        """A short text that is the same after a restart and different for every other instance."""
        return hashlib.sha256(os.fsencode(f"{socket.gethostname()}:{self.path}")).hexdigest()[:12]


class TempFolderCleaner:
    """When the next clean-up of the temporary folder is due (guide: ``clean_temp_folder_timeout``)."""

    def __init__(self, workspace: Workspace, *, enabled: bool, interval: int) -> None:
        """Given what is cleaned, whether it is at all, and the seconds between two clean-ups (-1: whenever idle)."""
        self._workspace = workspace
        self._enabled = enabled
        self._interval = interval
        self._last = float("-inf")

    def clean_if_due(self, idle: bool) -> int:
        """Clean up if it is due: at the first call, then every ``interval`` seconds, or for -1 whenever idle."""
        due = idle if self._interval < 0 else time.monotonic() - self._last >= self._interval
        if not self._enabled or not (due or self._last == float("-inf")):
            return 0
        self._last = time.monotonic()
        return self._workspace.clean_abandoned()


def create_cleaner(config: Config, workspace: Workspace) -> TempFolderCleaner:
    """Return the cleaner of `workspace` with the options of `config`."""
    processing = config.processing
    enabled, interval = processing.auto_clean_temp_folder, processing.clean_temp_folder_timeout
    return TempFolderCleaner(workspace, enabled=enabled, interval=interval)


def remove_folder(path: Path) -> bool:
    """Delete the folder at `path` with everything in it, as far as possible. Returns whether it is gone; what stays is
    logged."""
    try:
        files.retry_while_busy(lambda: _remove_tree(path))
    except OSError as error:
        log.warning("%s cannot be deleted now: %s", path, error)
    return not os.path.lexists(path)


def _remove_tree(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except OSError:
        # One file that is held must not keep the others.
        shutil.rmtree(path, ignore_errors=True)
        if os.path.lexists(path):
            raise


def private_folder(path: Path) -> Path:
    """Make a folder that only this account can enter, or check that an existing one is ours."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if not is_our_folder(path):
        raise PermissionError(errno.EPERM, "it is no folder of this account", str(path))
    path.chmod(0o700)
    return path


def is_our_folder(path: Path) -> bool:
    """Whether it is a real folder, no link to one, of this account."""
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and (not hasattr(os, "getuid") or found.st_uid == os.getuid())


def _is_job_folder(path: Path) -> bool:
    """Whether it is a folder that a job of this account has made."""
    try:
        return _JOB_NAME.fullmatch(path.name) is not None and is_our_folder(path)
    except OSError:
        return False
