"""Credentials of ``[webdav]`` and muxed files are sent only to servers of the site, checked on the servers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from muxer.config.schema import WebdavOptions
from muxer.errors import AccessDenied, ServiceUnavailable
from muxer.storage import allowed_hosts
from muxer.storage.base import MediaLocation, parse_descriptor
from muxer.storage.webdav import WebdavStorage
from tests.support.tls import HOST, MEDIA, MediaServer, TlsFront, pem_bundle, self_signed

PASSWORD = "the password of the storage"


@pytest.fixture
def servers() -> Iterator[Callable[[], MediaServer]]:
    """Return a function that starts a server that records its requests."""
    started: list[MediaServer] = []

    def start_server() -> MediaServer:
        started.append(MediaServer())
        return started[-1]

    yield start_server
    for one in started:
        one.__exit__()


def create_storage(folder: Path, *listed: str, trusted_ca: bool | Path = False) -> WebdavStorage:
    options = WebdavOptions(username="dav", password=PASSWORD, trusted_ca=trusted_ca, hosts=listed)
    return WebdavStorage(options, "test", folder, threading.Event())


def location_at(url: str, name: str = "x.mp4") -> MediaLocation:
    return parse_descriptor({"storage": "webDAV", "path": f"{url}/{name}"})


Start = Callable[[], MediaServer]


def test_listed_server_receives_credentials(servers: Start, tmp_path: Path) -> None:
    dav = servers()
    assert create_storage(tmp_path).download_file(location_at(dav.url), tmp_path / "x") == len(MEDIA)
    assert [bool(authorization) for _, authorization in dav.requests] == [True]


def test_unlisted_server_receives_no_request(servers: Start, tmp_path: Path) -> None:
    dav = servers()
    (tmp_path / "muxed").write_bytes(b"a muxed file")
    one = create_storage(tmp_path, "dav.example.com")
    attempts = [
        lambda: one.download_file(location_at(dav.url), tmp_path / "x"),
        lambda: one.upload_file(tmp_path / "muxed", location_at(dav.url), lambda: True),
        lambda: one.head(location_at(dav.url)),
        lambda: one.delete_file(location_at(dav.url)),
    ]
    for attempt in attempts:
        with pytest.raises(AccessDenied, match=rf"{HOST} .*\[webdav\] hosts"):
            attempt()
    assert dav.requests == [] and dav.connections == 0


def test_internet_host_receives_no_request(servers: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dav = servers()
    monkeypatch.setattr(allowed_hosts, "_resolve_name", lambda _: ["93.184.216.34"])
    port = dav.url.rpartition(":")[2]
    with pytest.raises(AccessDenied, match=r"evil\.example\.net .*\[webdav\] hosts"):
        create_storage(tmp_path).download_file(location_at(f"http://evil.example.net:{port}"), tmp_path / "x")
    assert dav.connections == 0


def test_only_the_checked_private_address_is_connected_to(
    servers: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second look-up of a name returns another address: only the checked one is used."""
    dav = servers()
    monkeypatch.setattr(allowed_hosts, "_resolve_name", lambda _: ["127.0.0.9", HOST])
    port = dav.url.rpartition(":")[2]
    assert create_storage(tmp_path).download_file(location_at(f"http://dav.example.net:{port}"), tmp_path / "x") == len(
        MEDIA
    )
    assert dav.hosts == [f"dav.example.net:{port}"]


@pytest.mark.parametrize("right", [True, False])
def test_certificate_is_checked_against_the_name(
    servers: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: bool
) -> None:
    identity = self_signed("dav", "dav.example.net" if right else HOST)
    (bundle := tmp_path / "ca.pem").write_bytes(pem_bundle(identity))
    monkeypatch.setattr(allowed_hosts, "_resolve_name", lambda _: [HOST])
    with TlsFront(servers().url, identity) as front:
        one, where = create_storage(tmp_path, trusted_ca=bundle), location_at(f"https://dav.example.net:{front.port}")
        if right:
            assert one.download_file(where, tmp_path / "x") == len(MEDIA)
        else:
            with pytest.raises(ServiceUnavailable, match="certificate verify failed"):
                one.download_file(where, tmp_path / "x")


def test_unresolvable_name_is_an_outage(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="cannot be resolved"):
        create_storage(tmp_path).download_file(location_at("http://dav.example.invalid"), tmp_path / "x")


def test_redirect_to_another_server_sends_no_credentials(servers: Start, tmp_path: Path) -> None:
    dav, other = servers(), servers()
    dav.redirect = f"{other.url}/elsewhere.mp4"
    assert create_storage(tmp_path).download_file(location_at(dav.url), tmp_path / "x") == len(MEDIA)
    assert [bool(authorization) for _, authorization in dav.requests] == [True]
    assert other.requests == [("/elsewhere.mp4", "")]


def test_redirect_to_unlisted_server_is_not_followed(servers: Start, tmp_path: Path) -> None:
    dav, other = servers(), servers()
    dav.redirect = f"{other.url}/elsewhere.mp4"
    with pytest.raises(AccessDenied):
        create_storage(tmp_path, dav.url.removeprefix("http://")).download_file(location_at(dav.url), tmp_path / "x")
    assert other.connections == 0


def test_redirect_to_http_is_not_followed(servers: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity, plain = self_signed("dav", "dav.example.net"), servers()
    monkeypatch.setattr(allowed_hosts, "_resolve_name", lambda _: [HOST])
    one = create_storage(tmp_path)
    with TlsFront(servers().url, identity) as front:
        one.download_file(location_at(f"https://dav.example.net:{front.port}"), tmp_path / "x")
    with pytest.raises(AccessDenied, match="used https before"):
        one.download_file(location_at(plain.url.replace(HOST, "dav.example.net")), tmp_path / "x")
    assert plain.connections == 0
