"""Intent records of work that a kill would leave unfinished."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from muxer.errors import LocalResourceError, MetadataError, ServiceUnavailable
from muxer.storage.base import S3, WEBDAV, MediaLocation
from muxer.storage.upload_intents import UploadIntents
from muxer.system import intent_log as module
from muxer.system.intent_log import IntentLog
from tests.support.disk import fill_disk, small_disk

INTENT = {"what": "an upload"}


def read_records(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in folder.glob("*.json")]


def test_a_record_exists_during_the_work_and_after_a_failure(tmp_path: Path) -> None:
    notes = IntentLog(tmp_path)
    with notes.pending("key", INTENT):
        assert read_records(tmp_path) == [INTENT]
    assert read_records(tmp_path) == []
    with pytest.raises(ServiceUnavailable), notes.pending("key", INTENT):
        raise ServiceUnavailable("down")
    assert read_records(tmp_path) == [INTENT]


@pytest.mark.parametrize(
    ("error", "stays"),
    [(None, False), (ServiceUnavailable("down"), True), (MetadataError("x"), False), (KeyError("x"), False)],
)
def test_recovery_removes_or_keeps_a_record(tmp_path: Path, error: Exception | None, stays: bool) -> None:
    (tmp_path / "note.json").write_text(json.dumps(INTENT))

    def settle_or_raise(_: object) -> bool:
        if error:
            raise error
        return True

    IntentLog(tmp_path).recover(settle_or_raise, "later")
    assert bool(read_records(tmp_path)) == stays


def test_an_incomplete_record_is_removed(tmp_path: Path) -> None:
    (tmp_path / "note.json").write_text(json.dumps(INTENT)[:5])
    IntentLog(tmp_path).recover(lambda _: False, "later")
    assert not list(tmp_path.iterdir())


def test_work_in_progress_is_not_recovered(tmp_path: Path) -> None:
    notes, seen = IntentLog(tmp_path), []
    with notes.pending("key", INTENT):
        notes.recover(lambda note: bool(seen.append(note)), "later")
    assert seen == []


def test_work_starts_again_only_after_the_earlier_record_is_settled(tmp_path: Path) -> None:
    """Otherwise the deletion of the earlier upload would hit the new upload and its record."""
    notes, order = IntentLog(tmp_path), []
    with pytest.raises(ServiceUnavailable), notes.pending("key", INTENT):
        raise ServiceUnavailable("down")

    def start_again() -> None:
        with notes.pending("key", INTENT):
            order.append("new")

    thread = threading.Thread(target=start_again)

    def settle_earlier(_: object) -> bool:
        thread.start()
        thread.join(0.2)
        order.append("old removed")
        return True

    notes.recover(settle_earlier, "later")
    thread.join(10)
    assert order == ["old removed", "new"] and read_records(tmp_path) == []


def test_an_earlier_record_survives_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as folder:
        notes = IntentLog(folder)
        with pytest.raises(ServiceUnavailable), notes.pending("key", INTENT):
            raise ServiceUnavailable("down")
        fill_disk(folder)
        with pytest.raises(LocalResourceError), notes.pending("key", INTENT):
            pass
        assert read_records(folder) == [INTENT]
        assert not list(folder.glob("*.new"))


def test_a_partly_written_record_is_removed(tmp_path: Path) -> None:
    (tmp_path / "note.new").write_text(json.dumps(INTENT))
    seen: list[object] = []
    IntentLog(tmp_path).recover(lambda note: bool(seen.append(note)), "later")
    assert not list(tmp_path.iterdir()) and not seen


def test_an_unreadable_record_does_not_stop_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "note.json").mkdir()
    (tmp_path / "other.json").write_text(json.dumps(INTENT))
    IntentLog(tmp_path).recover(lambda _: True, "it is left for now")
    assert [path.name for path in tmp_path.iterdir()] == ["note.json"]
    assert "it is left for now" in caplog.text


def test_a_record_that_one_storage_writes_is_not_recovered_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, others = UploadIntents(tmp_path, WEBDAV), UploadIntents(tmp_path, S3)
    write = module.open_private  # type: ignore[attr-defined]

    @contextmanager
    def write_watched(path: Path) -> Iterator[BinaryIO]:
        with write(path) as file:
            yield file
        others.delete_unfinished(lambda place, upload: None)

    monkeypatch.setattr(module, "open_private", write_watched)
    with ours.pending_upload(MediaLocation(WEBDAV, "http://dav/r/", "x.mp4.part")):
        assert len(read_records(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []
