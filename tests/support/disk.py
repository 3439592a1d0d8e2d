"""Small disks, full disks, and file permissions that apply to root too."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

KILOBYTE = 1024
_PIECE_BYTES = 4 * KILOBYTE


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Yield a folder that is a separate file system of that size; skip the test where none can be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here; that needs root and CAP_SYS_ADMIN")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_disk(folder: Path, leave: int = 0) -> Path:
    """Write a file that leaves `leave` bytes free on the disk of a folder. Returns its path."""
    filler = folder / "filler"
    free = shutil.disk_usage(folder).free
    with filler.open("wb") as file:
        for _ in range((free - leave) // _PIECE_BYTES):
            file.write(bytes(_PIECE_BYTES))
    return filler


def without_privilege() -> list[str]:
    """Return the command prefix that makes file permissions apply even when root runs the command."""
    if os.getuid() != 0:
        return []
    words = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    if shutil.which("setpriv") is None or subprocess.run([*words, "true"], check=False).returncode != 0:
        pytest.skip("root cannot give up its privilege here; that needs setpriv and CAP_SETPCAP")
    return words
