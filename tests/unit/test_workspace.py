"""The temporary folder: private, locked, one folder per job, cleaned up."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from muxer.errors import ConfigError
from muxer.pipeline.workspace import TempFolderCleaner, Workspace


def create_leftover(folder: Path, name: str = "muxer-job-0_dead_0") -> Path:
    path = folder / name
    path.mkdir()
    (path / "half.mp4").write_bytes(b"half")
    return path


@pytest.mark.posix
def test_a_job_has_a_private_folder_that_is_removed_afterwards(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "single")
    with workspace.job_folder() as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_bytes(b"x")
        assert folder.parent == tmp_path
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


def test_the_folder_of_a_failed_job_is_removed_too(tmp_path: Path) -> None:
    workspace, folders = Workspace(tmp_path, "single"), []
    with pytest.raises(ValueError, match="x"), workspace.job_folder() as folder:
        folders.append(folder)
        raise ValueError("x")
    assert not folders[0].exists()


def test_jobs_do_not_share_a_folder(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "single")
    with workspace.job_folder() as one, workspace.job_folder() as other:
        assert one != other


def test_a_second_instance_gets_a_clear_error(tmp_path: Path) -> None:
    first = Workspace(tmp_path, "primary-0")
    with pytest.raises(ConfigError, match="another instance") as caught:
        Workspace(tmp_path, "primary-1")
    assert str(os.getpid()) in str(caught.value)
    assert "[processing] temp_dir" in str(caught.value)
    assert first.path == tmp_path


@pytest.mark.posix
def test_a_removed_folder_is_created_and_locked_again_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = Workspace(folder := create_folder(tmp_path / "above" / "temp"), "single")
    assert not workspace.restore_folder()
    shutil.rmtree(tmp_path / "above")
    assert not workspace.restore_folder()
    assert not workspace.restore_folder()
    (tmp_path / "above").mkdir()
    assert workspace.restore_folder()
    assert not workspace.restore_folder()
    assert [record.levelname for record in caplog.records] == ["CRITICAL", "WARNING"]
    with workspace.job_folder():
        assert (folder / "publishing").is_dir()
    with pytest.raises(ConfigError, match="another instance"):
        Workspace(folder, "single")


@pytest.mark.posix
def test_a_removed_folder_that_another_instance_created_again_stays_with_that_instance(tmp_path: Path) -> None:
    workspace = Workspace(folder := create_folder(tmp_path / "temp"), "single")
    shutil.rmtree(folder)
    other = Workspace(create_folder(folder), "single")
    with pytest.raises(ConfigError, match="another instance"):
        workspace.restore_folder()
    assert other.path == folder


def create_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_the_lock_file_of_a_dead_process_is_reused(tmp_path: Path) -> None:
    (tmp_path / "muxer.lock").write_text('{"pid": 1, "host": "elsewhere"}')
    assert Workspace(tmp_path, "single").path == tmp_path


@pytest.mark.parametrize("name", ["muxer.lock", "publishing"])
def test_a_folder_that_cannot_be_used_is_a_configuration_error(tmp_path: Path, name: str) -> None:
    if name == "muxer.lock":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(b"a file")
    with pytest.raises(ConfigError, match="temp_dir"):
        Workspace(tmp_path, "single")


def test_a_link_in_place_of_the_lock_does_not_change_the_linked_file(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("do not lose this")
    temp = tmp_path / "temp"
    temp.mkdir()
    (temp / "muxer.lock").symlink_to(tmp_path / "precious")
    try:
        Workspace(temp, "single")
    except ConfigError as error:
        assert "temp_dir" in str(error)
    assert (tmp_path / "precious").read_text() == "do not lose this"


@pytest.mark.posix
def test_the_default_folder_is_below_the_system_s_and_names_the_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    workspace = Workspace(None, "primary-3")
    assert workspace.path == tmp_path / "recording-muxer-primary-3"
    assert stat.S_IMODE(workspace.path.stat().st_mode) == 0o700


@pytest.mark.posix
@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_default_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    default_folder = tmp_path / "recording-muxer-single"
    (tmp_path / "elsewhere").mkdir()
    if kind == "link":
        default_folder.symlink_to(tmp_path / "elsewhere")
    else:
        default_folder.write_bytes(b"")
    with pytest.raises(ConfigError, match="temp_dir"):
        Workspace(None, "single")


def test_clean_removes_only_leftover_files(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "single")
    dead, foreign = create_leftover(tmp_path), create_leftover(tmp_path, "foreign")
    with workspace.job_folder() as running:
        (running / "file").write_bytes(b"x")
        assert workspace.clean_abandoned() == 1
        assert (running / "file").exists()
    assert not dead.exists()
    assert foreign.exists()
    assert workspace.publishing.is_dir()


def test_only_folders_named_like_those_of_jobs_are_removed(tmp_path: Path) -> None:
    temp = tmp_path / "temp"
    temp.mkdir()
    precious = create_leftover(tmp_path, "precious")
    names = "muxer-job-backup muxer-job- muxer-job-ABCDEFGH muxer-job-abcdefgh.old old-muxer-job-abcdefgh mine"
    foreign = [create_leftover(temp, name) for name in names.split()]
    (temp / "muxer-job-notes.txt").write_text("notes")
    (temp / "muxer-job-a_file_0").write_text("no folder")
    (temp / "muxer-job-link0000").symlink_to(precious)
    before = sorted(temp.iterdir())
    workspace = Workspace(temp, "single")
    ours = create_leftover(temp)
    (ours / "link").symlink_to(precious)
    assert workspace.clean_abandoned() == 1
    workspace.remove_job_folders()
    assert set(before) <= set(temp.iterdir()) and not ours.exists()
    assert all((folder / "half.mp4").exists() for folder in [*foreign, precious])


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can make a file of another account")
def test_a_folder_of_another_account_is_not_changed(tmp_path: Path) -> None:
    foreign = create_leftover(tmp_path)
    os.chown(foreign, 65534, 65534)
    assert Workspace(tmp_path, "single").clean_abandoned() == 0
    assert foreign.exists()


def test_leftover_files_that_cannot_be_removed_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_leftover(tmp_path)
    monkeypatch.setattr("muxer.pipeline.workspace.shutil.rmtree", lambda *_, **__: None)
    assert Workspace(tmp_path, "single").clean_abandoned() == 0


def test_close_removes_only_the_folders_of_abandoned_jobs(tmp_path: Path) -> None:
    dead = create_leftover(tmp_path)
    workspace = Workspace(tmp_path, "single")
    with workspace.job_folder() as folder:
        workspace.remove_job_folders()
        assert not folder.exists()
    assert dead.exists()


def test_the_mark_is_the_same_after_a_restart_and_another_for_each_folder(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.mkdir()
    first, second = (Workspace(path, "single").instance_mark for path in paths)
    assert first == Workspace(paths[0], "single").instance_mark
    assert first != second


class ManualClock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("muxer.pipeline.workspace.time.monotonic", lambda: self.now)


@pytest.mark.parametrize("interval", [60, -1])
def test_the_first_tick_removes_the_leftover_files_of_a_kill(tmp_path: Path, interval: int) -> None:
    create_leftover(tmp_path)
    assert TempFolderCleaner(Workspace(tmp_path, "single"), enabled=True, interval=interval).clean_if_due(idle=False) == 1


def test_the_folder_is_cleaned_every_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock(monkeypatch)
    cleaning = TempFolderCleaner(Workspace(tmp_path, "single"), enabled=True, interval=60)
    cleaning.clean_if_due(idle=True)
    create_leftover(tmp_path)
    clock.now += 59
    assert cleaning.clean_if_due(idle=True) == 0
    clock.now += 1
    assert cleaning.clean_if_due(idle=False) == 1


def test_with_minus_1_the_folder_is_cleaned_when_idle(tmp_path: Path) -> None:
    cleaning = TempFolderCleaner(Workspace(tmp_path, "single"), enabled=True, interval=-1)
    cleaning.clean_if_due(idle=True)
    create_leftover(tmp_path)
    assert cleaning.clean_if_due(idle=False) == 0
    assert cleaning.clean_if_due(idle=True) == 1


def test_switched_off_nothing_is_cleaned(tmp_path: Path) -> None:
    dead = create_leftover(tmp_path)
    assert TempFolderCleaner(Workspace(tmp_path, "single"), enabled=False, interval=-1).clean_if_due(idle=True) == 0
    assert dead.exists()
