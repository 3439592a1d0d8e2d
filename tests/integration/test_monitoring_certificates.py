"""When the certificates of real TLS servers expire, as the metrics tell it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from tests.support.monitoring import made_sources, values
from tests.support.tls import TlsFront, self_signed

from muxer.errors import AccessDenied
from muxer.monitoring import servers as servers_module
from muxer.monitoring.metrics import Metrics
from muxer.monitoring.servers import Servers

DAY = 86_400
SECONDS = 30


def expiries(metrics: Metrics) -> dict[str, float]:
    """Return the days that the certificates of servers have left, by the names of the services."""
    kind = 'muxer_certificate_expiry_timestamp_seconds{kind="server",name="'
    found = values(metrics.exposition("")[0].decode())
    return {name.removeprefix(kind)[:-2]: (at - time.time()) / DAY for name, at in found.items() if name.startswith(kind)}


def test_the_certificates_of_servers_are_seen_also_when_they_have_expired(tmp_path: Path) -> None:
    with (
        TlsFront("http://127.0.0.1:9", self_signed("rws", "127.0.0.1", end=40)) as rws,
        TlsFront("http://127.0.0.1:9", self_signed("rcs", "127.0.0.1", end=-1)) as rcs,
        TlsFront("http://127.0.0.1:9", self_signed("dav", "127.0.0.1", end=5)) as dav,
        TlsFront("http://127.0.0.1:9", self_signed("other", "127.0.0.1", end=5)) as other,
    ):
        sources = made_sources(tmp_path, htcc__base_uri=rws.url, rcs__base_uri=rcs.url)
        with sources.outages.talking(f"WebDAV {dav.url}"):
            pass
        refused = AccessDenied("it is not of the site")
        refused.service = f"WebDAV {other.url}"
        sources.outages.declare(refused)
        servers = Servers(sources, threading.Event())
        metrics = Metrics(sources, servers.all)
        assert expiries(metrics) == {}
        servers.look()
        found = expiries(metrics)
    assert set(found) == {"RWS", "RCS", f"WebDAV {dav.url}"}
    assert 39 < found["RWS"] <= 40 and -2 < found["RCS"] <= -1 and 4 < found[f"WebDAV {dav.url}"] <= 5
    servers.look()
    assert expiries(metrics).keys() == found.keys(), "a server that is away for a moment keeps its date"


def test_they_are_looked_at_in_a_thread_of_their_own_until_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(servers_module, "FIRST_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(servers_module, "LOOK_SECONDS", 0.01)
    stop, looks = threading.Event(), threading.Semaphore(0)
    servers = Servers(made_sources(tmp_path), stop)

    def look() -> None:
        looks.release()
        raise SystemError("an accident")

    monkeypatch.setattr(servers, "look", look)
    servers.start()
    assert looks.acquire(timeout=SECONDS) and looks.acquire(timeout=SECONDS)
    stop.set()
    for thread in threading.enumerate():
        if thread.name == "monitoring certificates":
            thread.join(SECONDS)
            assert not thread.is_alive()
    assert "an accident" in caplog.text
