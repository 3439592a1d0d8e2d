"""Checks which other accounts have access to a folder or file that the muxer relies on. Not on Windows."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path


def check_folder(path: Path) -> str:
    """Return a warning about the access of other accounts, or an empty text. Raises PermissionError if it is unsafe."""
    if sys.platform == "win32":
        return ""
    found = path.stat()
    if found.st_uid not in (os.geteuid(), 0):
        raise _permission_error(
            path,
            f"it belongs to the account {account_name(found.st_uid)}; "
            "run this with that account, or change its owner to the account of the muxer",
        )
    mode = stat.S_IMODE(found.st_mode)
    if not mode & (stat.S_IWGRP | stat.S_IWOTH):
        return _replaceable_text(path)
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX and not path.is_mount():
        raise _permission_error(path, f"other accounts may write to it (mode {mode:04o}); restrict it: chmod 700 {path}")
    return f"{path} can be written by other accounts (mode {mode:04o}); a separate folder for the muxer is safer"


def _replaceable_text(path: Path) -> str:
    if sys.platform == "win32":
        return ""
    for parent in path.resolve().parents:
        found = parent.stat()
        is_open = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
        if is_open or found.st_uid not in (os.geteuid(), 0):
            return f"other accounts may put another folder in place of {path}, because they own {parent} or can write to it"
    return ""


def foreign_owner(path: Path) -> str:
    """Return the name of the owner of `path` if it is another account, else an empty text."""
    if sys.platform == "win32":
        return ""
    try:
        uid = path.lstat().st_uid
    except OSError:
        return ""
    return account_name(uid) if uid != os.geteuid() else ""


def account_name(uid: int) -> str:
    """Return the name of the account `uid`, or the number if it has none."""
    if sys.platform == "win32":
        return str(uid)
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _permission_error(path: Path, why: str) -> PermissionError:
    return PermissionError(errno.EPERM, why, str(path))
