"""Notes about work that a kill would leave half done."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from tests.support.disk import fill, small_disk

from muxer.errors import LocalResourceError, MetadataError, ServiceUnavailable
from muxer.storage import notes as module
from muxer.storage.base import S3, WEBDAV, Place
from muxer.storage.notes import NoteFolder, Notes

WORK = {"what": "an upload"}


def kept(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in folder.glob("*.json")]


def test_a_note_is_there_while_the_work_is_done_and_after_it_failed(tmp_path: Path) -> None:
    notes = NoteFolder(tmp_path)
    with notes.during(WORK):
        assert kept(tmp_path) == [WORK]
    assert kept(tmp_path) == []
    with pytest.raises(ServiceUnavailable), notes.during(WORK):
        raise ServiceUnavailable("down")
    assert kept(tmp_path) == [WORK]


@pytest.mark.parametrize(
    ("error", "stays"),
    [(None, False), (ServiceUnavailable("down"), True), (MetadataError("x"), False), (KeyError("x"), False)],
)
def test_what_becomes_of_a_note(tmp_path: Path, error: Exception | None, stays: bool) -> None:
    (tmp_path / "note.json").write_text(json.dumps(WORK))

    def settle(_: object) -> bool:
        if error:
            raise error
        return True

    NoteFolder(tmp_path).finish(settle, "later")
    assert bool(kept(tmp_path)) == stays


def test_half_a_note_is_removed(tmp_path: Path) -> None:
    (tmp_path / "note.json").write_text(json.dumps(WORK)[:5])
    NoteFolder(tmp_path).finish(lambda _: False, "later")
    assert not list(tmp_path.iterdir())


def test_work_under_way_is_not_finished_by_others(tmp_path: Path) -> None:
    notes, seen = NoteFolder(tmp_path), []
    with notes.during(WORK):
        notes.finish(lambda note: bool(seen.append(note)), "later")
    assert seen == []


def test_work_begins_again_only_when_the_rest_of_earlier_is_gone(tmp_path: Path) -> None:
    """Otherwise the earlier upload's deletion would hit the new upload, and its note."""
    notes, order = NoteFolder(tmp_path), []
    with pytest.raises(ServiceUnavailable), notes.during(WORK):
        raise ServiceUnavailable("down")

    def again() -> None:
        with notes.during(WORK):
            order.append("new")

    thread = threading.Thread(target=again)

    def settle(_: object) -> bool:
        thread.start()
        thread.join(0.2)
        order.append("old is gone")
        return True

    notes.finish(settle, "later")
    thread.join(10)
    assert order == ["old is gone", "new"] and kept(tmp_path) == []


def test_a_note_of_earlier_outlives_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as folder:
        notes = NoteFolder(folder)
        with pytest.raises(ServiceUnavailable), notes.during(WORK):
            raise ServiceUnavailable("down")
        fill(folder)
        with pytest.raises(LocalResourceError), notes.during(WORK):
            pass
        assert kept(folder) == [WORK]
        assert not list(folder.glob("*.new"))


def test_a_note_that_was_being_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / "note.new").write_text(json.dumps(WORK))
    seen: list[object] = []
    NoteFolder(tmp_path).finish(lambda note: bool(seen.append(note)), "later")
    assert not list(tmp_path.iterdir()) and not seen


def test_a_note_that_cannot_be_read_for_now_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "note.json").mkdir()
    (tmp_path / "other.json").write_text(json.dumps(WORK))
    NoteFolder(tmp_path).finish(lambda _: True, "it is left for now")
    assert [path.name for path in tmp_path.iterdir()] == ["note.json"]
    assert "it is left for now" in caplog.text


def test_a_note_that_one_storage_is_writing_is_no_left_over_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, others = Notes(tmp_path, WEBDAV), Notes(tmp_path, S3)
    write = module.private_file

    @contextmanager
    def watched(path: Path) -> Iterator[BinaryIO]:
        with write(path) as file:
            yield file
        others.clean(lambda place, upload: None)

    monkeypatch.setattr(module, "private_file", watched)
    with ours.during(Place(WEBDAV, "http://dav/r/", "x.mp4.part")):
        assert len(kept(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []
