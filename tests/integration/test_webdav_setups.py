"""WebDAV servers as real sites set them up: what is stored, what stays unchanged, and the cause in the error.

Results are read from the server's own folder, and from its own log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lab.dav import ExternalDav
from lab.lab import Lab
from muxer.config.schema import WebdavOptions
from muxer.errors import (
    AccessDenied,
    AuthenticationFailed,
    FolderMissing,
    MediaNotFound,
    MuxerError,
    PathForbidden,
    ServiceUnavailable,
    StorageMisconfigured,
)
from muxer.journal.retry_policy import RetryPolicy, classify_error
from muxer.net import circuit_breaker
from muxer.net.circuit_breaker import FAILURE_THRESHOLD, CircuitBreaker
from muxer.storage import webdav_http, webdav_renaming
from muxer.storage.base import WEBDAV, MediaLocation, parse_descriptor
from muxer.storage.upload_intents import UploadIntents
from muxer.storage.webdav import WebdavStorage
from muxer.storage.webdav_login import WebdavAuth
from muxer.storage.webdav_names import temporary_name
from tests.support.apache import DIGEST, GENESYS_FOLDER, READ_ONLY, run_apache
from tests.support.lighttpd import run_lighttpd
from tests.support.nginx import run_nginx, run_tls_proxy

Make = Callable[..., Lab]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"a muxed file" * 200_000)
    return path


@pytest.fixture(scope="module")
def guide() -> Iterator[ExternalDav]:
    """Return an Apache as set up in the guide of Genesys."""
    with run_apache(GENESYS_FOLDER) as server:
        yield server


@pytest.fixture
def screens(guide: ExternalDav) -> Path:
    """Return the folder of the screen files of that Apache, which is empty."""
    folder = guide.root / "screens"
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    return folder


def create_storage(
    server: ExternalDav, folder: Path, password: str = "", breaker: CircuitBreaker | None = None
) -> WebdavStorage:
    (folder / "notes").mkdir(exist_ok=True)
    options = WebdavOptions(username=server.username, password=password or server.password, trusted_ca=False)
    return WebdavStorage(options, "test", folder / "notes", threading.Event(), breaker)


def of_lab(lab: Lab) -> ExternalDav:
    user = lab.site.dav_account
    return ExternalDav(lab.dav_url, lab.site.media.folder, user.username, user.password)


def location_of(server: ExternalDav, name: str, folder: str = "screens") -> MediaLocation:
    return MediaLocation(WEBDAV, f"{server.url}/{folder}/", name)


def logged_requests(server: ExternalDav, method: str) -> list[str]:
    """Return path and status of the requests with a method, from the log of Apache."""
    time.sleep(0.2)  # it is written after the response
    lines = (server.root.parent / "access.log").read_text().splitlines()
    return [line.removeprefix(f"{method} ") for line in lines if line.startswith(f"{method} ")]


def stored_contents(server: ExternalDav) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (server.root / "screens").iterdir() if path.is_file()}


def check_refusal(error: MuxerError) -> None:
    """Check that the error is retried without limit and is no outage."""
    assert classify_error(error).when is RetryPolicy.BACKOFF


# ---- Apache as the guide sets it up --------------------------------------------------------------------


def test_only_exact_file_name_exists(guide: ExternalDav, screens: Path, tmp_path: Path) -> None:
    (screens / "X.mp4.bin").write_bytes(b"another file")
    store, location = create_storage(guide, tmp_path), location_of(guide, "X.mp4")
    assert store.head(location) is None
    with pytest.raises(MediaNotFound, match=r"X\.mp4\.bin"):
        store.download_file(location, tmp_path / "x")
    store.delete_file(location)
    assert stored_contents(guide) == {"X.mp4.bin": b"another file"}
    store.delete_file(location_of(guide, "X.mp4.bin"))
    assert stored_contents(guide) == {}


@pytest.mark.parametrize("may_replace", [True, False])
@pytest.mark.parametrize("renames", [True, False])
def test_an_upload_never_replaces_a_file_of_another_name(
    guide: ExternalDav, screens: Path, tmp_path: Path, source: Path, may_replace: bool, renames: bool
) -> None:
    (screens / "X.mp4.bin").write_bytes(b"another file")
    store = create_storage(guide, tmp_path)
    if not renames:
        store._renaming.mark_impossible(guide.url, "")
    with pytest.raises(StorageMisconfigured, match=r"would take X\.mp4\.bin for it.*MultiViews") as caught:
        store.upload_file(source, location_of(guide, "X.mp4"), lambda: may_replace)
    check_refusal(caught.value)
    assert stored_contents(guide) == {"X.mp4.bin": b"another file"}


@pytest.mark.usefixtures("screens")
def test_encrypted_file_is_stored_next_to_the_clear_file(guide: ExternalDav, tmp_path: Path, source: Path) -> None:
    store = create_storage(guide, tmp_path)
    for name in ("Y.mp4", "Y.mp4.bin"):
        store.upload_file(source, location_of(guide, name), lambda: False)
    assert stored_contents(guide) == dict.fromkeys(("Y.mp4", "Y.mp4.bin"), source.read_bytes())


def test_leftovers_of_older_version_are_reported_and_deleted(
    guide: ExternalDav, screens: Path, tmp_path: Path, source: Path
) -> None:
    store, old = create_storage(guide, tmp_path), "X.mp4.0123456789ab.part"
    (screens / old).write_bytes(b"half")
    with suppress(ServiceUnavailable), UploadIntents(tmp_path / "notes", WEBDAV).pending_upload(location_of(guide, old)):
        raise ServiceUnavailable("died")
    with pytest.raises(StorageMisconfigured, match=r"HTTP 404 although the file exists.*MultiViews"):
        store.upload_file(source, location_of(guide, "X.mp4"), lambda: False)
    assert set(stored_contents(guide)) == {old}
    store.remove_leftovers()
    store.upload_file(source, location_of(guide, "X.mp4"), lambda: False)
    assert stored_contents(guide) == {"X.mp4": source.read_bytes()}


@pytest.mark.parametrize(("folder", "shown"), [("", False), (GENESYS_FOLDER, True)])
def test_multiviews_is_recognized(tmp_path: Path, folder: str, shown: bool) -> None:
    with run_apache(folder) as server:
        (server.root / "screens" / "scr1.mp4").write_bytes(b"screen")
        assert create_storage(server, tmp_path).has_name_negotiation(location_of(server, "scr1.mp4")) is shown


@pytest.mark.parametrize("name", ["X.mp4", "x" * 251 + ".mp4", "ü" * 125 + ".mp4", "long" * 100])
def test_temporary_name_starts_with_its_mark_and_fits(name: str) -> None:
    mark = "0123456789ab"
    found = temporary_name(mark, name)
    assert found.startswith(f"part-{mark}-") and found.endswith(name[-4:]) and len(found.encode()) <= 255
    assert found != temporary_name(mark, f"another {name}")


@pytest.mark.parametrize("slash", ["", "/"])
def test_alias_is_treated_as_a_folder(tmp_path: Path, source: Path, slash: str) -> None:
    with run_apache(GENESYS_FOLDER, "Alias /recordings {root}/data/screens") as server:
        store = create_storage(server, tmp_path)
        where = parse_descriptor(
            {"storage": "webDAV", "path": "a.mp4", "data": {"storagePath": f"{server.url}/recordings{slash}"}}
        )
        assert store.has_folder(where)
        store.upload_file(source, where, lambda: False)
        assert stored_contents(server) == {"a.mp4": source.read_bytes()}


# ---- limits and missing parts --------------------------------------------------------------------------

LIMITED_SERVERS = {
    "client_max_body_size": lambda: run_nginx(""),
    "LimitRequestBody": lambda: run_apache("LimitRequestBody 1000000"),
    "server.max-request-size": lambda: run_lighttpd("server.max-request-size = 1000"),
}


@pytest.mark.parametrize("option", LIMITED_SERVERS)
def test_upload_limit_is_named(tmp_path: Path, source: Path, option: str) -> None:
    breaker = CircuitBreaker()
    with LIMITED_SERVERS[option]() as server:
        store = create_storage(server, tmp_path, breaker=breaker)
        for _ in range(FAILURE_THRESHOLD):
            with pytest.raises(StorageMisconfigured, match=rf"413 to an upload of 2400000 bytes.*{option}") as caught:
                store.upload_file(source, location_of(server, "large.mp4"), lambda: False)
        check_refusal(caught.value)
        source.write_bytes(b"small")
        store.upload_file(source, location_of(server, "small.mp4"), lambda: False)
        assert stored_contents(server) == {"small.mp4": b"small"} and breaker.open_circuits() == {}


def test_upload_limit_of_iis_is_named(make_lab: Make, tmp_path: Path, source: Path) -> None:
    lab = make_lab()
    lab.store.fail_next("dav", "PUT", "/screens/", 404, body=b"HTTP Error 404.13 - Not Found")
    with pytest.raises(StorageMisconfigured, match=r"2400000 bytes.*404\.13.*maxAllowedContentLength") as caught:
        create_storage(of_lab(lab), tmp_path).upload_file(source, location_of(of_lab(lab), "a.mp4"), lambda: False)
    check_refusal(caught.value)


@pytest.mark.parametrize("status", [404, 409, 500])
def test_a_missing_folder_is_named_whatever_the_status(make_lab: Make, tmp_path: Path, source: Path, status: int) -> None:
    lab, breaker = make_lab(), CircuitBreaker()
    lab.store.fail_next("dav", "PUT", "/nowhere/", status, times=FAILURE_THRESHOLD)
    store = create_storage(of_lab(lab), tmp_path, breaker=breaker)
    for _ in range(FAILURE_THRESHOLD):
        with pytest.raises(FolderMissing, match=rf"HTTP {status}; the folder does not exist, make it on the server"):
            store.upload_file(source, location_of(of_lab(lab), "a.mp4", "nowhere"), lambda: False)
    assert breaker.open_circuits() == {}


@pytest.mark.parametrize("status", [409, 500])
def test_refused_upload_to_existing_folder_is_no_missing_folder(
    make_lab: Make, tmp_path: Path, source: Path, status: int
) -> None:
    lab = make_lab()
    lab.store.fail_next("dav", "PUT", "/screens/", status)
    with pytest.raises(ServiceUnavailable) as caught:
        create_storage(of_lab(lab), tmp_path).upload_file(source, location_of(of_lab(lab), "a.mp4"), lambda: False)
    assert not isinstance(caught.value, FolderMissing)
    assert "does not exist" not in str(caught.value)


def test_a_folder_without_webdav_is_named(tmp_path: Path) -> None:
    with run_apache("Dav Off") as server, pytest.raises(StorageMisconfigured, match=r"405.*does not offer WebDAV") as caught:
        create_storage(server, tmp_path).head(location_of(server, "a.mp4"))
    check_refusal(caught.value)


@pytest.mark.parametrize("status", [400, 405, 406, 411, 413, 415, 422, 431, 501])
@pytest.mark.parametrize("method", ["PUT", "PROPFIND", "DELETE"])
def test_refusal_by_server_setup_is_never_set_aside(
    make_lab: Make, tmp_path: Path, source: Path, status: int, method: str
) -> None:
    lab = make_lab()
    store, where = create_storage(of_lab(lab), tmp_path), location_of(of_lab(lab), "a.mp4")
    (lab.site.media.folder / "screens" / "a.mp4").write_bytes(b"x")
    lab.store.fail_next("dav", method, "/screens/", status)
    do = {"DELETE": lambda: store.delete_file(where), "PROPFIND": lambda: store.head(where)}
    with pytest.raises(StorageMisconfigured, match=f"{method} .*HTTP {status}.*; ") as caught:
        do.get(method, lambda: store.upload_file(source, where, lambda: True))()
    check_refusal(caught.value)


def test_rename_conflict_is_no_missing_folder(make_lab: Make, tmp_path: Path, source: Path) -> None:
    lab = make_lab()
    lab.store.fail_next("dav", "MOVE", "/screens/", 409, times=9)
    with pytest.raises(ServiceUnavailable, match=r"MOVE .*HTTP 409") as caught:
        create_storage(of_lab(lab), tmp_path).upload_file(source, location_of(of_lab(lab), "a.mp4"), lambda: False)
    assert "does not exist" not in str(caught.value)


def test_endless_redirects_stop_after_few_requests(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    where = location_of(of_lab(lab), "a.mp4")
    lab.store.fail_next("dav", "GET", "/screens/", 302, times=99, headers={"Location": where.url})
    with pytest.raises(ServiceUnavailable, match="TooManyRedirects"):
        create_storage(of_lab(lab), tmp_path).download_file(where, tmp_path / "got")
    assert len([request for request in lab.store.served_requests if request.method == "GET"]) < 10


def test_a_redirect_names_its_target(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    lab.store.fail_next("dav", "PROPFIND", "/screens/", 301, headers={"Location": "https://dav.example.com/screens/"})
    with pytest.raises(ServiceUnavailable, match=r"redirects to https://dav\.example\.com/screens/"):
        create_storage(of_lab(lab), tmp_path).head(location_of(of_lab(lab), "a.mp4"))


# ---- accounts ------------------------------------------------------------------------------------------


def test_a_wrong_password_is_sent_once(tmp_path: Path, source: Path) -> None:
    with run_apache() as server:
        with pytest.raises(AuthenticationFailed):
            create_storage(server, tmp_path, "wrong").upload_file(source, location_of(server, "new.mp4"), lambda: False)
        assert logged_requests(server, "PROPFIND") == ["/screens/ 401"] and not logged_requests(server, "HEAD")


def test_read_only_account_is_not_reported_as_wrong_password(tmp_path: Path, source: Path) -> None:
    with run_apache(more=READ_ONLY) as server:
        breaker = CircuitBreaker()
        store, where = create_storage(server, tmp_path, breaker=breaker), location_of(server, "source.mp4")
        (server.root / "screens" / "source.mp4").write_bytes(b"a source")
        for change in (
            lambda: store.upload_file(source, location_of(server, "new.mp4"), lambda: False),
            lambda: store.delete_file(where),
        ):
            with pytest.raises(PathForbidden, match=r"HTTP 401; .*the password is right, .* may not write there") as caught:
                change()
            check_refusal(caught.value)
            assert store.download_file(where, tmp_path / "x") == 8
        assert breaker.open_circuits() == {} and stored_contents(server) == {"source.mp4": b"a source"}


@pytest.mark.parametrize("more", ["", READ_ONLY, READ_ONLY.replace("Require valid-user", "Require all granted")])
def test_wrong_password_is_reported_for_uploads(tmp_path: Path, source: Path, more: str) -> None:
    with run_apache(more=more) as server:
        with pytest.raises(AuthenticationFailed, match=r"check \[webdav\] username and password"):
            create_storage(server, tmp_path, "wrong").upload_file(source, location_of(server, "new.mp4"), lambda: False)
        assert stored_contents(server) == {}


def test_server_without_password_authentication_is_named(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    lab.store.fail_next("dav", "GET", "/screens/", 401, headers={"WWW-Authenticate": "NTLM"})
    with pytest.raises(AuthenticationFailed, match="accepts only NTLM, enable Basic or Digest"):
        create_storage(of_lab(lab), tmp_path).download_file(location_of(of_lab(lab), "a.mp4"), tmp_path / "x")


@pytest.fixture
def digest() -> Iterator[ExternalDav]:
    with run_apache(DIGEST + "AuthDigestNonceLifetime 1", modules=("auth_digest",)) as server:
        yield server


def test_digest_is_used_and_an_upload_is_sent_once(digest: ExternalDav, tmp_path: Path, source: Path) -> None:
    store = create_storage(digest, tmp_path)
    for name in ("a.mp4", "b.mp4"):
        store.upload_file(source, location_of(digest, name), lambda: False)
        time.sleep(1.5)  # its nonce expires
    assert stored_contents(digest) == dict.fromkeys(("a.mp4", "b.mp4"), source.read_bytes())
    assert store.download_file(location_of(digest, "a.mp4"), tmp_path / "x") == 2_400_000
    assert store.authentication_scheme(location_of(digest, "a.mp4")) == "Digest"
    assert [one.rpartition(" ")[2] for one in logged_requests(digest, "PUT")] == ["201", "201"]


def test_the_body_of_an_upload_is_sent_again_after_a_challenge(
    digest: ExternalDav, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WebdavAuth, "may_challenge", lambda *_: False)
    (tmp_path / "large").write_bytes(bytes(range(256)) * 100_000)
    create_storage(digest, tmp_path).upload_file(tmp_path / "large", location_of(digest, "a.mp4"), lambda: False)
    assert stored_contents(digest) == {"a.mp4": (tmp_path / "large").read_bytes()}
    assert [one.rpartition(" ")[2] for one in logged_requests(digest, "PUT")] == ["401", "201"]


def test_a_wrong_password_for_digest(digest: ExternalDav, tmp_path: Path, source: Path) -> None:
    store = create_storage(digest, tmp_path, "wrong")
    with pytest.raises(AuthenticationFailed, match=r"check \[webdav\] username and password"):
        store.upload_file(source, location_of(digest, "a.mp4"), lambda: False)
    sent = len(logged_requests(digest, "PROPFIND"))
    with pytest.raises(AuthenticationFailed, match="a moment ago"):
        store.head(location_of(digest, "a.mp4"))
    assert len(logged_requests(digest, "PROPFIND")) == sent


def test_unknown_digest_algorithm_is_named(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    challenge = {"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth-int"'}
    lab.store.fail_next("dav", "GET", "/screens/", 401, headers=challenge)
    with pytest.raises(StorageMisconfigured, match="kind of Digest authentication"):
        create_storage(of_lab(lab), tmp_path).download_file(location_of(of_lab(lab), "a.mp4"), tmp_path / "x")


def test_switch_to_basic_authentication_is_followed(make_lab: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_breaker, "LOGIN_BACKOFF_SECONDS", 0.0)
    lab = make_lab()
    (lab.site.media.folder / "screens" / "a.mp4").write_bytes(b"screen")
    store, where = create_storage(of_lab(lab), tmp_path), location_of(of_lab(lab), "a.mp4")
    challenge = {"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth"'}
    lab.store.fail_next("dav", "GET", "/screens/", 401, headers=challenge)
    with pytest.raises(AccessDenied):
        store.download_file(where, tmp_path / "x")
    assert store.download_file(where, tmp_path / "x") == 6


# ---- renaming ------------------------------------------------------------------------------------------


def move_statuses(lab: Lab) -> list[int]:
    return [request.status for request in lab.store.served_requests if request.method == "MOVE"]


@pytest.mark.parametrize("status", [400, 403, 502])
def test_one_refused_move_is_repeated(make_lab: Make, tmp_path: Path, source: Path, status: int) -> None:
    lab = make_lab()
    lab.store.fail_next("dav", "MOVE", "/screens/", status)
    store = create_storage(of_lab(lab), tmp_path)
    for name in ("a.mp4", "b.mp4"):
        store.upload_file(source, location_of(of_lab(lab), name), lambda: False)
    assert move_statuses(lab) == [status, 201, 201]
    assert stored_contents(of_lab(lab)) == dict.fromkeys(("a.mp4", "b.mp4"), source.read_bytes())


@pytest.mark.parametrize("status", [400, 403, 502])
def test_only_the_unrenamed_file_is_uploaded_under_its_final_name(
    make_lab: Make, tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    lab = make_lab()
    lab.store.fail_next("dav", "MOVE", "/screens/", status, times=4)
    store = create_storage(of_lab(lab), tmp_path)
    for name in ("a.mp4", "b.mp4"):
        store.upload_file(source, location_of(of_lab(lab), name), lambda: False)
    assert move_statuses(lab) == [*[status] * 4, 201]
    assert stored_contents(of_lab(lab)) == dict.fromkeys(("a.mp4", "b.mp4"), source.read_bytes())
    assert f"HTTP {status}, also when repeated" in caplog.text and "goes to its final name" in caplog.text


def test_rename_is_tried_again_after_an_hour(
    make_lab: Make, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab()
    now = [time.monotonic()]
    monkeypatch.setattr(webdav_renaming.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]
    lab.store.fail_next("dav", "MOVE", "/screens/", 405)
    store = create_storage(of_lab(lab), tmp_path)
    for later in (0, 3500, 200):
        now[0] += later
        store.upload_file(source, location_of(of_lab(lab), f"{later}.mp4"), lambda: False)
    assert move_statuses(lab) == [405, 201]


def test_file_renamed_despite_error_response_is_stored(
    make_lab: Make, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy timed out before the server had finished."""
    lab = make_lab()
    folder, real = lab.site.media.folder / "screens", lab.store.take_failure

    def take_failure(service: str, method: str, path: str) -> object:
        if method == "MOVE" and (folder / "part-test-a.mp4").exists():
            (folder / "part-test-a.mp4").rename(folder / "a.mp4")
            lab.store.fail_next("dav", "MOVE", "/screens/", 502)
        return real(service, method, path)

    monkeypatch.setattr(lab.store, "take_failure", take_failure)
    create_storage(of_lab(lab), tmp_path).upload_file(source, location_of(of_lab(lab), "a.mp4"), lambda: False)
    assert stored_contents(of_lab(lab)) == {"a.mp4": source.read_bytes()}
    assert len([request for request in lab.store.served_requests if request.method == "PUT"]) == 1


