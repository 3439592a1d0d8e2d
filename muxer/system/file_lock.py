"""A file lock that ends with the process, and names its holder to a second instance."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
import time
from pathlib import Path
from typing import IO

from muxer.errors import ConfigError, Problem
from muxer.system.folder_owner import foreign_owner

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# A lock that is still held after this number of tries is not that of a query.
QUERY_TRIES, QUERY_SECONDS = 4, 0.02
_LOCKED_BYTE = 1 << 30
_NOT_REGULAR_TEXT = "it is a link, or not a regular file, and a lock would change something else; remove it"
_HELD_ERRORS = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)


class LockHeld(ConfigError):
    """Another process, the `holder`, holds the lock."""

    def __init__(self, problem: Problem, holder: str) -> None:
        super().__init__([problem])
        self.holder = holder


def acquire_lock(path: Path, guarded: Path, option: str) -> IO[str]:
    """Lock `path` and return it, open; `guarded` and `option` are for the error. Raises LockHeld or OSError."""
    file = os.fdopen(_open_lock_file(path), "r+", encoding="utf-8", errors="replace")
    try:
        _lock_patiently(file)
    except OSError as error:
        with file:
            if error.errno not in _HELD_ERRORS:
                raise
            holder = file.read(300).strip() or "unknown process"
            advice = "if that is this muxer, stop it first; else give each instance a separate folder"
            what = f"{guarded} is used by another instance ({holder}); {advice}"
            raise LockHeld(Problem(option, what), holder) from error
    # On a full disk the holder is not written, but the lock holds.
    with contextlib.suppress(OSError):
        os.truncate(file.fileno(), 0)
        os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
    return file


def _open_lock_file(path: Path) -> int:
    """Open a lock file. Raises PermissionError when it is of another account, which could keep it, or no file."""
    owner, file = foreign_owner(path), -1
    ours = f"it belongs to the account {owner}; run this with that account, or remove the file when nothing uses it"
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        status = os.fstat(file)
        if owner:
            raise PermissionError(errno.EPERM, ours, str(path))
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise PermissionError(errno.EPERM, _NOT_REGULAR_TEXT, str(path))
    except OSError as error:
        if file >= 0:
            os.close(file)
        if error.errno == errno.ELOOP:
            raise PermissionError(errno.EPERM, _NOT_REGULAR_TEXT, str(path)) from error
        if owner and error.errno == errno.EACCES:
            raise PermissionError(error.errno, f"{error.strerror}: {ours}", str(path)) from error
        raise
    return file


def lock_holder(path: Path) -> str | None:
    """Return the holder of a lock file, None when not locked. Raises OSError when that is not known."""
    try:
        file = path.open("r+" if sys.platform == "win32" else "r", encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    with file:
        try:
            _lock_now(file, shared=True)
        except OSError as error:
            if error.errno not in _HELD_ERRORS:
                raise
            return file.read(300).strip() or "unknown process"
    return None


def _lock_patiently(file: IO[str]) -> None:
    """Lock a file, although a query such as that of `status` may hold it for an instant."""
    for _ in range(QUERY_TRIES - 1):
        try:
            _lock_now(file)
        except OSError as error:
            if error.errno not in _HELD_ERRORS:
                raise
            time.sleep(QUERY_SECONDS)
        else:
            return
    _lock_now(file)


def _lock_now(file: IO[str], shared: bool = False) -> None:
    """Lock a file (on Windows a byte far after the text). Raises OSError when it is locked."""
    if sys.platform == "win32":
        file.seek(_LOCKED_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        finally:
            file.seek(0)
    else:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
