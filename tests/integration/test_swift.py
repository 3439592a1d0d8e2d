"""S3 storage against a real OpenStack Swift: the signature region of the site, its keys and its clock."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.auth
import pytest

from muxer.errors import AccessDenied, AuthenticationFailed
from muxer.storage import s3_failures
from muxer.storage.s3 import S3Storage
from tests.support import swift
from tests.support.s3 import BUCKET, S3Server, keep_stored, replace_stored, s3_location, write_file
from tests.support.s3 import create_storage as any_storage
from tests.support.swift import Swift

pytestmark = pytest.mark.usefixtures("models_read_once", "no_keys_around")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with Swift(tmp_path_factory.mktemp("swift")) as running:
        swift_server = S3Server(running.url, swift.KEY, swift.SECRET, region=swift.REGION)
        swift_server.client.create_bucket(Bucket=BUCKET)
        yield swift_server


def swift_storage(server: S3Server, **options: Any) -> S3Storage:
    given = {"access_key_id": swift.KEY, "secret_access_key": swift.SECRET, "region": swift.REGION}
    return any_storage(server.url, **given | options)


@pytest.mark.parametrize("region", ["", "eu-central-1"], ids=["empty", "wrong"])
@pytest.mark.parametrize("first", ["store", "describe", "fetch", "delete", "has_folder"])
def test_required_region_is_used_and_reported_once(
    server: S3Server, tmp_path: Path, region: str, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    """For any first request: for a recording with sources from RCS it is a HEAD, whose response contains no cause."""
    server.client.put_object(Bucket=BUCKET, Key="screens/there.mp4", Body=b"screen")
    source, store = write_file(tmp_path / "source", b"content"), swift_storage(server, region=region)
    with caplog.at_level(logging.WARNING):
        if first == "store":
            assert store.upload_file(source, s3_location("new.mp4"), replace_stored).length == 7
        elif first == "fetch":
            assert store.download_file(s3_location("there.mp4"), tmp_path / "x") == 6
        elif first == "delete":
            store.delete_file(s3_location("there.mp4"))
        elif first == "describe":
            found = store.head(s3_location("there.mp4"))
            assert found is not None and found.length == 6
        else:
            assert store.has_folder(s3_location("there.mp4"))
        assert store.upload_file(source, s3_location("second.mp4"), replace_stored).length == 7
    assert server.read_object("screens/second.mp4") == b"content"
    assert store.wanted_region(s3_location("there.mp4")) == swift.REGION
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("muxer")]
    assert f"set [s3] region = {swift.REGION}" in line and BUCKET in line


def test_correct_region_needs_no_warning(server: S3Server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = swift_storage(server)
    with caplog.at_level(logging.WARNING):
        assert (
            store.upload_file(write_file(tmp_path / "source", b"content"), s3_location("right.mp4"), keep_stored).length == 7
        )
    assert not [record for record in caplog.records if record.name.startswith("muxer")] and not store.wanted_region(
        s3_location("x")
    )


@pytest.mark.parametrize(("minutes", "relation"), [(-25, "behind"), (25, "ahead of")], ids=["behind", "ahead"])
def test_wrong_clock_is_not_reported_as_wrong_keys(
    server: S3Server, tmp_path: Path, minutes: int, relation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = datetime.now(UTC) + timedelta(minutes=minutes)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda **_: wrong.replace(tzinfo=None))
    monkeypatch.setattr(s3_failures, "_utc_now", lambda: wrong)
    store, source = swift_storage(server), write_file(tmp_path / "source", b"x")
    for tried in (
        lambda: store.head(s3_location("a.mp4")),
        lambda: store.download_file(s3_location("a.mp4"), tmp_path / "x"),
        lambda: store.upload_file(source, s3_location("clock.mp4"), keep_stored),
    ):
        with pytest.raises(AccessDenied, match=rf"the clock of this machine is wrong, 1\d\d\d s {relation} that") as caught:
            tried()
        assert not isinstance(caught.value, AuthenticationFailed)
    monkeypatch.undo()
    assert store.upload_file(source, s3_location("clock.mp4"), replace_stored).length == 1


@pytest.mark.parametrize("wrong", [{"secret_access_key": "wrong"}, {"access_key_id": "recordings:nobody"}])
def test_wrong_keys_are_reported_after_a_head(server: S3Server, wrong: dict[str, str]) -> None:
    with pytest.raises(AuthenticationFailed, match=r"SignatureDoesNotMatch; check \[s3\] access_key_id"):
        swift_storage(server, **wrong).head(s3_location("a.mp4"))
