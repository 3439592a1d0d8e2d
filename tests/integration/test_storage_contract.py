"""The contract of every storage, with every kind of store, checked by the content of the store itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from muxer.errors import AccessDenied, MediaNotFound, MuxerError, Stopped, StoredByOtherMuxer, Transient
from muxer.storage.base import Storage
from tests.support.s3 import MIB, DelayedStop, keep_stored, replace_stored, write_file
from tests.support.stores import FILE_NAMES, STORES, RealStore
from tests.support.tiers import spread_variants

pytestmark = pytest.mark.usefixtures("models_read_once", "no_keys_around")


# What the others show for each protocol, these show, too.
ALSO = ("apache", "lighttpd that ignores case", "moto")


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.long) if name in ALSO else name for name in STORES]
)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStore]:
    with STORES[request.param](tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def store(running: RealStore) -> Iterator[RealStore]:
    """Return a running, empty store, and empty it after the test."""
    assert running.stored_lengths() == {}
    yield running
    for name in running.stored_lengths():
        running.create_storage().delete_file(running.location_of(name))


@pytest.mark.parametrize("name", spread_variants(FILE_NAMES, 8))
def test_a_file_of_any_name_is_stored_described_fetched_and_deleted(store: RealStore, tmp_path: Path, name: str) -> None:
    source, target, storage, location = (
        tmp_path / "source",
        tmp_path / "target",
        store.create_storage(),
        store.location_of(name),
    )
    write_file(source, name.encode() * 1000)
    assert storage.head(location) is None
    stored = storage.upload_file(source, location, keep_stored)
    assert store.stored_lengths() == {name: source.stat().st_size} and store.read_content(name) == source.read_bytes()
    assert stored.length == source.stat().st_size and storage.head(location) == stored
    assert storage.download_file(location, target) == stored.length
    assert target.read_bytes() == source.read_bytes()
    storage.delete_file(location)
    assert store.stored_lengths() == {} and storage.head(location) is None


def test_similar_names_are_different_files(store: RealStore, tmp_path: Path) -> None:
    storage, names = store.create_storage(), [*store.odd_names, "a b.mp4", "a+b.mp4", "a%20b.mp4", "a.mp4", "a.mp4.bin"]
    names += [] if store.ignores_case else ["A.mp4"]
    for name in names:
        storage.upload_file(write_file(tmp_path / "source", name.encode()), store.location_of(name), keep_stored)
        assert storage.download_file(store.location_of(name), tmp_path / "target") == len(name.encode())
    assert {name: store.read_content(name) for name in store.stored_lengths()} == {name: name.encode() for name in names}
    for name in names:
        storage.delete_file(store.location_of(name))
        assert name not in store.stored_lengths()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("length", [0, 1, 12 * MIB + 13])
def test_the_bytes_are_exact(store: RealStore, tmp_path: Path, length: int) -> None:
    source = write_file(tmp_path / "source", (bytes(range(256)) * (length // 256 + 1))[:length])
    storage, location = store.create_storage(), store.location_of("exact.mp4")
    assert storage.upload_file(source, location, keep_stored).length == length
    assert store.stored_lengths() == {"exact.mp4": length} and store.read_content("exact.mp4") == source.read_bytes()
    if length:  # an empty source has a separate error
        assert storage.download_file(location, tmp_path / "target") == length
        assert (tmp_path / "target").read_bytes() == source.read_bytes()


def test_stored_file_is_replaced_only_when_allowed(store: RealStore, tmp_path: Path) -> None:
    first, second = write_file(tmp_path / "first", b"first"), write_file(tmp_path / "second", b"second!")
    storage, location = store.create_storage(), store.location_of("taken.mp4")
    before = storage.upload_file(first, location, keep_stored)
    with pytest.raises(StoredByOtherMuxer):
        store.create_storage().upload_file(second, location, keep_stored)
    assert store.read_content("taken.mp4") == b"first" and storage.head(location) == before
    after = storage.upload_file(second, location, replace_stored)
    assert store.stored_lengths() == {"taken.mp4": 7} and store.read_content("taken.mp4") == b"second!"
    assert after != before and storage.head(location) == after


def test_a_listing_shows_every_file_of_its_folder_and_none_of_others(store: RealStore, tmp_path: Path) -> None:
    storage, names = store.create_storage(), [*FILE_NAMES, *(f"{number:04}.mp4" for number in range(8))]
    source = write_file(tmp_path / "source", b"content")
    for number, name in enumerate(names):
        storage.upload_file(source, store.location_of(name), keep_stored)
        if not number:
            first = storage.head(store.location_of(name))
    listed = {one.name: one for one in storage.list_folder(store.location_of(names[0]))}
    assert {name: one.info.length for name, one in listed.items()} == store.stored_lengths()
    assert sorted(listed) == sorted(names) and listed[names[0]].info == first
    assert all(one.modified is None or abs(one.modified - time.time()) < 3600 for one in listed.values())
    assert storage.can_prove_absence(store.location_of("absent"))


def test_missing_file_is_reported(store: RealStore, tmp_path: Path) -> None:
    storage, location = store.create_storage(), store.location_of("nowhere.mp4")
    assert storage.has_folder(location)
    with pytest.raises(MediaNotFound, match=r"nowhere\.mp4"):
        storage.download_file(location, tmp_path / "target")
    assert storage.head(location) is None
    storage.delete_file(location)


def test_a_wrong_password_is_named(store: RealStore, tmp_path: Path) -> None:
    source, location = write_file(tmp_path / "source", b"content"), store.location_of("secret.mp4")
    store.create_storage().upload_file(source, location, keep_stored)
    for tried in (
        lambda one: one.download_file(location, tmp_path / "target"),
        lambda one: one.head(location),
        lambda one: one.upload_file(source, store.location_of("other.mp4"), replace_stored),
        lambda one: one.delete_file(location),
    ):
        wrong = store.create_storage(wrong=True)
        for _ in range(2):
            with pytest.raises(AccessDenied, match=r"\[(webdav\] username and password|s3\] access_key_id)"):
                tried(wrong)
    assert store.stored_lengths() == {"secret.mp4": 7} and not (tmp_path / "target").exists()


def test_a_missing_folder_or_bucket_is_named(store: RealStore, tmp_path: Path) -> None:
    storage, source = store.create_storage(), write_file(tmp_path / "source", b"content")
    assert not storage.has_folder(store.missing_location)
    with pytest.raises(Transient, match=r"(folder|bucket) does not exist") as caught:
        storage.upload_file(source, store.missing_location, keep_stored)
    assert not isinstance(caught.value, AccessDenied)
    assert not storage.has_folder(store.missing_location) and store.stored_lengths() == {}


def test_concurrent_uploads_of_one_name_leave_one_complete_file(store: RealStore, tmp_path: Path) -> None:
    sources = [write_file(tmp_path / name, name.encode() * length) for name, length in (("one", 700_000), ("two", 500_000))]
    begin, location = threading.Barrier(2), store.location_of("contended.mp4")

    def upload_source(source: Path) -> Path | None:
        storage: Storage = store.create_storage()
        begin.wait(20)
        try:
            storage.upload_file(source, location, keep_stored)
        except MuxerError as error:
            assert isinstance(error, Transient), error
            return None
        return source

    with ThreadPoolExecutor(2) as pool:
        done = [one for one in pool.map(upload_source, sources) if one is not None]
    assert list(store.stored_lengths()) == ["contended.mp4"] and done
    if store.is_atomic:
        assert store.read_content("contended.mp4") in [one.read_bytes() for one in done]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("length", [3 * MIB, 12 * MIB])
def test_an_upload_that_is_stopped_leaves_nothing(store: RealStore, tmp_path: Path, length: int) -> None:
    if not store.is_atomic:
        length = 12 * MIB  # in parts
    source, location = write_file(tmp_path / "source", b"x" * length), store.location_of("stopped.mp4")
    (notes := tmp_path / "uploading").mkdir()
    looks: list[str] = []
    with pytest.raises(Stopped):
        store.create_storage(stop=DelayedStop(5, lambda: looks.append("looked")), notes=notes).upload_file(
            source, location, keep_stored
        )
    assert looks and "stopped.mp4" not in store.stored_lengths()
    store.create_storage(notes=notes).remove_leftovers()  # as the next start does
    assert store.stored_lengths() == {} and not list(notes.iterdir())
    assert store.create_storage().upload_file(source, location, keep_stored).length == length


def test_a_stop_ends_a_download(store: RealStore, tmp_path: Path) -> None:
    location = store.location_of("large.mp4")
    store.create_storage().upload_file(write_file(tmp_path / "source", b"x" * 3 * MIB), location, keep_stored)
    with pytest.raises(Stopped):
        store.create_storage(stop=DelayedStop(3, lambda: None)).download_file(location, tmp_path / "target")
    assert (tmp_path / "target").stat().st_size < 3 * MIB
