"""A lock on a file that ends with the process, however it ends, and tells a second instance who holds it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
from pathlib import Path
from typing import IO

from muxer.errors import ConfigError, Problem
from muxer.system.folder_owner import foreign_owner

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_LOCKED_BYTE = 1 << 30
_NOT_REGULAR_TEXT = "it is a link, or no plain file, and would lock or change something else; remove it"
_HELD_ERRORS = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK)


class LockHeld(ConfigError):
    """Another process holds the lock, if only for the moment in which it looks."""


def acquire_lock(path: Path, guarded: Path, option: str) -> IO[str]:
    """Given the path of a lock file, what it guards and the option that names that, make the file if it is missing, lock it,
    write into it who holds it, and return it: the lock is held as long as the file is open.

    Raise :class:`LockHeld` when another process holds it, ``OSError`` when it cannot be used.
    """
    file = os.fdopen(_open_lock_file(path), "r+", encoding="utf-8", errors="replace")
    try:
        _lock_now(file)
    except OSError as error:
        with file:
            if error.errno not in _HELD_ERRORS:
                raise
            holder = file.read(300).strip() or "it does not say which"
            what = f"{guarded} is used by another instance ({holder}); give each instance a folder of its own"
            raise LockHeld([Problem(option, what)]) from error
    # Whoever looks is told less when the disk is full, but the lock holds.
    with contextlib.suppress(OSError):
        os.truncate(file.fileno(), 0)
        os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
    return file


def _open_lock_file(path: Path) -> int:
    """Open or make a lock file. Raise ``PermissionError`` when it is that of another account, which could hold it for ever
    and write into it what it likes, with the name of that; or when it is a link or no plain file."""
    owner, file = foreign_owner(path), -1
    ours = f"it belongs to the account {owner}; start the muxer with that account, or remove the file when none runs"
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        found = os.fstat(file)
        if owner:
            raise PermissionError(errno.EPERM, ours, str(path))
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
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
    """Given the path of a lock file, return who holds it, None when nobody does. Nothing is changed, and the lock is free
    again a moment later. Raise ``OSError`` when it cannot be told."""
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
            return file.read(300).strip() or "it does not say which"
    return None


def _lock_now(file: IO[str], shared: bool = False) -> None:
    """Lock a file, or raise ``OSError`` when somebody else has; ``shared``: with others who only ask.

    On Windows a byte far behind the text is locked, so that the text can still be read.
    """
    if sys.platform == "win32":
        file.seek(_LOCKED_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        finally:
            file.seek(0)
    else:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
