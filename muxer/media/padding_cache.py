"""Padding slices that were encoded once are kept for other recordings: a small, bounded folder of files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from muxer.system import files

# There are as many as a site has sizes of screens; the least recently used go first.
MAX_SLICES = 64


class PaddingCache:
    """The kept padding slices. Safe to use from any thread, and after a hard kill: a file appears whole or not at all."""

    def __init__(self, folder: Path) -> None:
        """Given an existing folder of its own, which is swept of what a hard kill left half-written."""
        self._folder = folder
        for path in folder.glob("*.new"):
            with contextlib.suppress(OSError):
                files.remove_file(path)

    def get_or_create(self, parameters: str, path: Path, make: Callable[[Path], None]) -> None:
        """Given what a slice is like, put one at ``path``: the kept one, or one that ``make`` writes, which is then kept."""
        kept = self._folder / f"{hashlib.sha256(parameters.encode()).hexdigest()[:32]}.mp4"
        with contextlib.suppress(OSError):
            shutil.copyfile(kept, path)
            os.utime(kept)
            return
        make(path)
        with contextlib.suppress(OSError):
            self._store_slice(path, kept)

    def remove_slices(self) -> None:
        """Remove all slices, when one of them turned out to be unusable."""
        for path in self._folder.glob("*.mp4"):
            with contextlib.suppress(OSError):
                files.remove_file(path)

    def _store_slice(self, path: Path, kept: Path) -> None:
        fresh = kept.with_suffix(f".{path.parent.name}.new")
        shutil.copyfile(path, fresh)
        files.replace_file(fresh, kept)
        others = sorted(self._folder.glob("*.mp4"), key=lambda one: one.stat().st_mtime)
        for old in others[:-MAX_SLICES]:
            files.remove_file(old)
