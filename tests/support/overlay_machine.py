"""A machine that starts as a copy of this one, without a network: whatever is installed in it is gone at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_SECONDS = 120
# The mounts are those of a process, and end with it.
_SCRIPT = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs tmpfs "$1/root/run"
ip link set lo up 2>/dev/null || true
echo ready
exec cat
"""


class OverlayMachine:
    """A root folder, and how to run commands in it."""

    def __init__(self, process: int, root: Path) -> None:
        self._process, self._inside = process, root
        # The mounts as this process, which does not have them, sees them.
        self.root = Path(f"/proc/{process}/root{root}")

    def command_line(self, *words: str | Path) -> list[str]:
        """Return the command line that runs a command in the machine. It execs, so signals reach the command."""
        namespaces = ["nsenter", f"--target={self._process}", "--mount", "--net"]
        return [*namespaces, "chroot", str(self._inside), *map(str, words)]

    def run(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        environment = {name: os.environ[name] for name in ("LANG", "TERM") if name in os.environ}
        environment |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(self.command_line(*words), env=environment, timeout=TIMEOUT_SECONDS, check=False, **how)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def path(self, path: str) -> Path:
        """Return a path of the machine as this process sees it."""
        return self.root / path.lstrip("/")


@contextmanager
def overlay_machine(folder: Path) -> Iterator[OverlayMachine]:
    """Yield a machine; skip the test where none can be mounted."""
    folder.mkdir()
    command = ["unshare", "--mount", "--net", "sh", "-c", _SCRIPT, "sh", str(folder)]
    if not all(map(shutil.which, ("unshare", "nsenter", "chroot"))):
        pytest.skip("unshare, nsenter and chroot are needed to install packages outside the system")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            if process.stdout.readline() != "ready\n":
                pytest.skip("an overlay cannot be mounted here; that needs root and CAP_SYS_ADMIN")
            yield OverlayMachine(process.pid, folder / "root")
        finally:
            process.stdin.close()
