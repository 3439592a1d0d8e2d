"""WebDAV storage against real servers and against scripted responses."""

from __future__ import annotations

import os
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from lab.dav import ExternalDav
from lab.lab import Lab
from lab.service import ServiceAccount
from muxer.config.schema import WebdavOptions
from muxer.errors import PathForbidden, ServiceUnavailable, Stopped, StoredByOtherMuxer
from muxer.net.circuit_breaker import FAILURE_THRESHOLD, CircuitBreaker
from muxer.storage.base import MediaLocation, parse_descriptor
from muxer.storage.webdav import WebdavStorage
from tests.support.apache import GENESYS_FOLDER, run_apache
from tests.support.lighttpd import run_lighttpd
from tests.support.nginx import run_nginx

STORED_NAMES = ["plain.mp4", "with blank.mp4", "hash#mark.mp4", "per%20cent.mp4", "100%.mp4", "grüße.mp4", "a&b=c+d.mp4"]
# wsgidav truncates a Destination with these characters; names of muxed files never contain them, sources may.
NAMES = [*STORED_NAMES, "question?.mp4", "semi;colon.mp4"]


SERVERS = {
    "apache": run_apache,
    "apache of the guide": partial(run_apache, GENESYS_FOLDER),
    "nginx": run_nginx,
    "lighttpd": run_lighttpd,
}


@pytest.fixture(scope="module", params=["wsgidav", *SERVERS])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExternalDav]:
    with ExitStack() as stack:
        if request.param in SERVERS:
            yield stack.enter_context(SERVERS[request.param]())  # type: ignore[operator]
        else:
            lab = stack.enter_context(Lab(tmp_path_factory.mktemp("dav")))
            user = lab.site.dav_account
            yield ExternalDav(lab.dav_url, lab.site.media.folder, user.username, user.password)


_NOTES = tempfile.TemporaryDirectory(prefix="muxer-notes-")  # removed when the tests end


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path / "lab") as running:
        yield running


def create_notes_folder() -> Path:
    return Path(tempfile.mkdtemp(dir=_NOTES.name))


def create_storage(server: ExternalDav, password: str | None = None, stop: threading.Event | None = None) -> WebdavStorage:
    options = WebdavOptions(username=server.username, password=password or server.password, trusted_ca=False)
    return WebdavStorage(options, "test", create_notes_folder(), stop or threading.Event())


def storage_of(lab: Lab) -> WebdavStorage:
    user = lab.site.dav_account
    return create_storage(ExternalDav(lab.dav_url, lab.site.media.folder, user.username, user.password))


def screen_location(server: ExternalDav, name: str) -> MediaLocation:
    return parse_descriptor({"storage": "webDAV", "path": name, "data": {"storagePath": f"{server.url}/screens/"}})


def lab_place(lab: Lab, name: str) -> MediaLocation:
    return parse_descriptor({"storage": "webDAV", "path": name, "data": {"storagePath": f"{lab.dav_url}/screens/"}})


def test_fetched_file_has_its_modification_time(server: ExternalDav, tmp_path: Path) -> None:
    stored = server.root / "screens" / "old.mp4"
    stored.write_bytes(b"screen")
    before = time.time() - 7200
    os.utime(stored, (before, before))
    modified = create_storage(server).download_file(screen_location(server, "old.mp4"), tmp_path / "x").modified
    assert modified is not None and before - 2 < modified < before + 3600


@pytest.mark.parametrize("name", NAMES)
def test_every_source_name_is_fetched(server: ExternalDav, tmp_path: Path, name: str) -> None:
    (server.root / "screens" / name).write_bytes(b"screen")
    assert create_storage(server).download_file(screen_location(server, name), tmp_path / "x") == 6


@pytest.mark.parametrize("name", NAMES)
def test_full_url_names_the_same_file(server: ExternalDav, tmp_path: Path, name: str) -> None:
    (server.root / "calls" / name).write_bytes(b"audio")
    for written in {urllib.parse.quote(name), name if "%20" not in name else urllib.parse.quote(name)}:
        found = parse_descriptor({"storage": "webDAV", "path": f"{server.url}/calls/{written}"})
        assert create_storage(server).download_file(found, tmp_path / "audio") == 5


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_folder_is_found_with_and_without_its_slash(server: ExternalDav, slash: str) -> None:
    folder = parse_descriptor(
        {"storage": "webDAV", "path": "a.mp4", "data": {"storagePath": f"{server.url}/screens{slash}"}}
    )
    assert create_storage(server).has_folder(folder)
    assert not create_storage(server).has_folder(replace(folder, folder=f"{server.url}/nowhere{slash}"))


