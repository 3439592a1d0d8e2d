"""Muxed files kept for the next attempt: complete, private, of the same sources, and for a limited time."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from muxer.errors import LocalResourceError
from muxer.gir.models import MediaFile
from muxer.gir.rws import Certificate
from muxer.gir.targets import MuxTarget
from muxer.pipeline import kept_results as module
from muxer.pipeline.disk_space import TempDisk
from muxer.pipeline.kept_results import KeptResults, MuxResult
from muxer.storage.base import ObjectInfo

CONTENT = b"a muxed file"
OPTIONS = {"audio_codec": "aac"}
CERTIFICATES = (Certificate("one", "PEM 1"),)


def media_file(name: str, start: str = "2024-01-02T10:00:00.000+0000") -> MediaFile:
    return MediaFile.from_json({"mediaId": name, "type": "video/mp4", "startTime": start, "size": "10"})


TARGET = MuxTarget("call", "r1", "alice", media_file("a.mp3"), (media_file("s.mp4"),))


def keep_result(folder: Path, target: MuxTarget = TARGET, content: bytes = CONTENT) -> KeptResults:
    """Keep a file for a target and return the store."""
    muxed_path = folder.parent / "muxed.mp4"
    muxed_path.write_bytes(content)
    results = KeptResults(folder, OPTIONS)
    result = MuxResult(
        muxed_path, {"mediaId": "x", "size": "12"}, {"method": "copy"}, {"length": 1.0}, ObjectInfo(12, "tag")
    )
    results.store_result(target, target.file_name, CERTIFICATES, result)
    assert not muxed_path.exists()
    return results


def take_result(
    folder: Path, results: KeptResults, target: MuxTarget = TARGET, certificates: tuple[Certificate, ...] = CERTIFICATES
) -> MuxResult | None:
    job = folder.parent / "job"
    job.mkdir(exist_ok=True)
    return results.take_result(target, target.file_name, certificates, job)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def test_a_kept_file_is_taken_once_with_its_record(folder: Path) -> None:
    results = keep_result(folder)
    found = take_result(folder, results)
    assert found is not None and found.path.read_bytes() == CONTENT and found.path.parent == folder.parent / "job"
    assert found.entry == {"mediaId": "x", "size": "12"}
    assert (found.facts, found.timeline) == ({"method": "copy"}, {"length": 1.0})
    assert found.stored == ObjectInfo(12, "tag")
    assert take_result(folder, results) is None
    results.prune_files()
    assert not folder.exists()


def test_a_later_process_can_take_a_kept_file(folder: Path) -> None:
    keep_result(folder)
    assert take_result(folder, KeptResults(folder, OPTIONS)) is not None


@pytest.mark.posix
def test_a_kept_file_is_as_private_as_a_job_folder(folder: Path) -> None:
    keep_result(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_kept_file_is_not_used_for_another_target_version_option_or_certificate(folder: Path) -> None:
    results = keep_result(folder)
    moved = replace(TARGET, screens=(media_file("s.mp4", "2024-01-02T10:00:01.000+0000"),))
    assert moved.file_name == TARGET.file_name
    more = replace(TARGET, screens=(*TARGET.screens, media_file("t.mp4")))
    for other in (moved, more, replace(TARGET, region="r2")):
        assert take_result(folder, results, other) is None
    assert take_result(folder, results, certificates=()) is None
    assert take_result(folder, results, certificates=(*CERTIFICATES, Certificate("two", "PEM 2"))) is None
    assert take_result(folder, KeptResults(folder, {"audio_codec": "copy"})) is None
    assert take_result(folder, results) is not None


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", CONTENT[::-1], b""])
def test_a_file_that_is_not_what_was_kept_is_deleted(folder: Path, content: bytes) -> None:
    results = keep_result(folder)
    next(folder.glob("*.media")).write_bytes(content)
    assert take_result(folder, results) is None
    assert not list(folder.iterdir())


@pytest.mark.parametrize("missing", [".media", ".json"])
def test_an_incomplete_pair_is_deleted(folder: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setattr(module, "MAX_WRITING_SECONDS", -1.0)
    results = keep_result(folder)
    next(folder.glob(f"*{missing}")).unlink()
    assert take_result(folder, results) is None
    results.prune_files()
    assert not folder.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"length": 12}'])
def test_an_unreadable_record_is_ignored_with_its_file(folder: Path, text: str) -> None:
    results = keep_result(folder)
    next(folder.glob("*.json")).write_text(text)
    assert take_result(folder, results) is None


def test_a_kept_file_is_deleted_when_its_target_no_longer_needs_it(folder: Path) -> None:
    other = replace(TARGET, recording_id="other")
    results = keep_result(folder)
    keep_result(folder, other)
    results.forget_target(TARGET)
    assert take_result(folder, results) is None and take_result(folder, results, other) is not None


def test_kept_files_are_deleted_after_a_day_and_when_there_are_too_many(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = keep_result(folder)
    results.prune_files()
    assert len(list(folder.iterdir())) == 2
    monkeypatch.setattr(module, "MAX_RESULT_AGE_SECONDS", -1.0)
    results.prune_files()
    assert not folder.exists()
    monkeypatch.undo()
    monkeypatch.setattr(module, "MAX_KEPT", 2)
    for number in range(4):
        results = keep_result(folder, replace(TARGET, recording_id=f"call-{number}"))
    results.prune_files()
    assert len(list(folder.glob("*.media"))) == len(list(folder.glob("*.json"))) == 2


def test_a_kept_file_is_deleted_when_a_job_or_the_reserve_needs_its_space(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the disk figures are fake: each kept file takes half of the disk."""
    results = keep_result(folder)
    keep_result(folder, replace(TARGET, recording_id="other"))
    disk = TempDisk(folder.parent, 1)
    disk.spare = results.evict_oldest
    whole = 1 << 30

    def disk_usage(_: Path) -> os.terminal_size:
        kept = len(list(folder.glob("*.media")))
        return type("Usage", (), {"total": whole, "used": 0, "free": whole - kept * whole // 2})()

    monkeypatch.setattr("muxer.pipeline.disk_space.shutil.disk_usage", disk_usage)
    assert disk.has_room()
    assert len(list(folder.glob("*.media"))) == 1
    disk.ensure_room([whole // 3])
    assert not list(folder.glob("*.media"))
    with pytest.raises(LocalResourceError):
        disk.ensure_room([whole])


def test_a_file_that_cannot_be_kept_is_not_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse_access(*_: object) -> None:
        raise PermissionError(13, "no", "x")

    muxed_path = folder.parent / "muxed.mp4"
    muxed_path.write_bytes(CONTENT)
    monkeypatch.setattr("muxer.system.files.replace_file", refuse_access)
    results = KeptResults(folder, OPTIONS)
    results.store_result(TARGET, TARGET.file_name, (), MuxResult(muxed_path, {}, {}, {}))
    assert take_result(folder, results) is None
