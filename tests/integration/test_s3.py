"""S3 storage against a real moto server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.exceptions import ConnectionClosedError

from muxer.errors import (
    AccessDenied,
    AuthenticationFailed,
    MetadataError,
    MuxerError,
    ServiceUnavailable,
    Stopped,
)
from muxer.net import transfer
from muxer.net.circuit_breaker import FAILURE_THRESHOLD, CircuitBreaker
from muxer.storage import s3
from muxer.storage.base import parse_descriptor
from muxer.storage.upload_intents import UploadIntents
from tests.support.moto_server import moto_server
from tests.support.s3 import (
    BUCKET,
    KEY,
    MIB,
    SECRET,
    DelayedStop,
    S3Server,
    create_storage,
    keep_stored,
    replace_stored,
    s3_location,
    write_file,
)
from tests.support.s3_front import SubstituteResponse, serve_front

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
pytestmark = pytest.mark.usefixtures("models_read_once", "no_keys_around")


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with moto_server() as url:
        moto = S3Server(url)
        moto.client.create_bucket(Bucket=BUCKET)
        yield moto


@contextmanager
def refusing_front(query: str, status: int) -> Iterator[str]:
    """Yield the URL of a front to moto that refuses only requests with this query."""
    with serve_front(lambda request: SubstituteResponse(status) if query in request.query else None) as url:
        yield url


def test_fetched_object_has_its_modification_time(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxer.net.transfer.JUST_NOW_SECONDS", -1.0)
    store, before = create_storage(server.url), time.time()
    store.upload_file(write_file(tmp_path / "source", b"x"), s3_location("new.mp4"), keep_stored)
    modified = store.download_file(s3_location("new.mp4"), tmp_path / "x").modified
    assert modified is not None and abs(modified - before) < 3600


@pytest.mark.parametrize("path", ["no-folder.mp4", "/slash.mp4", "a//b.mp4", "calls/2026/07/deep.mp4", "a/../dots.mp4"])
def test_every_prefix_is_kept(server: S3Server, tmp_path: Path, path: str) -> None:
    where = parse_descriptor({"storage": "awsS3", "path": path, "data": {"bucket": BUCKET}})
    create_storage(server.url).upload_file(write_file(tmp_path / "source", b"x"), where, replace_stored)
    assert server.read_object(path) == b"x"
    assert where.media_descriptor == {"storage": "awsS3", "path": path, "data": {"bucket": BUCKET}}


@pytest.mark.parametrize("size", [1000, 6 * MIB])
def test_missing_bucket_is_reported(server: S3Server, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "MULTIPART_BYTES", 5 * MIB)
    store, nowhere = create_storage(server.url), s3_location("a.mp4", bucket="no-such-bucket")
    with pytest.raises(ServiceUnavailable, match="bucket does not exist"):
        store.download_file(nowhere, tmp_path / "x")
    with pytest.raises(ServiceUnavailable, match="bucket does not exist"):
        store.upload_file(write_file(tmp_path / "source", b"x" * size), nowhere, keep_stored)


def test_missing_bucket_affects_no_other_bucket(server: S3Server, tmp_path: Path) -> None:
    circuit_breaker = CircuitBreaker()
    store = create_storage(server.url, circuit_breaker=circuit_breaker)
    for _ in range(FAILURE_THRESHOLD):
        with pytest.raises(ServiceUnavailable):
            store.download_file(s3_location("a.mp4", bucket="no-such-bucket"), tmp_path / "x")
    assert list(circuit_breaker.open_circuits()) == ["S3 bucket no-such-bucket"]
    assert circuit_breaker.try_half_open([s3_location("a.mp4").service_name])


@pytest.mark.parametrize("bucket", ["no bucket at all", "a/b"])
def test_invalid_bucket_name_is_a_metadata_error(server: S3Server, tmp_path: Path, bucket: str) -> None:
    with pytest.raises(MetadataError):
        create_storage(server.url).download_file(s3_location("a.mp4", bucket=bucket), tmp_path / "x")


@pytest.mark.usefixtures("small_parts")
def test_large_file_is_transferred_in_parts_both_ways(server: S3Server, tmp_path: Path, large: Path) -> None:
    store, where = create_storage(server.url), s3_location("large.mp4")
    stored = store.upload_file(large, where, keep_stored)
    assert stored.tag.strip('"').endswith("-3")
    assert server.read_object("screens/large.mp4") == large.read_bytes()
    assert store.download_file(where, tmp_path / "target") == large.stat().st_size
    assert (tmp_path / "target").read_bytes() == large.read_bytes()
    assert server.count_open_uploads() == 0


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("operation", ["UploadPart", "CompleteMultipartUpload"])
def test_no_parts_are_left_when_an_upload_fails(
    server: S3Server, large: Path, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    store, seen = create_storage(server.url), []

    def fail_upload(**_: Any) -> None:
        seen.append(server.count_open_uploads())
        raise ConnectionClosedError(endpoint_url=server.url)

    store._shared_client.meta.events.register(f"before-send.s3.{operation}", fail_upload)
    with pytest.raises(ServiceUnavailable):
        store.upload_file(large, s3_location("failed.mp4"), keep_stored)
    assert seen == [1]
    assert server.count_open_uploads() == 0 and store.head(s3_location("failed.mp4")) is None


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("status", [400, 503])
def test_no_parts_are_left_when_the_store_refuses_one(
    server: S3Server, tmp_path: Path, large: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    (notes := tmp_path / "uploading").mkdir()
    with refusing_front("partNumber=2", status) as url, pytest.raises(MuxerError, match=f"HTTP {status}"):
        create_storage(url, uploading=notes).upload_file(large, s3_location("refused.mp4"), keep_stored)
    assert server.count_open_uploads() == 0 and "screens/refused.mp4" not in server.list_objects()
    create_storage(server.url, uploading=notes).remove_leftovers()
    assert not list(notes.iterdir())


DYING_SCRIPT = """
import os, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
from tests.support import s3
from muxer.storage import s3 as product
product.MULTIPART_BYTES = 5 * s3.MIB
stop = s3.DelayedStop(30, lambda: os.kill(os.getpid(), 9))
s3.create_storage({url!r}, stop, Path({notes!r})).upload_file(Path({large!r}), s3.s3_location("died.mp4"), s3.keep_stored)
"""


def test_upload_of_killed_process_is_aborted(server: S3Server, tmp_path: Path, large: Path) -> None:
    (notes := tmp_path / "uploading").mkdir()
    where = {"root": str(ROOT), "tests": str(ROOT / "tests"), "url": server.url, "notes": str(notes), "large": str(large)}
    killed = subprocess.run(
        [sys.executable, "-c", DYING_SCRIPT.format(**where)], capture_output=True, check=False, timeout=60
    )
    assert killed.returncode == -9, killed.stderr
    foreign = server.client.create_multipart_upload(Bucket=BUCKET, Key="screens/died.mp4")["UploadId"]
    assert server.count_open_uploads() == 2 and len(list(notes.iterdir())) == 1
    create_storage(server.url, uploading=notes).remove_leftovers()
    (left,) = server.client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert left["UploadId"] == foreign and not list(notes.iterdir())
    server.client.abort_multipart_upload(Bucket=BUCKET, Key="screens/died.mp4", UploadId=foreign)


def test_upload_that_cannot_be_aborted_now_is_aborted_later(server: S3Server, tmp_path: Path) -> None:
    (notes := tmp_path / "uploading").mkdir()
    upload = server.client.create_multipart_upload(Bucket=BUCKET, Key="screens/later.mp4")["UploadId"]
    with pytest.raises(Stopped), UploadIntents(notes, "awsS3").pending_upload(s3_location("later.mp4"), upload):
        raise Stopped("and the store was out of reach")
    create_storage(server.url, uploading=notes, access_key_id="").remove_leftovers()
    assert server.count_open_uploads() == 1 and len(list(notes.iterdir())) == 1
    create_storage(server.url, uploading=notes).remove_leftovers()
    assert server.count_open_uploads() == 0 and not list(notes.iterdir())


@pytest.mark.usefixtures("small_parts")
def test_upload_in_progress_is_recorded_and_not_aborted(server: S3Server, tmp_path: Path, large: Path) -> None:
    (notes := tmp_path / "uploading").mkdir()
    store, seen = create_storage(server.url, uploading=notes), []

    def record_parts(**_: Any) -> None:
        store.remove_leftovers()
        seen.append((len(list(notes.iterdir())), server.count_open_uploads()))

    store._shared_client.meta.events.register("before-call.s3.UploadPart", record_parts)
    assert store.upload_file(large, s3_location("noted.mp4"), keep_stored).length == large.stat().st_size
    assert seen == [(1, 1)] * 3 and not list(notes.iterdir())


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(("size", "looks", "unfinished"), [(12 * MIB, 30, 1), (3 * MIB, 5, 0)], ids=["parts", "whole"])
def test_a_stop_ends_an_upload_and_leaves_nothing(
    server: S3Server, tmp_path: Path, size: int, looks: int, unfinished: int
) -> None:
    seen: list[int] = []
    stop = DelayedStop(looks, lambda: seen.append(server.count_open_uploads()))
    store = create_storage(server.url, stop)
    requests: list[str] = []
    store._shared_client.meta.events.register("before-send.s3", lambda request, **_: requests.append(request.method))
    with pytest.raises(Stopped):
        store.upload_file(write_file(tmp_path / "source", b"x" * size), s3_location("stopped.mp4"), keep_stored)
    assert seen == [unfinished]
    assert requests == (["HEAD", "POST", "PUT", "PUT", "DELETE"] if unfinished else ["HEAD", "PUT"])
    assert server.count_open_uploads() == 0 and store.head(s3_location("stopped.mp4")) is None


def test_a_stopped_process_uploads_nothing(server: S3Server, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        create_storage(server.url, stop).upload_file(
            write_file(tmp_path / "source", b"x"), s3_location("late.mp4"), replace_stored
        )
    assert create_storage(server.url).head(s3_location("late.mp4")) is None


@pytest.mark.usefixtures("small_parts")
def test_upload_that_takes_too_long_is_aborted(server: S3Server, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = DelayedStop(30, lambda: monkeypatch.setattr(transfer, "check_progress", too_slow))
    with pytest.raises(ServiceUnavailable, match="time limit"):
        create_storage(server.url, NeverSetEvent(clock)).upload_file(large, s3_location("slow.mp4"), keep_stored)
    assert server.count_open_uploads() == 0


class NeverSetEvent(threading.Event):
    """An event that is never set, but calls another one."""

    def __init__(self, other: threading.Event) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        self._other.is_set()
        return False


def too_slow(_deadline: float, what: str, _stop: threading.Event) -> None:
    raise ServiceUnavailable(f"{what} took longer than its time limit")


def test_missing_keys_are_reported_and_read_again(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = create_storage(server.url, access_key_id="", secret_access_key="")
    for _ in range(2):
        with pytest.raises(AccessDenied, match=r"\[s3\] access_key_id and secret_access_key"):
            store.upload_file(write_file(tmp_path / "source", b"x"), s3_location("a.mp4"), keep_stored)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert store.upload_file(tmp_path / "source", s3_location("keys.mp4"), keep_stored).length == 1


def test_wrong_secret_is_refused_and_reported(server: S3Server, tmp_path: Path) -> None:
    iam: Any = boto3.client("iam", endpoint_url=server.url, region_name="us-east-1", **KEYS)
    iam.create_user(UserName="muxer")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.put_user_policy(UserName="muxer", PolicyName="all", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName="muxer")["AccessKey"]
    right = {"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}
    source, where = write_file(tmp_path / "source", b"content"), s3_location("secret.mp4")
    # From now on moto checks the keys, their signatures and their permissions.
    requests.post(f"{server.url}/moto-api/reset-auth", data=b"0", timeout=10).raise_for_status()
    try:
        assert create_storage(server.url, **right).upload_file(source, where, keep_stored).length == 7
        for wrong in ({"secret_access_key": "wrong"}, {"access_key_id": "AKIANOBODY"}):
            with pytest.raises(AuthenticationFailed, match=r"HTTP 403.*\[s3\] access_key_id"):
                create_storage(server.url, **right | wrong).download_file(where, tmp_path / "target")
            with pytest.raises(AuthenticationFailed, match=r"HTTP 403.*\[s3\] access_key_id"):
                create_storage(server.url, **right | wrong).upload_file(source, s3_location("other.mp4"), keep_stored)
    finally:
        requests.post(f"{server.url}/moto-api/reset-auth", data=b"inf", timeout=10).raise_for_status()
    assert create_storage(server.url).head(s3_location("other.mp4")) is None


@pytest.mark.parametrize("lacking", ["access_key_id", "secret_access_key"])
def test_incomplete_keys_are_reported(server: S3Server, lacking: str) -> None:
    with pytest.raises(AccessDenied, match="secret_access_key"):
        create_storage(server.url, **{lacking: ""}).head(s3_location("a.mp4"))


def test_missing_profile_is_reported(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(AccessDenied, match="ProfileNotFound"):
        create_storage(server.url, access_key_id="", secret_access_key="").head(s3_location("a.mp4"))


def test_host_name_refused_by_boto3_is_reported() -> None:
    with pytest.raises(AccessDenied, match="endpoint_url"):
        create_storage("http://under_score:9000").head(s3_location("a.mp4"))