def test_a_long_name_is_stored(server: ExternalDav, tmp_path: Path) -> None:
    name = "ü" * 100 + "x" * 51 + ".mp4"
    (tmp_path / "source").write_bytes(b"content")
    assert create_storage(server).upload_file(tmp_path / "source", screen_location(server, name), lambda: False).length == 7
    assert (server.root / "screens" / name).read_bytes() == b"content"


def test_a_stop_ends_a_transfer(server: ExternalDav, tmp_path: Path) -> None:
    stop = threading.Event()
    (server.root / "screens" / "big.mp4").write_bytes(b"x" * 3_000_000)
    stop.set()
    with pytest.raises(Stopped):
        create_storage(server, stop=stop).download_file(screen_location(server, "big.mp4"), tmp_path / "x")
    (tmp_path / "source").write_bytes(b"x" * 3_000_000)
    with pytest.raises(Stopped):
        create_storage(server, stop=stop).upload_file(tmp_path / "source", screen_location(server, "new.mp4"), lambda: False)


def test_several_servers_share_one_account(tmp_path: Path, server: ExternalDav) -> None:
    second = Lab(tmp_path / "second")
    second.site.dav_account = ServiceAccount(server.username, server.password)
    store = create_storage(server)
    with second:
        (second.site.media.folder / "screens" / "a.mp4").write_bytes(b"second")
        (server.root / "screens" / "a.mp4").write_bytes(b"first one")
        assert store.download_file(lab_place(second, "a.mp4"), tmp_path / "x") == 6
        assert store.download_file(screen_location(server, "a.mp4"), tmp_path / "x") == 9


@pytest.mark.parametrize("status", [405, 501])
def test_server_without_rename_gets_the_final_name(lab: Lab, tmp_path: Path, status: int) -> None:
    lab.store.fail_next("dav", "MOVE", "screens", status)
    (tmp_path / "source").write_bytes(b"content")
    store = storage_of(lab)
    for name in ("a.mp4", "b.mp4"):
        assert store.upload_file(tmp_path / "source", lab_place(lab, name), lambda: False).length == 7
    assert sorted(path.name for path in (lab.site.media.folder / "screens").iterdir()) == ["a.mp4", "b.mp4"]
    assert len([request for request in lab.store.served_requests if request.method == "MOVE"]) == 1
    with pytest.raises(StoredByOtherMuxer):
        store.upload_file(tmp_path / "source", lab_place(lab, "a.mp4"), lambda: False)


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_forbidden_folder_does_not_make_its_server_unavailable(lab: Lab, tmp_path: Path, method: str) -> None:
    circuit_breaker, where = CircuitBreaker(), lab_place(lab, "a.mp4")
    user = lab.site.dav_account
    store = WebdavStorage(
        WebdavOptions(user.username, user.password, False), "test", create_notes_folder(), threading.Event(), circuit_breaker
    )
    (tmp_path / "source").write_bytes(b"content")
    for _ in range(FAILURE_THRESHOLD):
        lab.store.fail_next("dav", method, "screens", 403)
        with pytest.raises(PathForbidden, match=r"\[webdav\] lacks the right"):
            if method == "GET":
                store.download_file(where, tmp_path / "x")
            else:
                store.upload_file(tmp_path / "source", where, lambda: False)
    assert circuit_breaker.open_circuits() == {}


def test_truncated_response_body_is_detected(lab: Lab, tmp_path: Path) -> None:
    lab.store.fail_next("dav", "GET", "a.mp4", 200, headers={"Content-Length": "100"}, body=b"short")
    with pytest.raises(ServiceUnavailable):
        storage_of(lab).download_file(lab_place(lab, "a.mp4"), tmp_path / "x")


def test_lost_upload_is_detected(lab: Lab, tmp_path: Path) -> None:
    lab.store.fail_next("dav", "PUT", "screens", 201)
    (tmp_path / "source").write_bytes(b"content")
    with pytest.raises(ServiceUnavailable, match="nothing"):
        storage_of(lab).upload_file(tmp_path / "source", lab_place(lab, "a.mp4"), lambda: False)
    assert not list((lab.site.media.folder / "screens").iterdir())


@pytest.mark.parametrize(("status", "error"), [(507, "full"), (423, "423"), (500, "500"), (503, "503")])
def test_full_or_locked_storage_is_reported(lab: Lab, tmp_path: Path, status: int, error: str) -> None:
    lab.store.fail_next("dav", "PUT", "screens", status, headers={"Retry-After": "7"})
    (tmp_path / "source").write_bytes(b"content")
    with pytest.raises(ServiceUnavailable, match=error) as caught:
        storage_of(lab).upload_file(tmp_path / "source", lab_place(lab, "a.mp4"), lambda: False)
    assert status != 503 or caught.value.retry_after == 7
