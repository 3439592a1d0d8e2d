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
from tests.support.moto_server import moto_server
from tests.support.s3 import BUCKET, KEY, MIB, SECRET, Server, StopLater, keep, place, replace, storage, written
from tests.support.s3_door import Refusal, door

from muxer import transfer
from muxer.errors import (
    AccessDenied,
    LoginRefused,
    MetadataError,
    MuxerError,
    ServiceUnavailable,
    Stopped,
)
from muxer.outages import FAILURES_IN_A_ROW, Outages
from muxer.storage import s3
from muxer.storage.base import place_of
from muxer.storage.notes import Notes

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
pytestmark = pytest.mark.usefixtures("models_read_once", "no_keys_around")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with moto_server() as url:
        made = Server(url)
        made.client.create_bucket(Bucket=BUCKET)
        yield made


@contextmanager
def refusing(query: str, status: int) -> Iterator[str]:
    """Yield the address of a second door to moto, which refuses requests with this query, and they only."""
    with door(lambda asked: Refusal(status) if query in asked.query else None) as url:
        yield url


def test_a_fetched_object_bears_the_time_of_its_last_modification(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muxer.transfer.JUST_NOW_SECONDS", -1.0)
    store, before = storage(server.url), time.time()
    store.store(written(tmp_path / "source", b"x"), place("new.mp4"), keep)
    modified = store.fetch(place("new.mp4"), tmp_path / "x").modified
    assert modified is not None and abs(modified - before) < 3600


@pytest.mark.parametrize("path", ["no-folder.mp4", "/slash.mp4", "a//b.mp4", "calls/2026/07/deep.mp4", "a/../dots.mp4"])
def test_any_prefix_is_kept(server: Server, tmp_path: Path, path: str) -> None:
    where = place_of({"storage": "awsS3", "path": path, "data": {"bucket": BUCKET}})
    storage(server.url).store(written(tmp_path / "source", b"x"), where, replace)
    assert server.content(path) == b"x"
    assert where.descriptor == {"storage": "awsS3", "path": path, "data": {"bucket": BUCKET}}


@pytest.mark.parametrize("size", [1000, 6 * MIB])
def test_a_missing_bucket_is_said(
    server: Server, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "MULTIPART_BYTES", 5 * MIB)
    store, nowhere = storage(server.url), place("a.mp4", bucket="no-such-bucket")
    with pytest.raises(ServiceUnavailable, match="bucket does not exist"):
        store.fetch(nowhere, tmp_path / "x")
    with pytest.raises(ServiceUnavailable, match="bucket does not exist"):
        store.store(written(tmp_path / "source", b"x" * size), nowhere, keep)


def test_a_missing_bucket_holds_back_no_other_bucket(server: Server, tmp_path: Path) -> None:
    outages = Outages()
    store = storage(server.url, outages=outages)
    for _ in range(FAILURES_IN_A_ROW):
        with pytest.raises(ServiceUnavailable):
            store.fetch(place("a.mp4", bucket="no-such-bucket"), tmp_path / "x")
    assert list(outages.now_out()) == ["S3 bucket no-such-bucket"]
    assert outages.admit([place("a.mp4").service])


@pytest.mark.parametrize("bucket", ["no bucket at all", "a/b"])
def test_a_bucket_that_cannot_be_is_an_error_of_the_metadata(server: Server, tmp_path: Path, bucket: str) -> None:
    with pytest.raises(MetadataError):
        storage(server.url).fetch(place("a.mp4", bucket=bucket), tmp_path / "x")


@pytest.mark.usefixtures("small_parts")
def test_a_large_file_goes_in_parts_both_ways(server: Server, tmp_path: Path, large: Path) -> None:
    store, where = storage(server.url), place("large.mp4")
    stored = store.store(large, where, keep)
    assert stored.tag.strip('"').endswith("-3")
    assert server.content("screens/large.mp4") == large.read_bytes()
    assert store.fetch(where, tmp_path / "target") == large.stat().st_size
    assert (tmp_path / "target").read_bytes() == large.read_bytes()
    assert server.parts() == 0


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("operation", ["UploadPart", "CompleteMultipartUpload"])
def test_no_parts_are_left_when_an_upload_fails(
    server: Server, large: Path, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    store, seen = storage(server.url), []

    def fail(**_: Any) -> None:
        seen.append(server.parts())
        raise ConnectionClosedError(endpoint_url=server.url)

    store._client.meta.events.register(f"before-send.s3.{operation}", fail)
    with pytest.raises(ServiceUnavailable):
        store.store(large, place("failed.mp4"), keep)
    assert seen == [1]
    assert server.parts() == 0 and store.describe(place("failed.mp4")) is None


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("status", [400, 503])
def test_no_parts_are_left_when_the_store_refuses_one(
    server: Server, tmp_path: Path, large: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    (notes := tmp_path / "uploading").mkdir()
    with refusing("partNumber=2", status) as url, pytest.raises(MuxerError, match=f"HTTP {status}"):
        storage(url, uploading=notes).store(large, place("refused.mp4"), keep)
    assert server.parts() == 0 and "screens/refused.mp4" not in server.objects()
    storage(server.url, uploading=notes).remove_left_overs()
    assert not list(notes.iterdir())


DIES = """
import os, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
from tests.support import s3
from muxer.storage import s3 as product
product.MULTIPART_BYTES = 5 * s3.MIB
stop = s3.StopLater(30, lambda: os.kill(os.getpid(), 9))
s3.storage({url!r}, stop, Path({notes!r})).store(Path({large!r}), s3.place("died.mp4"), s3.keep)
"""


def test_the_parts_of_a_killed_process_are_given_up(server: Server, tmp_path: Path, large: Path) -> None:
    (notes := tmp_path / "uploading").mkdir()
    where = {"root": str(ROOT), "tests": str(ROOT / "tests"), "url": server.url, "notes": str(notes), "large": str(large)}
    killed = subprocess.run([sys.executable, "-c", DIES.format(**where)], capture_output=True, check=False, timeout=60)
    assert killed.returncode == -9, killed.stderr
    foreign = server.client.create_multipart_upload(Bucket=BUCKET, Key="screens/died.mp4")["UploadId"]
    assert server.parts() == 2 and len(list(notes.iterdir())) == 1
    storage(server.url, uploading=notes).remove_left_overs()
    (left,) = server.client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]
    assert left["UploadId"] == foreign and not list(notes.iterdir())
    server.client.abort_multipart_upload(Bucket=BUCKET, Key="screens/died.mp4", UploadId=foreign)


def test_parts_that_cannot_be_given_up_now_are_given_up_later(server: Server, tmp_path: Path) -> None:
    (notes := tmp_path / "uploading").mkdir()
    upload = server.client.create_multipart_upload(Bucket=BUCKET, Key="screens/later.mp4")["UploadId"]
    with pytest.raises(Stopped), Notes(notes, "awsS3").during(place("later.mp4"), upload):
        raise Stopped("and the store was out of reach")
    storage(server.url, uploading=notes, access_key_id="").remove_left_overs()
    assert server.parts() == 1 and len(list(notes.iterdir())) == 1
    storage(server.url, uploading=notes).remove_left_overs()
    assert server.parts() == 0 and not list(notes.iterdir())


@pytest.mark.usefixtures("small_parts")
def test_an_upload_under_way_is_noted_and_left_alone(server: Server, tmp_path: Path, large: Path) -> None:
    (notes := tmp_path / "uploading").mkdir()
    store, seen = storage(server.url, uploading=notes), []

    def look(**_: Any) -> None:
        store.remove_left_overs()
        seen.append((len(list(notes.iterdir())), server.parts()))

    store._client.meta.events.register("before-call.s3.UploadPart", look)
    assert store.store(large, place("noted.mp4"), keep).length == large.stat().st_size
    assert seen == [(1, 1)] * 3 and not list(notes.iterdir())


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(("size", "looks", "unfinished"), [(12 * MIB, 30, 1), (3 * MIB, 5, 0)], ids=["parts", "whole"])
def test_a_stop_ends_an_upload_and_leaves_nothing(
    server: Server, tmp_path: Path, size: int, looks: int, unfinished: int
) -> None:
    seen: list[int] = []
    stop = StopLater(looks, lambda: seen.append(server.parts()))
    store = storage(server.url, stop)
    requests: list[str] = []
    store._client.meta.events.register("before-send.s3", lambda request, **_: requests.append(request.method))
    with pytest.raises(Stopped):
        store.store(written(tmp_path / "source", b"x" * size), place("stopped.mp4"), keep)
    assert seen == [unfinished]
    assert requests == (["HEAD", "POST", "PUT", "PUT", "DELETE"] if unfinished else ["HEAD", "PUT"])
    assert server.parts() == 0 and store.describe(place("stopped.mp4")) is None


def test_a_stopped_process_uploads_nothing(server: Server, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        storage(server.url, stop).store(written(tmp_path / "source", b"x"), place("late.mp4"), replace)
    assert storage(server.url).describe(place("late.mp4")) is None


@pytest.mark.usefixtures("small_parts")
def test_an_upload_that_takes_too_long_is_given_up(server: Server, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StopLater(30, lambda: monkeypatch.setattr(transfer, "check_progress", too_slow))
    with pytest.raises(ServiceUnavailable, match="time limit"):
        storage(server.url, Unset(clock)).store(large, place("slow.mp4"), keep)
    assert server.parts() == 0


class Unset(threading.Event):
    """An event that is never set, but looks at another."""

    def __init__(self, other: threading.Event) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        self._other.is_set()
        return False


def too_slow(_deadline: float, what: str, _stop: threading.Event) -> None:
    raise ServiceUnavailable(f"{what} took longer than its time limit")


def test_no_keys_are_said_and_looked_for_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = storage(server.url, access_key_id="", secret_access_key="")
    for _ in range(2):
        with pytest.raises(AccessDenied, match=r"\[s3\] access_key_id and secret_access_key"):
            store.store(written(tmp_path / "source", b"x"), place("a.mp4"), keep)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert store.store(tmp_path / "source", place("keys.mp4"), keep).length == 1


def test_a_wrong_secret_is_refused_and_said(server: Server, tmp_path: Path) -> None:
    iam: Any = boto3.client("iam", endpoint_url=server.url, region_name="us-east-1", **KEYS)
    iam.create_user(UserName="muxer")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.put_user_policy(UserName="muxer", PolicyName="all", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName="muxer")["AccessKey"]
    right = {"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}
    source, where = written(tmp_path / "source", b"content"), place("secret.mp4")
    # From now on moto checks the keys, their signatures and their rights.
    requests.post(f"{server.url}/moto-api/reset-auth", data=b"0", timeout=10).raise_for_status()
    try:
        assert storage(server.url, **right).store(source, where, keep).length == 7
        for wrong in ({"secret_access_key": "wrong"}, {"access_key_id": "AKIANOBODY"}):
            with pytest.raises(LoginRefused, match=r"HTTP 403.*\[s3\] access_key_id"):
                storage(server.url, **right | wrong).fetch(where, tmp_path / "target")
            with pytest.raises(LoginRefused, match=r"HTTP 403.*\[s3\] access_key_id"):
                storage(server.url, **right | wrong).store(source, place("other.mp4"), keep)
    finally:
        requests.post(f"{server.url}/moto-api/reset-auth", data=b"inf", timeout=10).raise_for_status()
    assert storage(server.url).describe(place("other.mp4")) is None


@pytest.mark.parametrize("lacking", ["access_key_id", "secret_access_key"])
def test_half_of_the_keys_is_said(server: Server, lacking: str) -> None:
    with pytest.raises(AccessDenied, match="secret_access_key"):
        storage(server.url, **{lacking: ""}).describe(place("a.mp4"))


def test_a_profile_that_is_not_there_is_said(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(AccessDenied, match="ProfileNotFound"):
        storage(server.url, access_key_id="", secret_access_key="").describe(place("a.mp4"))


def test_a_host_name_that_boto3_refuses_is_said() -> None:
    with pytest.raises(AccessDenied, match="endpoint_url"):
        storage("http://under_score:9000").describe(place("a.mp4"))
