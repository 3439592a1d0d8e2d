"""Why an S3 store refuses a request: each cause is named with its option, and costs no recording its attempts.

Behind the doors of these tests is a real moto; nginx is a real one, too. What they refuse is what AWS and other stores do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.apache import free_port
from tests.support.moto_server import moto_server
from tests.support.nginx import nginx
from tests.support.s3 import BUCKET, MIB, Server, keep, place, replace, storage, written
from tests.support.s3_door import Asked, Refusal, Rule, door
from tests.support.s3rver import S3rver
from tests.support.tls import HOST, pem, self_signed

from muxer.errors import (
    AccessDenied,
    Code,
    LoginRefused,
    MuxerError,
    PlaceClosed,
    RequestRejected,
    ServiceUnavailable,
    StoredElsewhere,
    Transient,
    UnreadableAnswer,
)
from muxer.outages import FAILURES_IN_A_ROW, Outages
from muxer.storage import s3
from muxer.storage.s3 import S3Storage

pytestmark = pytest.mark.usefixtures("models_read_once", "no_keys_around")
DENIED = Refusal(403, "AccessDenied")
OTHER = "other-bucket"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with moto_server() as url:
        made = Server(url)
        for bucket in (BUCKET, OTHER):
            made.client.create_bucket(Bucket=bucket)
        yield made


def without_list(server: Server) -> Rule:
    """Return what AWS does for keys without ListBucket: a missing object is forbidden."""

    def rule(asked: Asked) -> Refusal | None:
        if asked.method not in ("GET", "HEAD"):
            return None
        is_there = asked.path.removeprefix(f"/{BUCKET}/") in server.objects()
        return None if is_there and not asked.is_of_bucket else DENIED

    return rule


def write_only(asked: Asked) -> Refusal | None:
    """Refuse all reading, and all lists."""
    return DENIED if asked.method in ("GET", "HEAD") else None


def always(refusal: Refusal) -> Rule:
    return lambda _: refusal


# ---- rights of the keys ------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("size", [7, 12 * MIB], ids=["whole", "in parts"])
def test_keys_without_the_right_to_list_store_and_delete(
    server: Server, tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    source, where, asked = written(tmp_path / "source", b"x" * size), place("unlisted.mp4"), list[Asked]()
    with door(without_list(server), asked) as url, caplog.at_level(logging.WARNING):
        store = storage(url)
        assert store.describe(where) is None and store.has_folder(where)
        assert store.store(source, where, keep).length == size
        assert server.content("screens/unlisted.mp4") == source.read_bytes()
        with pytest.raises(StoredElsewhere):
            store.store(source, where, keep)
        store.delete(where)
    assert "screens/unlisted.mp4" not in server.objects()
    (line,) = [one.getMessage() for one in caplog.records if one.name.startswith("muxer")]
    assert "s3:ListBucket" in line and BUCKET in line
    sent = [one for one in asked if one.method in ("PUT", "POST") and one.headers.get("if-none-match") == "*"]
    assert len(sent) == 1


def test_a_missing_source_stops_no_other_when_keys_may_not_list(server: Server, tmp_path: Path) -> None:
    outages = Outages()
    with door(without_list(server)) as url:
        store = storage(url, outages=outages)
        for _ in range(FAILURES_IN_A_ROW):
            with pytest.raises(PlaceClosed, match=r"lack the right s3:GetObject; or it is not there: without s3:ListBucket"):
                store.fetch(place("late.mp4"), tmp_path / "x")
    assert outages.now_out() == {}


def test_keys_that_may_list_but_not_read_are_not_taken_for_a_missing_object(tmp_path: Path) -> None:
    with door(lambda asked: None if asked.is_of_bucket else write_only(asked)) as url:
        for tried in (
            lambda: storage(url).describe(place("hidden.mp4")),
            lambda: storage(url).fetch(place("hidden.mp4"), tmp_path / "x"),
        ):
            with pytest.raises(PlaceClosed, match=r"lack the right s3:GetObject$"):
                tried()


@pytest.mark.parametrize("knows_conditions", [True, False], ids=["conditional put", "not implemented"])
def test_what_cannot_be_seen_is_not_overwritten(server: Server, tmp_path: Path, knows_conditions: bool) -> None:
    server.client.put_object(Bucket=BUCKET, Key="screens/hidden.mp4", Body=b"of another muxer")

    def rule(asked: Asked) -> Refusal | None:
        if "if-none-match" in asked.headers and not knows_conditions:
            return Refusal(501, "NotImplemented")  # the response of Swift
        return write_only(asked)

    with door(rule) as url:
        with pytest.raises(StoredElsewhere):
            storage(url).store(written(tmp_path / "source", b"ours"), place("hidden.mp4"), keep)
        assert server.content("screens/hidden.mp4") == b"of another muxer"
        with pytest.raises(AccessDenied, match="lack the right s3:GetObject to read it back"):
            storage(url).store(tmp_path / "source", place("hidden.mp4"), replace)
    assert server.content("screens/hidden.mp4") == b"ours"


@pytest.mark.parametrize(
    ("method", "right", "tried"),
    [
        ("PUT", "s3:PutObject", lambda store, path: store.store(path, place("a.mp4"), keep)),
        ("DELETE", "s3:DeleteObject", lambda store, _: store.delete(place("a.mp4"))),
        ("POST", "s3:PutObject", lambda store, _: store.try_parts(place("a.mp4"))),
        ("DELETE", "s3:AbortMultipartUpload", lambda store, _: store.try_parts(place("a.mp4"))),
    ],
)
def test_the_right_that_lacks_is_named(
    server: Server, tmp_path: Path, method: str, right: str, tried: Callable[[S3Storage, Path], object]
) -> None:
    source = written(tmp_path / "source", b"x")
    with door(lambda asked: DENIED if asked.method == method else None) as url, pytest.raises(AccessDenied, match=right):
        tried(storage(url), source)
    for one in server.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
        server.client.abort_multipart_upload(Bucket=BUCKET, Key=one["Key"], UploadId=one["UploadId"])


@pytest.mark.parametrize("code", ["", "InvalidAccessKeyId", "AccessDenied"])
def test_what_one_bucket_refuses_holds_back_no_other(server: Server, tmp_path: Path, code: str) -> None:
    server.client.put_object(Bucket=OTHER, Key="screens/a.mp4", Body=b"x")
    asked, outages = list[Asked](), Outages()
    with door(lambda one: Refusal(403, code) if one.path.startswith(f"/{BUCKET}") else None, asked) as url:
        store = storage(url, outages=outages)
        for _ in range(FAILURES_IN_A_ROW):
            with pytest.raises(AccessDenied):
                store.store(written(tmp_path / "source", b"x"), place("a.mp4"), keep)
        refused = len(asked)
        assert store.fetch(place("a.mp4", OTHER), tmp_path / "x") == 1
        assert store.store(tmp_path / "source", place("b.mp4", OTHER), replace).length == 1
    assert len(asked) > refused and f"S3 bucket {OTHER}" not in outages.now_out()
    if code != DENIED.code:  # keys that are refused are not sent again for a while
        assert refused == 2 and f"S3 bucket {BUCKET}" in outages.now_out()


# ---- what a HEAD does not say, a GET does ------------------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "kind", "text"),
    [
        (Refusal(403, "SignatureDoesNotMatch"), LoginRefused, r"\[s3\] access_key_id and secret_access_key"),
        (Refusal(403), LoginRefused, r"HTTP 403; check \[s3\] access_key_id"),
        (Refusal(400, "ExpiredToken"), LoginRefused, r"\[s3\] access_key_id"),
        (
            Refusal(400, "AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong; expecting 'RegionOne'"),
            AccessDenied,
            r"the store wants the region RegionOne: set \[s3\] region = RegionOne",
        ),
        (Refusal(400, "AuthorizationHeaderMalformed"), AccessDenied, r"check \[s3\] region"),
        (Refusal(400, "InvalidRequest", "Please use AWS4-HMAC-SHA256"), AccessDenied, r"AWS4-HMAC-SHA256.*\[s3\] region"),
        (Refusal(403, "RequestTimeTooSkewed"), AccessDenied, "the clock of this machine is wrong"),
        (Refusal(403, "RequestExpired"), AccessDenied, "the clock of this machine is wrong"),
        (Refusal(405, "MethodNotAllowed"), AccessDenied, r"MethodNotAllowed.*\[s3\] region, endpoint_url"),
        (Refusal(411, "MissingContentLength"), AccessDenied, r"MissingContentLength.*endpoint_url"),
        (Refusal(403, "QuotaExceeded"), ServiceUnavailable, "full"),
        (Refusal(403, "AccountProblem", "Not paid"), AccessDenied, "AccountProblem .Not paid.$"),
        (Refusal(400, text="<html>Bad Request</html>"), AccessDenied, r"no S3 error code.*\[s3\] endpoint_url"),
        (Refusal(405, text="no HEAD here"), AccessDenied, r"no S3 error code.*\[s3\] endpoint_url"),
        (Refusal(400, "InvalidArgument", "odd"), RequestRejected, "InvalidArgument .odd."),
    ],
    ids=lambda one: one.code or str(one.status) if isinstance(one, Refusal) else "",
)
def test_a_refused_head_is_judged_by_the_body_of_a_get(refusal: Refusal, kind: type[MuxerError], text: str) -> None:
    asked: list[Asked] = []
    with door(always(refusal), asked) as url, pytest.raises(MuxerError, match=text) as caught:
        storage(url).describe(place("a.mp4"))
    assert type(caught.value) is kind
    assert isinstance(caught.value, Transient) or kind is RequestRejected
    assert [one.method for one in asked if not one.is_of_bucket] == ["HEAD", "GET"]


def test_a_web_page_is_no_object_that_is_stored_already(tmp_path: Path) -> None:
    page = Refusal(200, text="<html>the console of the store</html>", headers={"Content-Type": "text/html; charset=utf-8"})
    with door(always(page)) as url, pytest.raises(UnreadableAnswer, match=r"text/html.*\[s3\] endpoint_url"):
        storage(url).store(written(tmp_path / "source", b"x"), place("a.mp4"), keep)


def test_a_proxy_that_refuses_head_hides_nothing(server: Server) -> None:
    server.client.put_object(Bucket=BUCKET, Key="screens/there.mp4", Body=b"12345")
    with door(lambda asked: Refusal(405) if asked.method == "HEAD" else None) as url:
        found = storage(url).describe(place("there.mp4"))
        assert found is not None and found.length == 5
        assert found == storage(server.url).describe(place("there.mp4"))
        assert storage(url).describe(place("nowhere.mp4")) is None
        assert storage(url).has_folder(place("nowhere.mp4"))


def test_an_archived_object_is_not_taken_for_wrong_keys(tmp_path: Path) -> None:
    with door(always(Refusal(403, "InvalidObjectState"))) as url, pytest.raises(PlaceClosed, match="archived: restore it"):
        storage(url).fetch(place("a.mp4"), tmp_path / "x")


# ---- http, https, and proxies ------------------------------------------------------------------------


@contextmanager
def nginx_for(folder: Path, text: str) -> Iterator[str]:
    """Yield the port of a server of nginx with TLS. `text` is for its block `server`."""
    made, port = self_signed("store", HOST), free_port()
    key, chain = written(folder / "key.pem", made.key_pem), written(folder / "chain.pem", pem(made))
    with nginx(f"listen {HOST}:{port} ssl; ssl_certificate {chain}; ssl_certificate_key {key}; {text}"):
        yield f"{HOST}:{port}"


def test_http_to_a_tls_port_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    with nginx_for(tmp_path, "") as netloc:  # it answers 400
        check_scheme(f"http://{netloc}", "the port speaks TLS: write https://", tmp_path)
    certificate = self_signed("store", HOST)
    with S3rver(tmp_path / "s3rver", BUCKET, certificate=certificate) as rver:  # it closes the connection
        check_scheme(rver.url.replace("https", "http"), "the port speaks TLS: write https://", tmp_path)


def test_https_to_a_plain_port_is_named(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    check_scheme(server.url.replace("http", "https"), "nothing speaks TLS on this port: write http://", tmp_path)


def check_scheme(url: str, text: str, folder: Path) -> None:
    source = written(folder / "source", b"x")
    for tried in (
        lambda store: store.describe(place("a.mp4")),
        lambda store: store.fetch(place("a.mp4"), folder / "x"),
        lambda store: store.store(source, place("a.mp4"), keep),
    ):
        with pytest.raises(ServiceUnavailable, match=rf"{text}.*\[s3\] endpoint_url") as caught:
            tried(storage(url, trusted_ca=False))
        assert caught.value.code is Code.TLS


def test_a_redirect_to_https_is_named(tmp_path: Path) -> None:
    with nginx("return 301 https://store.example$request_uri;") as proxy:
        text = r"redirected to https://store\.example; check \[s3\] endpoint_url"
        with pytest.raises(AccessDenied, match=text):
            storage(proxy.url).describe(place("a.mp4"))
        with pytest.raises(AccessDenied, match=text):
            storage(proxy.url).fetch(place("a.mp4"), tmp_path / "x")


def test_the_limit_of_a_proxy_is_named(server: Server, tmp_path: Path) -> None:
    there = f"location / {{ auth_basic off; proxy_pass {server.url}; proxy_set_header Host $http_host; }}"
    with nginx(there) as proxy:
        store = storage(proxy.url)
        assert store.store(written(tmp_path / "small", b"x"), place("small.mp4"), keep).length == 1
        with pytest.raises(ServiceUnavailable, match=r"HTTP 413.*client_max_body_size"):
            store.store(written(tmp_path / "large", b"x" * 3 * MIB), place("large.mp4"), keep)
    assert "screens/large.mp4" not in server.objects()
