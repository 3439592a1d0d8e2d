"""Deletes and replaces our own files, also while another program, such as a virus scanner or a backup agent, holds one open.

Windows refuses that with a sharing violation, which is a PermissionError. Such a program is soon done with a file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

RETRY_SECONDS = 2.0
RETRY_INTERVAL = 0.1


def retry_while_busy(do: Callable[[], T], seconds: float | None = None) -> T:
    """Call `do`, again and again for so many `seconds` while another program is in the way, and return what it returns.
    None stands for :data:`PATIENCE_SECONDS`. Raises the last PermissionError, and every other error at once."""
    deadline = time.monotonic() + (RETRY_SECONDS if seconds is None else seconds)
    while True:
        try:
            return do()
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(RETRY_INTERVAL)


def remove_file(path: Path) -> None:
    """Delete the file at `path`; one that is gone already is no error. Raises OSError when it is still there after
    :data:`PATIENCE_SECONDS`."""
    retry_while_busy(lambda: path.unlink(missing_ok=True))


def replace_file(source: Path, target: Path) -> Path:
    """Rename the file `source` to `target`, also over a file there, and return `target`. Raises OSError when that is still
    refused after :data:`PATIENCE_SECONDS`."""
    return retry_while_busy(lambda: source.replace(target))
