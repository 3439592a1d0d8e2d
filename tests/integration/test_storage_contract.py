"""What every storage must do, with every kind of store, judged by what the store itself holds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.s3 import MIB, StopLater, keep, replace, written
from tests.support.stores import NAMES, STORES, RealStore

from muxer.errors import AccessDenied, MediaNotFound, MuxerError, Stopped, StoredElsewhere, Transient
from muxer.storage.base import Storage

pytestmark = pytest.mark.usefixtures("models_read_once", "no_keys_around")


@pytest.fixture(scope="module", params=STORES)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStore]:
    with STORES[request.param](tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.fixture
def store(running: RealStore) -> Iterator[RealStore]:
    """Return a running store that holds nothing, and empty it again."""
    assert running.lengths() == {}
    yield running
    for name in running.lengths():
        running.storage().delete(running.place(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_any_name_is_stored_described_fetched_and_deleted(store: RealStore, tmp_path: Path, name: str) -> None:
    source, target, storage, place = tmp_path / "source", tmp_path / "target", store.storage(), store.place(name)
    written(source, name.encode() * 1000)
    assert storage.describe(place) is None
    stored = storage.store(source, place, keep)
    assert store.lengths() == {name: source.stat().st_size} and store.content(name) == source.read_bytes()
    assert stored.length == source.stat().st_size and storage.describe(place) == stored
    assert storage.fetch(place, target) == stored.length
    assert target.read_bytes() == source.read_bytes()
    storage.delete(place)
    assert store.lengths() == {} and storage.describe(place) is None


def test_names_that_differ_little_are_different_files(store: RealStore, tmp_path: Path) -> None:
    storage, names = store.storage(), [*store.odd_names, "a b.mp4", "a+b.mp4", "a%20b.mp4", "a.mp4", "a.mp4.bin"]
    names += [] if store.ignores_case else ["A.mp4"]
    for name in names:
        storage.store(written(tmp_path / "source", name.encode()), store.place(name), keep)
        assert storage.fetch(store.place(name), tmp_path / "target") == len(name.encode())
    assert {name: store.content(name) for name in store.lengths()} == {name: name.encode() for name in names}
    for name in names:
        storage.delete(store.place(name))
        assert name not in store.lengths()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("length", [0, 1, 12 * MIB + 13])
def test_the_bytes_are_exact(store: RealStore, tmp_path: Path, length: int) -> None:
    source = written(tmp_path / "source", (bytes(range(256)) * (length // 256 + 1))[:length])
    storage, place = store.storage(), store.place("exact.mp4")
    assert storage.store(source, place, keep).length == length
    assert store.lengths() == {"exact.mp4": length} and store.content("exact.mp4") == source.read_bytes()
    if length:  # an empty source is told by its own error
        assert storage.fetch(place, tmp_path / "target") == length
        assert (tmp_path / "target").read_bytes() == source.read_bytes()


def test_what_is_stored_is_replaced_only_when_that_is_allowed(store: RealStore, tmp_path: Path) -> None:
    first, second = written(tmp_path / "first", b"first"), written(tmp_path / "second", b"second!")
    storage, place = store.storage(), store.place("taken.mp4")
    before = storage.store(first, place, keep)
    with pytest.raises(StoredElsewhere):
        store.storage().store(second, place, keep)
    assert store.content("taken.mp4") == b"first" and storage.describe(place) == before
    after = storage.store(second, place, replace)
    assert store.lengths() == {"taken.mp4": 7} and store.content("taken.mp4") == b"second!"
    assert after != before and storage.describe(place) == after


def test_what_is_not_there(store: RealStore, tmp_path: Path) -> None:
    storage, place = store.storage(), store.place("nowhere.mp4")
    assert storage.has_folder(place)
    with pytest.raises(MediaNotFound, match=r"nowhere\.mp4"):
        storage.fetch(place, tmp_path / "target")
    assert storage.describe(place) is None
    storage.delete(place)


def test_a_wrong_password_is_named(store: RealStore, tmp_path: Path) -> None:
    source, place = written(tmp_path / "source", b"content"), store.place("secret.mp4")
    store.storage().store(source, place, keep)
    for tried in (
        lambda one: one.fetch(place, tmp_path / "target"),
        lambda one: one.describe(place),
        lambda one: one.store(source, store.place("other.mp4"), replace),
        lambda one: one.delete(place),
    ):
        wrong = store.storage(wrong=True)
        for _ in range(2):
            with pytest.raises(AccessDenied, match=r"\[(webdav\] username and password|s3\] access_key_id)"):
                tried(wrong)
    assert store.lengths() == {"secret.mp4": 7} and not (tmp_path / "target").exists()


def test_a_missing_folder_or_bucket_is_named(store: RealStore, tmp_path: Path) -> None:
    storage, source = store.storage(), written(tmp_path / "source", b"content")
    assert not storage.has_folder(store.nowhere)
    with pytest.raises(Transient, match=r"(folder|bucket) does not exist") as caught:
        storage.store(source, store.nowhere, keep)
    assert not isinstance(caught.value, AccessDenied)
    assert not storage.has_folder(store.nowhere) and store.lengths() == {}


def test_two_uploads_of_one_name_at_a_time_leave_one_whole_file(store: RealStore, tmp_path: Path) -> None:
    sources = [written(tmp_path / name, name.encode() * length) for name, length in (("one", 700_000), ("two", 500_000))]
    begin, place = threading.Barrier(2), store.place("contended.mp4")

    def upload(source: Path) -> Path | None:
        storage: Storage = store.storage()
        begin.wait(20)
        try:
            storage.store(source, place, keep)
        except MuxerError as error:
            assert isinstance(error, Transient), error
            return None
        return source

    with ThreadPoolExecutor(2) as pool:
        done = [one for one in pool.map(upload, sources) if one is not None]
    assert list(store.lengths()) == ["contended.mp4"] and done
    if store.is_atomic:
        assert store.content("contended.mp4") in [one.read_bytes() for one in done]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("length", [3 * MIB, 12 * MIB])
def test_an_upload_that_is_stopped_leaves_nothing(store: RealStore, tmp_path: Path, length: int) -> None:
    if not store.is_atomic:
        length = 12 * MIB  # in parts
    source, place = written(tmp_path / "source", b"x" * length), store.place("stopped.mp4")
    (notes := tmp_path / "uploading").mkdir()
    looks: list[str] = []
    with pytest.raises(Stopped):
        store.storage(stop=StopLater(5, lambda: looks.append("looked")), notes=notes).store(source, place, keep)
    assert looks and "stopped.mp4" not in store.lengths()
    store.storage(notes=notes).remove_left_overs()  # as the next start does
    assert store.lengths() == {} and not list(notes.iterdir())
    assert store.storage().store(source, place, keep).length == length


def test_a_stop_ends_a_download(store: RealStore, tmp_path: Path) -> None:
    place = store.place("large.mp4")
    store.storage().store(written(tmp_path / "source", b"x" * 3 * MIB), place, keep)
    with pytest.raises(Stopped):
        store.storage(stop=StopLater(3, lambda: None)).fetch(place, tmp_path / "target")
    assert (tmp_path / "target").stat().st_size < 3 * MIB
