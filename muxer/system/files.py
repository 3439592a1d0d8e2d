"""Finds and creates files, and deletes and replaces those that another program (Windows: a scanner) holds for a while."""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from muxer.errors import Code, LocalResourceError

T = TypeVar("T")

BUFFER_BYTES = 256 * 1024
RETRY_SECONDS = 2.0
RETRY_INTERVAL = 0.1
_NO_SPACE = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def exists(path: Path) -> bool:
    """Whether there is something at `path`. Raises OSError when that cannot be found out.

    The methods of Path return False then, for a closed folder or an unavailable server, since Python 3.14.
    """
    return _read_mode(path) != 0


def is_file(path: Path) -> bool:
    """Whether `path` leads to a file. Raises OSError when that cannot be found out."""
    return stat.S_ISREG(_read_mode(path))


def is_folder(path: Path) -> bool:
    """Whether `path` leads to a folder. Raises OSError when that cannot be found out."""
    return stat.S_ISDIR(_read_mode(path))


def _read_mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        # A link that leads to itself; on Windows, a drive without a medium, an invalid name.
        if error.errno == errno.ELOOP or getattr(error, "winerror", 0) in (21, 123, 1921):
            return 0
        raise


def retry_while_busy(do: Callable[[], T], seconds: float | None = None) -> T:
    """Call `do` for `seconds` as long as it raises PermissionError. Raises the last one, others at once."""
    deadline = time.monotonic() + (RETRY_SECONDS if seconds is None else seconds)
    while True:
        try:
            return do()
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(RETRY_INTERVAL)


def remove_file(path: Path) -> None:
    """Delete the file `path` if it exists. Raises OSError when that still fails after :data:`RETRY_SECONDS`."""
    retry_while_busy(lambda: path.unlink(missing_ok=True))


def replace_file(source: Path, target: Path) -> Path:
    """Rename a file over `target` and return that. Raises OSError when it fails after :data:`RETRY_SECONDS`."""
    return retry_while_busy(lambda: source.replace(target))


@contextmanager
def open_private(path: Path) -> Iterator[BinaryIO]:
    """Create a private file. Raises LocalResourceError when the disk is full, OSError when it is unsafe."""
    with translate_disk_errors(path.parent):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(path, flags, 0o600), "wb", buffering=BUFFER_BYTES) as file:
            if hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), 0o600)  # An existing file may be readable by others.
            yield file


def is_disk_full(error: OSError) -> bool:
    """Whether a disk, or the quota of this account on it, is full."""
    return error.errno in _NO_SPACE


@contextmanager
def translate_disk_errors(folder: Path) -> Iterator[None]:
    """Raise LocalResourceError, which names `folder`, instead of the OSError of a full disk."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise LocalResourceError(f"no space left for temporary files in {folder}", code=Code.DISK_FULL) from error
        raise


def system_temp_folder() -> Path:
    """Return the temporary folder of the system, also when it is full.

    :func:`tempfile.gettempdir` would return another one then, where an instance finds neither its lock nor its journal.
    """
    usual = () if sys.platform == "win32" else ("/tmp",)
    candidates = [*filter(None, map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))), *usual]
    for folder in candidates:
        if os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):  # noqa: PTH112 Path.is_dir fails below a closed folder.
            return Path(folder).absolute()
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # Errors name the first one.
        return Path(next(iter(candidates), os.curdir)).absolute()


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Yield a folder in the temporary folder of the system, then remove it. Raises LocalResourceError on a full disk."""
    base = system_temp_folder()
    with (
        translate_disk_errors(base),
        tempfile.TemporaryDirectory(prefix=prefix, dir=base, ignore_cleanup_errors=True) as folder,
    ):
        yield Path(folder)


@contextmanager
def file_present(name: str) -> Iterator[None]:
    """Raise LocalResourceError, which contains `name`, instead of FileNotFoundError."""
    try:
        yield
    except FileNotFoundError as error:
        raise LocalResourceError(f"{name} was removed from the temporary folder while it was needed") from error
