"""Helpers for the real WebDAV servers of the tests: folders, an account with its password, start and end."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import md5
from pathlib import Path

from tests.support.requirements import require_program

USER, PASSWORD, REALM = "davuser", "dav pass%1", "recordings"


@contextmanager
def server_folder(name: str) -> Iterator[Path]:
    """Yield the folder of a server and remove it at the end.

    `data` in it contains the served files, `passwords` and `digest` the only account for Basic and for Digest."""
    root = Path(tempfile.mkdtemp(prefix=f"muxer-{name}-"))
    try:
        for folder in (root, root / "data", root / "data" / "calls", root / "data" / "screens"):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o777)
        hashed = subprocess.run(
            ["openssl", "passwd", "-apr1", "-stdin"], input=PASSWORD, capture_output=True, text=True, check=True
        )
        (root / "passwords").write_text(f"{USER}:{hashed.stdout.strip()}\n")
        (root / "digest").write_text(f"{USER}:{REALM}:{md5(f'{USER}:{REALM}:{PASSWORD}'.encode()).hexdigest()}\n")
        for name in ("passwords", "digest"):
            (root / name).chmod(0o644)
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def run_server(command: Sequence[str | Path], port: int) -> Iterator[None]:
    """Run the server `command` until the block ends; wait until it listens on `port`."""
    program = require_program(command[0])
    server = subprocess.Popen([program, *command[1:]])
    try:
        _wait_for(port, server)
        yield
    finally:
        server.terminate()
        server.wait(20)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert server.poll() is None, f"{server.args} ended at its start"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"{server.args} does not listen")
