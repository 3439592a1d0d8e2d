"""A real OpenStack Swift with its S3 API on loopback, from Debian's package ``python3-swift``: one node, one replica.

The signature region is defined by the site there (``location``), and a wrong one is refused.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.support.ports import reserved_port
from tests.support.requirements import require_file
from tests.support.tls import HOST

# Debian's package is for the Python of the system.
PYTHON, PACKAGE = "/usr/bin/python3", Path("/usr/lib/python3/dist-packages/swift")
ACCOUNT, REGION = "recordings", "RegionOne"
KEY, SECRET = f"{ACCOUNT}:muxer", "swift-secret+/1"
TIMEOUT_SECONDS = 60
_SERVERS = ("object", "container", "account", "proxy")
_RINGS = """
import sys
from swift.common.ring import RingBuilder
folder, *ports = sys.argv[1:]
for kind, port in zip(("object", "container", "account"), ports):
    builder = RingBuilder(2, 1, 0)
    where = {"ip": "127.0.0.1", "port": int(port), "device": "disk"}
    builder.add_dev({"region": 1, "zone": 1, "weight": 1.0, "meta": "", **where})
    builder.rebalance()
    builder.get_ring().save(f"{folder}/{kind}.ring.gz")
"""
# Replaces the swift-…-server commands, which are in other packages and read swift.conf only in /etc. One process loads
# Swift, which takes longer than all else, and each server is a fork of it.
_SERVE = """
import os
import sys
from swift.common import utils
folder, *kinds = sys.argv[1:]
utils.SWIFT_CONF_FILE = f"{folder}/swift.conf"
from swift.common.wsgi import run_wsgi
import swift.account.server, swift.container.server, swift.obj.server, swift.proxy.server
import swift.common.middleware.s3api.s3api
for kind in kinds[1:]:
    if not os.fork():
        break
else:
    kind = kinds[0]
os.setsid = lambda: None  # the servers remain in the process group of the first one, and end with it
with open(f"{folder}/{kind}.log", "wb") as log:
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
sys.exit(run_wsgi(f"{folder}/{kind}.conf", f"{kind}-server"))
"""
_DEFAULT = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
swift_dir = {folder}
devices = {folder}/disks
mount_check = false
user = {user}
"""
_BACKEND = """\
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
_PROXY = """\
[pipeline:main]
pipeline = catch_errors cache listing_formats s3api tempauth slo proxy-server
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = {region}
[filter:tempauth]
use = egg:swift#tempauth
user_{account}_muxer = {secret} .admin
[filter:slo]
use = egg:swift#slo
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
"""


class Swift:
    """A Swift with a separate folder: ``with Swift(folder) as store``. Its only account is :data:`KEY`."""

    def __init__(self, folder: Path, region: str = REGION) -> None:
        self.folder = folder
        self._region = region
        self._servers: subprocess.Popen[bytes] | None = None
        self._held = ExitStack()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Swift:
        require_file(PACKAGE, "python3-swift")
        (self.folder / "disks" / "disk").mkdir(parents=True)
        ports = [self._held.enter_context(reserved_port()) for _ in _SERVERS]
        self.port = ports[-1]
        rings = [PYTHON, "-c", _RINGS, str(self.folder), *map(str, ports[:-1])]
        found = subprocess.run(rings, capture_output=True, text=True, check=False)
        assert found.returncode == 0, f"Swift is missing, ./install.sh --test installs it: {found.stderr}"
        (self.folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tests\n")
        try:
            for kind, port in zip(_SERVERS, ports, strict=True):
                self._write_configuration(kind, port)
            command = [PYTHON, "-c", _SERVE, str(self.folder), *_SERVERS]
            with (self.folder / "start.log").open("wb") as log:
                self._servers = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            for port in ports:
                self._wait_for(port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._servers:
            with suppress(ProcessLookupError):
                os.killpg(self._servers.pid, signal.SIGKILL)
            self._servers.wait(TIMEOUT_SECONDS)
        self._held.close()

    def _write_configuration(self, kind: str, port: int) -> None:
        path = self.folder / f"{kind}.conf"
        user = "root" if os.getuid() == 0 else os.environ.get("USER", "nobody")
        text = _DEFAULT.format(port=port, folder=self.folder, user=user)
        proxy = _PROXY.format(region=self._region, account=ACCOUNT, secret=SECRET)
        path.write_text(text + (proxy if kind == "proxy" else _BACKEND.format(kind=kind)))

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            assert self._servers is not None and self._servers.poll() is None, self._read_logs()
            with socket.socket() as probe:
                if probe.connect_ex((HOST, port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(f"Swift does not respond: {self._read_logs()}")

    def _read_logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(self.folder.glob("*.log")))
