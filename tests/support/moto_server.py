"""A moto server: an S3 store for tests, empty at its start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from moto.server import ThreadedMotoServer


@contextmanager
def moto_server(host: str = "127.0.0.1") -> Iterator[str]:
    """Run a moto server on a free port of an address; yield its URL.

    All servers of a process share their memory, so the objects of earlier ones are removed first.
    """
    moto = ThreadedMotoServer(host, port=0, verbose=False)
    moto.start()
    try:
        name, port = moto.get_host_and_port()
        url = f"http://{name}:{port}"
        httpx.post(f"{url}/moto-api/reset", trust_env=False).raise_for_status()
        yield url
    finally:
        moto.stop()
