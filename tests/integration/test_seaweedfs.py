"""S3 storage against a real SeaweedFS: which rights the keys need, and what is said when one of them lacks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.s3 import BUCKET, Server, keep, place, replace, written
from tests.support.s3 import storage as any_storage
from tests.support.seaweedfs import ADMIN, LONG_TIER, SeaweedFS, key_of, secret_of

from muxer.errors import AccessDenied, PlaceClosed, StoredElsewhere
from muxer.storage.s3 import S3Storage

pytestmark = [LONG_TIER, pytest.mark.usefixtures("models_read_once", "no_keys_around")]
OTHER, USER = "other-bucket", "muxer"
# As docs/s3.md names them; the bucket itself may be listed only with a further one.
RIGHTS = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs"), {USER: [f"{one}:{OTHER}" for one in ("Read", "Write")]}) as running:
        made = Server(running.url, key_of(ADMIN), secret_of(ADMIN))
        for bucket in (BUCKET, OTHER):
            made.client.create_bucket(Bucket=bucket)
        yield made


@pytest.fixture
def allow(admin: Server) -> Iterator[Callable[..., S3Storage]]:
    """Return a function that gives the keys of the user these rights in the bucket, and returns a storage with the keys."""

    def give(*rights: str, bucket_rights: tuple[str, ...] = ()) -> S3Storage:
        user = {"AWS": [f"arn:aws:iam::000000000000:user/{USER}"]}
        given = [(rights, f"arn:aws:s3:::{BUCKET}/*"), (bucket_rights, f"arn:aws:s3:::{BUCKET}")]
        statements: list[dict[str, Any]] = [
            {"Effect": "Allow", "Principal": user, "Action": list(some), "Resource": [where]}
            for some, where in given
            if some
        ]
        policy = {"Version": "2012-10-17", "Statement": statements}
        admin.client.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
        return any_storage(admin.url, access_key_id=key_of(USER), secret_access_key=secret_of(USER))

    yield give
    admin.client.delete_bucket_policy(Bucket=BUCKET)
    for key in admin.objects():
        admin.client.delete_object(Bucket=BUCKET, Key=key)


Allow = Callable[..., S3Storage]


@pytest.mark.usefixtures("small_parts")
def test_the_documented_rights_suffice(
    admin: Server, allow: Allow, tmp_path: Path, large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, where = allow(*RIGHTS, bucket_rights=("s3:ListBucket",)), place("all.mp4")
    with caplog.at_level(logging.WARNING):
        assert store.describe(where) is None and store.has_folder(where) and store.may_list(where)
        assert store.store(large, where, keep).length == large.stat().st_size
        store.fetch(where, tmp_path / "target")
        store.try_parts(place("parts.mp4"))
        assert admin.content("screens/all.mp4") == large.read_bytes() == (tmp_path / "target").read_bytes()
        store.delete(where)
    assert admin.objects() == [] and admin.parts() == 0
    assert not [one for one in caplog.records if one.name.startswith("muxer")]


def test_without_the_right_to_list_everything_is_stored(admin: Server, allow: Allow, tmp_path: Path) -> None:
    store, where, source = allow(*RIGHTS), place("unlisted.mp4"), written(tmp_path / "source", b"content")
    assert not store.may_list(where)
    assert store.store(source, where, keep).length == 7 and admin.content("screens/unlisted.mp4") == b"content"
    with pytest.raises(StoredElsewhere):
        store.store(source, where, keep)
    store.delete(where)
    assert store.describe(where) is None and admin.objects() == []


@pytest.mark.parametrize("lacking", [one for one in RIGHTS if "Abort" not in one])  # who may upload may abort, there
def test_each_right_is_needed_and_named(admin: Server, allow: Allow, tmp_path: Path, lacking: str) -> None:
    store = allow(*(one for one in RIGHTS if one != lacking), bucket_rights=("s3:ListBucket",))
    source, where = written(tmp_path / "source", b"content"), place("lacking.mp4")
    with pytest.raises(AccessDenied, match=f"lack the right {lacking}"):
        store.store(source, where, replace)
        store.fetch(where, tmp_path / "x")
        store.delete(where)


def test_what_the_keys_may_not_see_is_not_overwritten(admin: Server, allow: Allow, tmp_path: Path) -> None:
    admin.client.put_object(Bucket=BUCKET, Key="screens/hidden.mp4", Body=b"of another muxer")
    store, source = allow("s3:PutObject"), written(tmp_path / "source", b"ours")
    with pytest.raises(StoredElsewhere):
        store.store(source, place("hidden.mp4"), keep)
    assert admin.content("screens/hidden.mp4") == b"of another muxer"
    with pytest.raises(AccessDenied, match="lack the right s3:GetObject to read it back"):
        store.store(source, place("new.mp4"), keep)


def test_a_bucket_without_rights_holds_back_no_other(admin: Server, allow: Allow, tmp_path: Path) -> None:
    store, source = allow("s3:ListBucketVersions"), written(tmp_path / "source", b"x")
    with pytest.raises(PlaceClosed, match="lack the right s3:GetObject"):
        store.fetch(place("a.mp4"), tmp_path / "x")
    with pytest.raises(AccessDenied, match="lack the right s3:PutObject"):
        store.store(source, place("a.mp4"), keep)
    assert store.store(source, place("a.mp4", OTHER), keep).length == 1
    assert admin.objects() == []
