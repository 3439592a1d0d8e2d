"""S3 storage against a real s3rver, over http and https: it refuses unknown keys, and keeps the marks of aws-chunked.

Its limits: it accepts any secret for a known key, and cannot list or abort unfinished uploads; moto can.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from muxer.errors import AuthenticationFailed, ServiceUnavailable, Stopped
from muxer.storage import s3
from muxer.storage.base import parse_descriptor
from muxer.storage.s3 import S3Storage
from tests.support.s3 import BUCKET, MIB, DelayedStop, S3Server, keep_stored, replace_stored, s3_location, write_file
from tests.support.s3 import create_storage as any_storage
from tests.support.s3rver import KEY, SECRET, S3rver
from tests.support.tls import HOST, pem_bundle, self_signed

pytestmark = pytest.mark.usefixtures("models_read_once", "no_keys_around")


@dataclass
class S3rverStore:
    """A running s3rver; over https ``trusted_ca`` is the file with its certificate."""

    rver: S3rver
    trusted_ca: Path | None

    @property
    def server(self) -> S3Server:
        return S3Server(self.rver.url, KEY, SECRET, self.trusted_ca)

    def create_storage(self, **options: Any) -> S3Storage:
        given = {"access_key_id": KEY, "secret_access_key": SECRET, "trusted_ca": self.trusted_ca}
        return any_storage(self.rver.url, **given | options)


@pytest.fixture(scope="module", params=["http", "https"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3rverStore]:
    folder, certificate = tmp_path_factory.mktemp(request.param), self_signed("store", HOST)
    trusted_ca = write_file(folder / "ca.pem", pem_bundle(certificate)) if request.param == "https" else None
    with S3rver(folder / "s3rver", BUCKET, certificate=certificate if trusted_ca else None) as rver:
        yield S3rverStore(rver, trusted_ca)


@pytest.mark.parametrize("length", [0, 1, 1000, 3 * MIB])
def test_the_bytes_are_exact(store: S3rverStore, tmp_path: Path, length: int) -> None:
    source = write_file(tmp_path / "source", b"\x00\xff1b" * (length // 4) + b"x" * (length % 4))
    store.create_storage().upload_file(source, s3_location(f"{length}.mp4"), replace_stored)
    assert store.server.read_object(f"screens/{length}.mp4") == source.read_bytes()


def test_store_keeps_aws_chunked_marks_over_https(store: S3rverStore) -> None:
    server = store.server
    server.client.put_object(Bucket=BUCKET, Key="trap", Body=b"x" * 1000)
    assert len(server.read_object("trap")) == (1043 if store.trusted_ca else 1000)


def test_large_file_is_uploaded_in_parts(store: S3rverStore, tmp_path: Path) -> None:
    source, storage, where = tmp_path / "source", store.create_storage(), s3_location("large.mp4")
    with source.open("wb") as file:
        file.write(b"begin")
        file.truncate(s3.MULTIPART_BYTES + 12)
    operations: list[str] = []
    storage._shared_client.meta.events.register("before-call.s3", lambda model, **_: operations.append(model.name))
    assert storage.upload_file(source, where, keep_stored).length == s3.MULTIPART_BYTES + 12
    in_parts = ["CreateMultipartUpload", "UploadPart", "UploadPart", "CompleteMultipartUpload"]
    assert operations == ["HeadObject", *in_parts, "HeadObject"]
    assert storage.download_file(where, tmp_path / "target") == s3.MULTIPART_BYTES + 12
    assert (tmp_path / "target").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    "tried", [lambda one: one.head(s3_location("a.mp4")), lambda one: one.delete_file(s3_location("a.mp4"))]
)
def test_unknown_key_is_refused_and_reported(store: S3rverStore, tried: Callable[[S3Storage], object]) -> None:
    storage = store.create_storage(access_key_id="NOBODY")
    with pytest.raises(AuthenticationFailed, match=r"HTTP 403.*\[s3\] access_key_id"):
        tried(storage)
    with pytest.raises(AuthenticationFailed, match="moment ago"):
        tried(storage)


def test_an_unknown_key_stores_and_fetches_nothing(store: S3rverStore, tmp_path: Path) -> None:
    source, where = write_file(tmp_path / "source", b"x"), s3_location("refused.mp4")
    with pytest.raises(AuthenticationFailed, match=r"\[s3\] access_key_id"):
        store.create_storage(access_key_id="NOBODY").upload_file(source, where, replace_stored)
    with pytest.raises(AuthenticationFailed, match="InvalidAccessKeyId"):
        store.create_storage(access_key_id="NOBODY").download_file(where, tmp_path / "target")
    assert store.create_storage().head(where) is None and not (tmp_path / "target").exists()


def test_a_descriptor_with_a_long_prefix_names_its_object(store: S3rverStore, tmp_path: Path) -> None:
    where = parse_descriptor({"storage": "awsS3", "path": "calls/2026/07 ü/deep.mp3", "data": {"bucket": BUCKET}})
    store.create_storage().upload_file(write_file(tmp_path / "source", b"x"), where, replace_stored)
    assert store.server.read_object("calls/2026/07 ü/deep.mp3") == b"x"


def test_untrusted_store_is_refused(store: S3rverStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    other = write_file(tmp_path / "other.pem", pem_bundle(self_signed("other", HOST)))
    if store.trusted_ca is None:
        assert store.create_storage(trusted_ca=other).head(s3_location("trust.mp4")) is None
        return
    for wrong in (other, True, None):
        with pytest.raises(ServiceUnavailable, match=r"certificate verify failed.*check \[s3\] trusted_ca"):
            store.create_storage(trusted_ca=wrong).head(s3_location("trust.mp4"))
    for right in (store.trusted_ca, False):
        assert store.create_storage(trusted_ca=right).head(s3_location("trust.mp4")) is None


@pytest.mark.usefixtures("small_parts")
def test_a_stop_ends_an_upload_in_parts(store: S3rverStore, large: Path) -> None:
    looks: list[str] = []
    with pytest.raises(Stopped):
        store.create_storage(stop=DelayedStop(30, lambda: looks.append("looked"))).upload_file(
            large, s3_location("stopped.mp4"), keep_stored
        )
    assert looks and store.create_storage().head(s3_location("stopped.mp4")) is None


@pytest.mark.usefixtures("small_parts")
def test_store_that_cannot_abort_uploads_is_reported_once(
    store: S3rverStore, tmp_path: Path, large: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (notes := tmp_path / "uploading").mkdir()
    with pytest.raises(Stopped):
        storage = store.create_storage(stop=DelayedStop(30, lambda: None), uploading=notes)
        storage.upload_file(large, s3_location("stopped.mp4"), keep_stored)
    assert len(list(notes.iterdir())) == 1
    with caplog.at_level(logging.WARNING):
        store.create_storage(uploading=notes).remove_leftovers()
        store.create_storage(uploading=notes).remove_leftovers()
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("muxer")]
    assert "405" in line and "stopped.mp4" in line
    assert not list(notes.iterdir())


@pytest.mark.usefixtures("small_parts")
def test_interrupted_upload_is_repeated_when_store_is_available_again(
    tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    with S3rver(tmp_path / "s3rver", BUCKET) as rver:
        store, where = S3rverStore(rver, None), s3_location("broken.mp4")
        storage = store.create_storage()
        storage._shared_client.meta.events.register("after-call.s3.UploadPart", lambda **_: rver.stop())
        with pytest.raises(ServiceUnavailable):
            storage.upload_file(large, where, keep_stored)
        rver.start()
        assert store.server.list_objects() == []
        assert store.create_storage().upload_file(large, where, keep_stored).length == large.stat().st_size
        assert store.server.read_object("screens/broken.mp4") == large.read_bytes()
