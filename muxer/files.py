"""Deletes and replaces our own files, also while another program, such as a virus scanner or a backup agent, holds one open.

Windows refuses that with a sharing violation, which is a PermissionError. Such a program is soon done with a file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 2.0
PAUSE_SECONDS = 0.1


def patiently(do: Callable[[], T], seconds: float | None = None) -> T:
    """Call `do`, again and again for so many `seconds` while another program is in the way, and return what it returns.
    None stands for :data:`PATIENCE_SECONDS`. Raises the last PermissionError, and every other error at once."""
    deadline = time.monotonic() + (PATIENCE_SECONDS if seconds is None else seconds)
    while True:
        try:
            return do()
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(PAUSE_SECONDS)


def remove(path: Path) -> None:
    """Delete the file at `path`; one that is gone already is no error. Raises OSError when it is still there after
    :data:`PATIENCE_SECONDS`."""
    patiently(lambda: path.unlink(missing_ok=True))


def replace(source: Path, target: Path) -> Path:
    """Rename the file `source` to `target`, also over a file there, and return `target`. Raises OSError when that is still
    refused after :data:`PATIENCE_SECONDS`."""
    return patiently(lambda: source.replace(target))
