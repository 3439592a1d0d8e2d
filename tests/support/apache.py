"""A real Apache with mod_dav on a loopback port, from the system's package, with its own configuration."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from muxer.lab.dav import ExternalDav

MODULES = Path("/usr/lib/apache2/modules")
USER, PASSWORD = "davuser", "dav pass%1"
CONFIG = """\
ServerRoot {root}
PidFile {root}/apache.pid
ErrorLog {root}/error.log
CustomLog {root}/access.log "%m %U %>s"
Listen 127.0.0.1:{port}
ServerName 127.0.0.1
{account}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authn_core_module {modules}/mod_authn_core.so
LoadModule authn_file_module {modules}/mod_authn_file.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule authz_user_module {modules}/mod_authz_user.so
LoadModule auth_basic_module {modules}/mod_auth_basic.so
LoadModule dav_module {modules}/mod_dav.so
LoadModule dav_fs_module {modules}/mod_dav_fs.so
DavLockDB {root}/lock
DocumentRoot {data}
<Directory {data}>
  Dav On
  AuthType Basic
  AuthName recordings
  AuthUserFile {root}/passwords
  Require valid-user
</Directory>
"""


@contextmanager
def apache() -> Iterator[ExternalDav]:
    """Yield a running server as the lab wants it described; ``root`` is the folder that it serves."""
    program = shutil.which("apache2", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    assert program, "Apache is missing: ./install.sh --test installs it"
    root = Path(tempfile.mkdtemp(prefix="muxer-apache-"))
    try:
        data = root / "data"
        data.mkdir()
        port = free_port()
        _configure(root, data, port)
        server = subprocess.Popen([program, "-d", str(root), "-f", str(root / "apache.conf"), "-DFOREGROUND"])
        try:
            _wait_for(port, server)
            yield ExternalDav(f"http://127.0.0.1:{port}", data, USER, PASSWORD)
        finally:
            server.terminate()
            server.wait(20)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _configure(root: Path, data: Path, port: int) -> None:
    account = "User www-data\nGroup www-data" if os.getuid() == 0 else ""
    text = CONFIG.format(root=root, data=data, port=port, modules=MODULES, account=account)
    (root / "apache.conf").write_text(text)
    hashed = subprocess.run(
        ["openssl", "passwd", "-apr1", "-stdin"], input=PASSWORD, capture_output=True, text=True, check=True
    )
    (root / "passwords").write_text(f"{USER}:{hashed.stdout.strip()}\n")
    for folder in (data, data / "calls", data / "screens"):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
    root.chmod(0o777)
    (root / "passwords").chmod(0o644)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert server.poll() is None, "Apache ended at its start"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("Apache does not answer")
