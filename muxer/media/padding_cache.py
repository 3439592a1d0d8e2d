"""Encoded padding slices that are kept for other recordings, in a small, bounded folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from muxer.system import files

# One for each screen size of a site; the least recently used are removed first.
MAX_SLICES = 64


class PaddingCache:
    """The kept padding slices. Safe to use from any thread, and after a hard kill: files are created atomically."""

    def __init__(self, folder: Path) -> None:
        """Use the existing `folder`; files that a killed process left incomplete are removed."""
        self._folder = folder
        for path in folder.glob("*.new"):
            with contextlib.suppress(OSError):
                files.remove_file(path)

    def get_or_create(self, parameters: str, path: Path, encode: Callable[[Path], None]) -> None:
        """Put the slice with these `parameters` at `path`: the kept one, or one that `encode` writes, which is then kept."""
        kept = self._folder / f"{hashlib.sha256(parameters.encode()).hexdigest()[:32]}.mp4"
        with contextlib.suppress(OSError):
            shutil.copyfile(kept, path)
            os.utime(kept)
            return
        encode(path)
        with contextlib.suppress(OSError):
            self._store_slice(path, kept)

    def remove_slices(self) -> None:
        """Remove all slices, because one is unusable."""
        for path in self._folder.glob("*.mp4"):
            with contextlib.suppress(OSError):
                files.remove_file(path)

    def _store_slice(self, path: Path, kept: Path) -> None:
        fresh = kept.with_suffix(f".{path.parent.name}.new")
        shutil.copyfile(path, fresh)
        files.replace_file(fresh, kept)
        others = sorted(self._folder.glob("*.mp4"), key=lambda slice_: slice_.stat().st_mtime)
        for old in others[:-MAX_SLICES]:
            files.remove_file(old)
