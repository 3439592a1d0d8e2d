"""Who else may use a folder or file that the muxer relies on. On Windows nothing is known of that, and nothing said."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def check_folder(path: Path) -> str:
    """Return what other accounts may do with the folder `path`, where systems share folders on purpose; else an empty text.

    Shared on purpose are folders like ``/tmp`` (sticky), mounted volumes, and those of a group. Raises PermissionError when
    it belongs to another account than this one or root, or when others may put files of their own in the place of ours.
    """
    if not hasattr(os, "geteuid"):
        return ""
    found = path.stat()
    if found.st_uid not in (os.geteuid(), 0):
        raise _permission_error(
            path, f"it belongs to the account {account_name(found.st_uid)}; give it to the muxer's account"
        )
    mode = stat.S_IMODE(found.st_mode)
    if not mode & (stat.S_IWGRP | stat.S_IWOTH):
        return _replaceable_text(path)
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX and not path.is_mount():
        raise _permission_error(path, f"other accounts may write to it (mode {mode:04o}); close it: chmod 700 {path}")
    return f"{path} can be written by other accounts (mode {mode:04o}); a folder of the muxer's own is safer"


def _replaceable_text(path: Path) -> str:
    """Return that other accounts may rename the folder `path`, or one above it, when they may; else an empty text."""
    for parent in path.resolve().parents:
        found = parent.stat()
        is_open = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
        if is_open or found.st_uid not in (os.geteuid(), 0):
            return f"other accounts may put another folder in place of {path}, because {parent} is theirs or open to them"
    return ""


def foreign_owner(path: Path) -> str:
    """Return the name of the account that owns the file `path`, when that is another one than this; else an empty text."""
    try:
        uid = path.lstat().st_uid
    except OSError:
        return ""
    return account_name(uid) if hasattr(os, "geteuid") and uid != os.geteuid() else ""


def account_name(uid: int) -> str:
    """Return the name of the account with the number `uid`, or the number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _permission_error(path: Path, why: str) -> PermissionError:
    return PermissionError(errno.EPERM, why, str(path))
