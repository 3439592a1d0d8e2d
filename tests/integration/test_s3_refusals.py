"""Refusals of an S3 store: each cause is named with its option, and uses no attempts of a recording.

The fronts of these tests lead to a real moto, and nginx is real too. They refuse the same requests as AWS and other stores.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from muxer.errors import (
    AccessDenied,
    AuthenticationFailed,
    Code,
    MuxerError,
    PathForbidden,
    RequestRejected,
    ServiceUnavailable,
    StoredByOtherMuxer,
    Transient,
    UnreadableResponse,
)
from muxer.net.circuit_breaker import FAILURE_THRESHOLD, CircuitBreaker
from muxer.storage import s3
from muxer.storage.s3 import S3Storage
from tests.support.moto_server import moto_server
from tests.support.nginx import run_nginx
from tests.support.ports import free_port
from tests.support.s3 import BUCKET, MIB, S3Server, create_storage, keep_stored, replace_stored, s3_location, write_file
from tests.support.s3_front import Rule, S3Request, SubstituteResponse, serve_front
from tests.support.s3rver import S3rver
from tests.support.tls import HOST, pem_bundle, self_signed

pytestmark = pytest.mark.usefixtures("models_read_once", "no_keys_around")
DENIED = SubstituteResponse(403, "AccessDenied")
OTHER_BUCKET = "other-bucket"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with moto_server() as url:
        moto = S3Server(url)
        for bucket in (BUCKET, OTHER_BUCKET):
            moto.client.create_bucket(Bucket=bucket)
        yield moto


def without_list(server: S3Server) -> Rule:
    """Return the behaviour of AWS for keys without ListBucket: a missing object is forbidden."""

    def deny_missing(asked: S3Request) -> SubstituteResponse | None:
        if asked.method not in ("GET", "HEAD"):
            return None
        is_there = asked.path.removeprefix(f"/{BUCKET}/") in server.list_objects()
        return None if is_there and not asked.is_of_bucket else DENIED

    return deny_missing


def write_only(asked: S3Request) -> SubstituteResponse | None:
    """Refuse all reading, and all lists."""
    return DENIED if asked.method in ("GET", "HEAD") else None


def refuse_always(refusal: SubstituteResponse) -> Rule:
    return lambda _: refusal


# ---- permissions of the keys -------------------------------------------------------------------------


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("size", [7, 12 * MIB], ids=["whole", "in parts"])
def test_keys_without_the_right_to_list_store_and_delete(
    server: S3Server, tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    source, where, asked = write_file(tmp_path / "source", b"x" * size), s3_location("unlisted.mp4"), list[S3Request]()
    with serve_front(without_list(server), asked) as url, caplog.at_level(logging.WARNING):
        store = create_storage(url)
        assert store.head(where) is None and store.has_folder(where)
        assert store.upload_file(source, where, keep_stored).length == size
        assert server.read_object("screens/unlisted.mp4") == source.read_bytes()
        with pytest.raises(StoredByOtherMuxer):
            store.upload_file(source, where, keep_stored)
        store.delete_file(where)
    assert "screens/unlisted.mp4" not in server.list_objects()
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("muxer")]
    assert "s3:ListBucket" in line and BUCKET in line
    sent = [one for one in asked if one.method in ("PUT", "POST") and one.headers.get("if-none-match") == "*"]
    assert len(sent) == 1


def test_missing_source_affects_no_other_without_list_permission(server: S3Server, tmp_path: Path) -> None:
    circuit_breaker = CircuitBreaker()
    with serve_front(without_list(server)) as url:
        store = create_storage(url, circuit_breaker=circuit_breaker)
        for _ in range(FAILURE_THRESHOLD):
            with pytest.raises(
                PathForbidden, match=r"lack the right s3:GetObject; or the object does not exist: without s3:ListBucket"
            ):
                store.download_file(s3_location("late.mp4"), tmp_path / "x")
    assert circuit_breaker.open_circuits() == {}


def test_missing_read_permission_is_not_reported_as_missing_object(tmp_path: Path) -> None:
    with serve_front(lambda asked: None if asked.is_of_bucket else write_only(asked)) as url:
        for tried in (
            lambda: create_storage(url).head(s3_location("hidden.mp4")),
            lambda: create_storage(url).download_file(s3_location("hidden.mp4"), tmp_path / "x"),
        ):
            with pytest.raises(PathForbidden, match=r"lack the right s3:GetObject$"):
                tried()


@pytest.mark.parametrize("knows_conditions", [True, False], ids=["conditional put", "not implemented"])
def test_invisible_object_is_not_overwritten(server: S3Server, tmp_path: Path, knows_conditions: bool) -> None:
    server.client.put_object(Bucket=BUCKET, Key="screens/hidden.mp4", Body=b"of another muxer")

    def refuse_conditions(asked: S3Request) -> SubstituteResponse | None:
        if "if-none-match" in asked.headers and not knows_conditions:
            return SubstituteResponse(501, "NotImplemented")  # the response of Swift
        return write_only(asked)

    with serve_front(refuse_conditions) as url:
        with pytest.raises(StoredByOtherMuxer):
            create_storage(url).upload_file(write_file(tmp_path / "source", b"ours"), s3_location("hidden.mp4"), keep_stored)
        assert server.read_object("screens/hidden.mp4") == b"of another muxer"
        with pytest.raises(AccessDenied, match="lack the right s3:GetObject to read it back"):
            create_storage(url).upload_file(tmp_path / "source", s3_location("hidden.mp4"), replace_stored)
    assert server.read_object("screens/hidden.mp4") == b"ours"


@pytest.mark.parametrize(
    ("method", "right", "tried"),
    [
        ("PUT", "s3:PutObject", lambda store, path: store.upload_file(path, s3_location("a.mp4"), keep_stored)),
        ("DELETE", "s3:DeleteObject", lambda store, _: store.delete_file(s3_location("a.mp4"))),
        ("POST", "s3:PutObject", lambda store, _: store.try_multipart(s3_location("a.mp4"))),
        ("DELETE", "s3:AbortMultipartUpload", lambda store, _: store.try_multipart(s3_location("a.mp4"))),
    ],
)
def test_missing_permission_is_named(
    server: S3Server, tmp_path: Path, method: str, right: str, tried: Callable[[S3Storage, Path], object]
) -> None:
    source = write_file(tmp_path / "source", b"x")
    with (
        serve_front(lambda asked: DENIED if asked.method == method else None) as url,
        pytest.raises(AccessDenied, match=right),
    ):
        tried(create_storage(url), source)
    for one in server.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
        server.client.abort_multipart_upload(Bucket=BUCKET, Key=one["Key"], UploadId=one["UploadId"])


@pytest.mark.parametrize("code", ["", "InvalidAccessKeyId", "AccessDenied"])
def test_refusal_of_one_bucket_affects_no_other(server: S3Server, tmp_path: Path, code: str) -> None:
    server.client.put_object(Bucket=OTHER_BUCKET, Key="screens/a.mp4", Body=b"x")
    asked, circuit_breaker = list[S3Request](), CircuitBreaker()
    with serve_front(lambda one: SubstituteResponse(403, code) if one.path.startswith(f"/{BUCKET}") else None, asked) as url:
        store = create_storage(url, circuit_breaker=circuit_breaker)
        for _ in range(FAILURE_THRESHOLD):
            with pytest.raises(AccessDenied):
                store.upload_file(write_file(tmp_path / "source", b"x"), s3_location("a.mp4"), keep_stored)
        refused = len(asked)
        assert store.download_file(s3_location("a.mp4", OTHER_BUCKET), tmp_path / "x") == 1
        assert store.upload_file(tmp_path / "source", s3_location("b.mp4", OTHER_BUCKET), replace_stored).length == 1
    assert len(asked) > refused and f"S3 bucket {OTHER_BUCKET}" not in circuit_breaker.open_circuits()
    if code != DENIED.code:  # keys that are refused are not sent again for a while
        assert refused == 2 and f"S3 bucket {BUCKET}" in circuit_breaker.open_circuits()


# ---- causes that only the response to a GET contains -------------------------------------------------


@pytest.mark.parametrize(
    ("refusal", "kind", "text"),
    [
        (
            SubstituteResponse(403, "SignatureDoesNotMatch"),
            AuthenticationFailed,
            r"\[s3\] access_key_id and secret_access_key",
        ),
        (SubstituteResponse(403), AuthenticationFailed, r"HTTP 403; check \[s3\] access_key_id"),
        (SubstituteResponse(400, "ExpiredToken"), AuthenticationFailed, r"\[s3\] access_key_id"),
        (
            SubstituteResponse(
                400, "AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong; expecting 'RegionOne'"
            ),
            AccessDenied,
            r"the store wants the region RegionOne: set \[s3\] region = RegionOne",
        ),
        (SubstituteResponse(400, "AuthorizationHeaderMalformed"), AccessDenied, r"check \[s3\] region"),
        (
            SubstituteResponse(400, "InvalidRequest", "Please use AWS4-HMAC-SHA256"),
            AccessDenied,
            r"AWS4-HMAC-SHA256.*\[s3\] region",
        ),
        (SubstituteResponse(403, "RequestTimeTooSkewed"), AccessDenied, "the clock of this machine is wrong"),
        (SubstituteResponse(403, "RequestExpired"), AccessDenied, "the clock of this machine is wrong"),
        (SubstituteResponse(405, "MethodNotAllowed"), AccessDenied, r"MethodNotAllowed.*\[s3\] region, endpoint_url"),
        (SubstituteResponse(411, "MissingContentLength"), AccessDenied, r"MissingContentLength.*endpoint_url"),
        (SubstituteResponse(403, "QuotaExceeded"), ServiceUnavailable, "full"),
        (SubstituteResponse(403, "AccountProblem", "Not paid"), AccessDenied, "AccountProblem .Not paid.$"),
        (SubstituteResponse(400, text="<html>Bad Request</html>"), AccessDenied, r"no S3 error code.*\[s3\] endpoint_url"),
        (SubstituteResponse(405, text="no HEAD here"), AccessDenied, r"no S3 error code.*\[s3\] endpoint_url"),
        (SubstituteResponse(400, "InvalidArgument", "odd"), RequestRejected, "InvalidArgument .odd."),
    ],
    ids=lambda one: one.code or str(one.status) if isinstance(one, SubstituteResponse) else "",
)
def test_refused_head_is_explained_by_the_body_of_a_get(
    refusal: SubstituteResponse, kind: type[MuxerError], text: str
) -> None:
    asked: list[S3Request] = []
    with serve_front(refuse_always(refusal), asked) as url, pytest.raises(MuxerError, match=text) as caught:
        create_storage(url).head(s3_location("a.mp4"))
    assert type(caught.value) is kind
    assert isinstance(caught.value, Transient) or kind is RequestRejected
    assert [one.method for one in asked if not one.is_of_bucket] == ["HEAD", "GET"]


def test_web_page_is_not_taken_for_a_stored_object(tmp_path: Path) -> None:
    page = SubstituteResponse(
        200, text="<html>the console of the store</html>", headers={"Content-Type": "text/html; charset=utf-8"}
    )
    with serve_front(refuse_always(page)) as url, pytest.raises(UnreadableResponse, match=r"text/html.*\[s3\] endpoint_url"):
        create_storage(url).upload_file(write_file(tmp_path / "source", b"x"), s3_location("a.mp4"), keep_stored)


def test_a_proxy_that_refuses_head_hides_nothing(server: S3Server) -> None:
    server.client.put_object(Bucket=BUCKET, Key="screens/there.mp4", Body=b"12345")
    with serve_front(lambda asked: SubstituteResponse(405) if asked.method == "HEAD" else None) as url:
        found = create_storage(url).head(s3_location("there.mp4"))
        assert found is not None and found.length == 5
        assert found == create_storage(server.url).head(s3_location("there.mp4"))
        assert create_storage(url).head(s3_location("nowhere.mp4")) is None
        assert create_storage(url).has_folder(s3_location("nowhere.mp4"))


def test_archived_object_is_not_reported_as_wrong_keys(tmp_path: Path) -> None:
    with (
        serve_front(refuse_always(SubstituteResponse(403, "InvalidObjectState"))) as url,
        pytest.raises(PathForbidden, match="archived: restore it"),
    ):
        create_storage(url).download_file(s3_location("a.mp4"), tmp_path / "x")


# ---- http, https, and proxies ------------------------------------------------------------------------


@contextmanager
def nginx_for(folder: Path, text: str) -> Iterator[str]:
    """Yield the port of a server of nginx with TLS. `text` is for its block `server`."""
    moto, port = self_signed("store", HOST), free_port()
    key, chain = write_file(folder / "key.pem", moto.key_pem), write_file(folder / "chain.pem", pem_bundle(moto))
    with run_nginx(f"listen {HOST}:{port} ssl; ssl_certificate {chain}; ssl_certificate_key {key}; {text}"):
        yield f"{HOST}:{port}"


def test_http_to_a_tls_port_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    with nginx_for(tmp_path, "") as netloc:  # it returns 400
        check_scheme(f"http://{netloc}", "the port speaks TLS: write https://", tmp_path)
    certificate = self_signed("store", HOST)
    with S3rver(tmp_path / "s3rver", BUCKET, certificate=certificate) as rver:  # it closes the connection
        check_scheme(rver.url.replace("https", "http"), "the port speaks TLS: write https://", tmp_path)


def test_https_to_a_plain_port_is_named(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    check_scheme(server.url.replace("http", "https"), "nothing speaks TLS on this port: write http://", tmp_path)


def check_scheme(url: str, text: str, folder: Path) -> None:
    source = write_file(folder / "source", b"x")
    for tried in (
        lambda store: store.head(s3_location("a.mp4")),
        lambda store: store.download_file(s3_location("a.mp4"), folder / "x"),
        lambda store: store.upload_file(source, s3_location("a.mp4"), keep_stored),
    ):
        with pytest.raises(ServiceUnavailable, match=rf"{text}.*\[s3\] endpoint_url") as caught:
            tried(create_storage(url, trusted_ca=False))
        assert caught.value.code is Code.TLS


def test_a_redirect_to_https_is_named(tmp_path: Path) -> None:
    with run_nginx("return 301 https://store.example$request_uri;") as proxy:
        text = r"redirected to https://store\.example; check \[s3\] endpoint_url"
        with pytest.raises(AccessDenied, match=text):
            create_storage(proxy.url).head(s3_location("a.mp4"))
        with pytest.raises(AccessDenied, match=text):
            create_storage(proxy.url).download_file(s3_location("a.mp4"), tmp_path / "x")


def test_the_limit_of_a_proxy_is_named(server: S3Server, tmp_path: Path) -> None:
    there = f"location / {{ auth_basic off; proxy_pass {server.url}; proxy_set_header Host $http_host; }}"
    with run_nginx(there) as proxy:
        store = create_storage(proxy.url)
        assert store.upload_file(write_file(tmp_path / "small", b"x"), s3_location("small.mp4"), keep_stored).length == 1
        with pytest.raises(ServiceUnavailable, match=r"HTTP 413.*client_max_body_size"):
            store.upload_file(write_file(tmp_path / "large", b"x" * 3 * MIB), s3_location("large.mp4"), keep_stored)
    assert "screens/large.mp4" not in server.list_objects()
