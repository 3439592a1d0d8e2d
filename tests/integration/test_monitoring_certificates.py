"""Expiry of the certificates of real TLS servers in the metrics."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from muxer.errors import AccessDenied
from muxer.monitoring import certificate_expiry as servers_module
from muxer.monitoring.certificate_expiry import CertificateExpiries, ServerCertificates
from muxer.monitoring.metrics import MuxerCollector
from tests.support.monitoring import create_sources, parse_samples
from tests.support.tls import TlsFront, pem_bundle, self_signed

DAY = 86_400
TIMEOUT_SECONDS = 30


def days_left(metrics: MuxerCollector) -> dict[str, float]:
    """Return the remaining days of the server certificates by service name."""
    kind = 'muxer_certificate_expiry_timestamp_seconds{kind="server",name="'
    found = parse_samples(metrics.render_exposition("")[0].decode())
    return {name.removeprefix(kind)[:-2]: (at - time.time()) / DAY for name, at in found.items() if name.startswith(kind)}


def test_server_certificates_are_reported_when_expired(tmp_path: Path) -> None:
    with (
        TlsFront("http://127.0.0.1:9", self_signed("rws", "127.0.0.1", end=40)) as rws,
        TlsFront("http://127.0.0.1:9", self_signed("rcs", "127.0.0.1", end=-1)) as rcs,
        TlsFront("http://127.0.0.1:9", self_signed("dav", "127.0.0.1", end=5)) as dav,
        TlsFront("http://127.0.0.1:9", self_signed("other", "127.0.0.1", end=5)) as other,
    ):
        sources = create_sources(tmp_path, htcc__base_uri=rws.url, rcs__base_uri=rcs.url)
        with sources.circuit_breaker.call(f"WebDAV {dav.url}"):
            pass
        refused = AccessDenied("it is not of the site")
        refused.service = f"WebDAV {other.url}"
        sources.circuit_breaker.trip(refused)
        servers = ServerCertificates(sources, threading.Event())
        metrics = MuxerCollector(sources, servers.last_expiries)
        assert days_left(metrics) == {}
        servers.check_servers()
        found = days_left(metrics)
    assert set(found) == {"RWS", "RCS", f"WebDAV {dav.url}"}
    assert 39 < found["RWS"] <= 40 and -2 < found["RCS"] <= -1 and 4 < found[f"WebDAV {dav.url}"] <= 5
    servers.check_servers()
    assert days_left(metrics).keys() == found.keys(), "a server that is temporarily unavailable keeps its date"


def test_the_certificates_of_a_fleet_are_reported(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(pem_bundle(self_signed("ca", authority=True, end=20)))
    with TlsFront("http://127.0.0.1:9", self_signed("mq", "127.0.0.1", end=40)) as node:
        port = urlsplit(node.url).port
        options = {"mode": "broker", "broker_url": f"amqps://a:geheim99@127.0.0.1:{port}", "trusted_ca": bundle}
        sources = create_sources(tmp_path, **{f"fleet__{name}": value for name, value in options.items()})
        servers = ServerCertificates(sources, threading.Event())
        servers.check_servers()
    metrics = MuxerCollector(sources, servers.last_expiries)
    assert 39 < days_left(metrics)["RabbitMQ"] <= 40
    found = parse_samples(metrics.render_exposition("")[0].decode())
    assert 'muxer_certificate_expiry_timestamp_seconds{kind="trusted_ca",name="fleet"}' in found
    unused = create_sources(tmp_path, fleet__broker_url=options["broker_url"], fleet__trusted_ca=bundle)
    assert not CertificateExpiries(unused.config).read_expiries(()), "mode = local"


@pytest.mark.parametrize(("ends", "day"), [((-3, 300, 20), 20), ((-3, 300), 300), ((-3, -9), -3)])
def test_an_expired_authority_beside_a_valid_one_is_ignored(tmp_path: Path, ends: tuple[int, ...], day: int) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(pem_bundle(*(self_signed("ca", authority=True, end=end) for end in ends)))
    [expiry] = CertificateExpiries(create_sources(tmp_path, htcc__trusted_ca=bundle).config).read_expiries(())
    assert day - 1 < (expiry.at - time.time()) / DAY <= day


def test_certificates_are_checked_in_a_separate_thread_until_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(servers_module, "FIRST_CHECK_DELAY", 0.0)
    monkeypatch.setattr(servers_module, "CERTIFICATE_CHECK_INTERVAL", 0.01)
    stop, looks = threading.Event(), threading.Semaphore(0)
    servers = ServerCertificates(create_sources(tmp_path), stop)

    def fail_check() -> None:
        looks.release()
        raise SystemError("an accident")

    monkeypatch.setattr(servers, "check_servers", fail_check)
    servers.start()
    assert looks.acquire(timeout=TIMEOUT_SECONDS) and looks.acquire(timeout=TIMEOUT_SECONDS)
    stop.set()
    for thread in threading.enumerate():
        if thread.name == "monitoring certificates":
            thread.join(TIMEOUT_SECONDS)
            assert not thread.is_alive()
    assert "an accident" in caplog.text