def test_files_are_renamed_behind_tls_terminating_proxy(tmp_path: Path, source: Path) -> None:
    with run_apache() as behind, run_tls_proxy(behind) as server:
        store = create_storage(server, tmp_path)
        for name in ("a.mp4", "b.mp4"):
            store.upload_file(source, location_of(server, name), lambda: False)
        assert stored_contents(server) == dict.fromkeys(("a.mp4", "b.mp4"), source.read_bytes())
        assert [one.rpartition(" ")[2] for one in logged_requests(server, "MOVE")] == ["502", "502", "201", "201"]
        assert store.renaming_refusal(location_of(server, "a.mp4")) == ""


# ---- slow stores ---------------------------------------------------------------------------------------


def test_late_response_to_upload_is_accepted(
    make_lab: Make, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy responds when the store behind it has the complete file; other requests have the usual time limit."""
    lab = make_lab()
    late, real = {"PUT"}, lab.store.take_failure

    def take_failure(service: str, method: str, path: str) -> object:
        if method in late:
            time.sleep(1.5)
        return real(service, method, path)

    monkeypatch.setattr(lab.store, "take_failure", take_failure)
    monkeypatch.setattr(webdav_http, "READ_TIMEOUT_SECONDS", 0.5)
    store, where = create_storage(of_lab(lab), tmp_path), location_of(of_lab(lab), "a.mp4")
    store.upload_file(source, where, lambda: False)
    assert stored_contents(of_lab(lab)) == {"a.mp4": source.read_bytes()}
    late.add("PROPFIND")
    with pytest.raises(ServiceUnavailable, match="no response within the time limit"):
        store.head(where)
