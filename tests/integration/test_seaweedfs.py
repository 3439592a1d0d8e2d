"""S3 storage against a real SeaweedFS: the permissions that the keys need, and the message when one is missing."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from muxer.errors import AccessDenied, PathForbidden, StoredByOtherMuxer
from muxer.storage.s3 import S3Storage
from tests.support.s3 import BUCKET, S3Server, keep_stored, replace_stored, s3_location, write_file
from tests.support.s3 import create_storage as any_storage
from tests.support.seaweedfs import ADMIN, LONG_TIER, SeaweedFS, access_key, secret_key

pytestmark = [LONG_TIER, pytest.mark.usefixtures("models_read_once", "no_keys_around")]
OTHER, USER = "other-bucket", "muxer"
# As in docs/s3.md; listing the bucket itself needs a further permission.
RIGHTS = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs"), {USER: [f"{one}:{OTHER}" for one in ("Read", "Write")]}) as running:
        store = S3Server(running.url, access_key(ADMIN), secret_key(ADMIN))
        for bucket in (BUCKET, OTHER):
            store.client.create_bucket(Bucket=bucket)
        yield store


@pytest.fixture
def allow(admin: S3Server) -> Iterator[Callable[..., S3Storage]]:
    """Return a function that grants the user's keys permissions in the bucket and returns a storage with the keys."""

    def grant_rights(*rights: str, bucket_rights: tuple[str, ...] = ()) -> S3Storage:
        user = {"AWS": [f"arn:aws:iam::000000000000:user/{USER}"]}
        given = [(rights, f"arn:aws:s3:::{BUCKET}/*"), (bucket_rights, f"arn:aws:s3:::{BUCKET}")]
        statements: list[dict[str, Any]] = [
            {"Effect": "Allow", "Principal": user, "Action": list(some), "Resource": [where]}
            for some, where in given
            if some
        ]
        policy = {"Version": "2012-10-17", "Statement": statements}
        admin.client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
        return any_storage(admin.url, access_key_id=access_key(USER), secret_access_key=secret_key(USER))

    yield grant_rights
    admin.client.delete_bucket_policy(Bucket=BUCKET)
    for key in admin.list_objects():
        admin.client.delete_object(Bucket=BUCKET, Key=key)


Allow = Callable[..., S3Storage]


@pytest.mark.usefixtures("small_parts")
def test_documented_permissions_suffice(
    admin: S3Server, allow: Allow, tmp_path: Path, large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, where = allow(*RIGHTS, bucket_rights=("s3:ListBucket",)), s3_location("all.mp4")
    with caplog.at_level(logging.WARNING):
        assert store.head(where) is None and store.has_folder(where) and store.may_list(where)
        assert store.upload_file(large, where, keep_stored).length == large.stat().st_size
        store.download_file(where, tmp_path / "target")
        store.try_multipart(s3_location("parts.mp4"))
        assert admin.read_object("screens/all.mp4") == large.read_bytes() == (tmp_path / "target").read_bytes()
        store.delete_file(where)
    assert admin.list_objects() == [] and admin.count_open_uploads() == 0
    assert not [record for record in caplog.records if record.name.startswith("muxer")]


def test_everything_is_stored_without_list_permission(admin: S3Server, allow: Allow, tmp_path: Path) -> None:
    store, where, source = allow(*RIGHTS), s3_location("unlisted.mp4"), write_file(tmp_path / "source", b"content")
    assert not store.may_list(where)
    assert (
        store.upload_file(source, where, keep_stored).length == 7 and admin.read_object("screens/unlisted.mp4") == b"content"
    )
    with pytest.raises(StoredByOtherMuxer):
        store.upload_file(source, where, keep_stored)
    store.delete_file(where)
    assert store.head(where) is None and admin.list_objects() == []


@pytest.mark.parametrize("lacking", [one for one in RIGHTS if "Abort" not in one])  # upload permission includes abort
def test_each_permission_is_needed_and_named(admin: S3Server, allow: Allow, tmp_path: Path, lacking: str) -> None:
    store = allow(*(one for one in RIGHTS if one != lacking), bucket_rights=("s3:ListBucket",))
    source, where = write_file(tmp_path / "source", b"content"), s3_location("lacking.mp4")
    with pytest.raises(AccessDenied, match=f"lack the right {lacking}"):
        store.upload_file(source, where, replace_stored)
        store.download_file(where, tmp_path / "x")
        store.delete_file(where)


def test_objects_invisible_to_keys_are_not_overwritten(admin: S3Server, allow: Allow, tmp_path: Path) -> None:
    admin.client.put_object(Bucket=BUCKET, Key="screens/hidden.mp4", Body=b"of another muxer")
    store, source = allow("s3:PutObject"), write_file(tmp_path / "source", b"ours")
    with pytest.raises(StoredByOtherMuxer):
        store.upload_file(source, s3_location("hidden.mp4"), keep_stored)
    assert admin.read_object("screens/hidden.mp4") == b"of another muxer"
    with pytest.raises(AccessDenied, match="lack the right s3:GetObject to read it back"):
        store.upload_file(source, s3_location("new.mp4"), keep_stored)


def test_bucket_without_permissions_affects_no_other(admin: S3Server, allow: Allow, tmp_path: Path) -> None:
    store, source = allow("s3:ListBucketVersions"), write_file(tmp_path / "source", b"x")
    with pytest.raises(PathForbidden, match="lack the right s3:GetObject"):
        store.download_file(s3_location("a.mp4"), tmp_path / "x")
    with pytest.raises(AccessDenied, match="lack the right s3:PutObject"):
        store.upload_file(source, s3_location("a.mp4"), keep_stored)
    assert store.upload_file(source, s3_location("a.mp4", OTHER), keep_stored).length == 1
    assert admin.list_objects() == []
