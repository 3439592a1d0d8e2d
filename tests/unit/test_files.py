"""The muxer's files are deleted and replaced even when another program holds them briefly."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muxer.pipeline.workspace import Workspace, remove_folder
from muxer.system import files


class HeldFiles:
    """Patch a method or function so that it fails `times` times for paths that contain `word`, as on Windows."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: Any, name: str, word: str, times: int) -> None:
        self.refused, self._times = 0, times
        real: Callable[..., Any] = getattr(owner, name)

        def refuse_held(path: Any, *args: Any, **kwargs: Any) -> Any:
            if word in str(path) and self.refused < self._times:
                self.refused += 1
                raise PermissionError(13, "it is being used by another process", str(path))
            return real(path, *args, **kwargs)

        patch.setattr(owner, name, refuse_held)


def test_a_file_that_is_held_briefly_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.touch()
    held = HeldFiles(monkeypatch, Path, "unlink", "a", 3)
    files.remove_file(path)
    assert not path.exists() and held.refused == 3
    files.remove_file(path)


def test_a_file_that_is_held_briefly_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "new", tmp_path / "old"
    source.write_text("new")
    target.write_text("old")
    held = HeldFiles(monkeypatch, Path, "replace", "new", 3)
    assert files.replace_file(source, target) == target
    assert target.read_text() == "new" and not source.exists() and held.refused == 3


@pytest.mark.posix
def test_a_file_that_stays_held_is_an_error_with_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "RETRY_INTERVAL", 0.01)
    HeldFiles(monkeypatch, Path, "unlink", "a", 10**9)
    before = time.monotonic()
    with pytest.raises(PermissionError, match=str(tmp_path / "a")):
        files.remove_file(tmp_path / "a")
    assert time.monotonic() - before >= files.RETRY_SECONDS


@pytest.mark.posix
def test_other_errors_are_raised_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    tries = []

    def read_folder() -> None:
        tries.append(1)
        (tmp_path / "folder").read_bytes()

    with pytest.raises(IsADirectoryError):
        files.retry_while_busy(read_folder)
    assert len(tries) == 1


def test_a_job_folder_with_a_file_that_is_held_briefly_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path, "single")
    held = HeldFiles(monkeypatch, os, "unlink", "audio", 3)
    with workspace.job_folder() as folder:
        (folder / "audio").touch()
    assert not folder.exists() and held.refused == 3


def test_a_job_folder_that_stays_held_is_left_to_the_clean_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files, "RETRY_SECONDS", 0.2)
    workspace = Workspace(tmp_path, "single")
    with monkeypatch.context() as patch:
        HeldFiles(patch, os, "unlink", "audio", 10**9)
        with workspace.job_folder() as folder, workspace.job_folder() as other:
            (folder / "audio").touch()
            (folder / "screen-0").touch()
        assert [path.name for path in folder.iterdir()] == ["audio"], "files that are not held are deleted"
        assert not other.exists()
        assert str(folder) in caplog.text and "being used by another process" in caplog.text
        assert not remove_folder(folder)
    assert workspace.clean_abandoned() == 1
    assert not folder.exists()


@pytest.mark.posix
def test_what_is_at_a_path_is_known_or_an_error(tmp_path: Path) -> None:
    """Path.is_file and the like hide errors since Python 3.14: a folder that is closed looks like a missing file."""
    file, loop = tmp_path / "file", tmp_path / "loop"
    file.touch()
    loop.symlink_to(loop)
    seen = [(files.exists(path), files.is_file(path), files.is_folder(path)) for path in (file, tmp_path)]
    assert seen == [(True, True, False), (True, False, True)]
    for path in (tmp_path / "missing", file / "below", loop):
        assert not files.exists(path) and not files.is_file(path) and not files.is_folder(path)
    for look in (files.exists, files.is_file, files.is_folder):
        with pytest.raises(OSError, match="name too long"):
            look(tmp_path / ("x" * 300))
