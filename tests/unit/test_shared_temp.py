"""Workspaces of commands next to a running muxer, and the recovery of one whose command was killed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from muxer.app import service
from muxer.errors import ConfigError, Problem
from muxer.pipeline.shared_temp import claim_worker_folder, command_workspace, recover_abandoned
from muxer.pipeline.workspace import LOCK_FILE, Workspace
from muxer.system.file_lock import acquire_lock
from tests.support.monitoring import create_sources


class GuestConfig:
    """The part of a configuration that a command workspace needs."""

    instance_name, is_sharded = "single", False

    def __init__(self, temp_dir: Path) -> None:
        self.processing = self
        self.temp_dir, self.min_free_megabytes = temp_dir, None


def abandoned_folder(base: Path, age: float = 3600.0) -> Path:
    """Create the folder of a killed command, with the intent record of a publication and unencrypted media; return it."""
    (base / "command-12345678").mkdir()
    workspace = Workspace(base / "command-12345678", "single")
    (workspace.publishing / "one.json").write_text("{}")
    (workspace.path / "muxer-job-abcdefgh").mkdir()
    (workspace.path / "muxer-job-abcdefgh" / "audio").write_bytes(b"media")
    workspace.release_lock()
    modified = base.stat().st_mtime - age
    os.utime(workspace.path, (modified, modified))
    return workspace.path


def test_the_folder_of_a_command_is_next_to_that_of_the_running_muxer_and_removed_afterwards(tmp_path: Path) -> None:
    running = Workspace(tmp_path, "single")
    with command_workspace(GuestConfig(tmp_path)) as workspace:
        assert workspace.path.parent == running.path
        with workspace.job_folder() as folder:
            (folder / "audio").write_bytes(b"media")
            assert running.clean_abandoned() == 0 and (folder / "audio").exists()
    assert not workspace.path.exists()


def test_the_unfinished_work_of_a_dead_command_is_adopted(tmp_path: Path) -> None:
    folder, running = abandoned_folder(tmp_path), Workspace(tmp_path, "single")
    recover_abandoned(running, tmp_path)
    assert [path.name for path in running.publishing.iterdir()] == ["one.json"]
    assert not folder.exists()


def test_the_files_of_a_command_that_has_just_started_are_not_changed(tmp_path: Path) -> None:
    folder, running = abandoned_folder(tmp_path, age=0.0), Workspace(tmp_path, "single")
    recover_abandoned(running, tmp_path)
    assert (folder / "publishing" / "one.json").exists() and (folder / "muxer-job-abcdefgh").exists()


def test_the_files_of_a_running_command_are_not_changed(tmp_path: Path) -> None:
    running = Workspace(tmp_path, "single")
    with command_workspace(GuestConfig(tmp_path)) as workspace:
        (workspace.publishing / "one.json").write_text("{}")
        os.utime(workspace.path, (0, 0))
        recover_abandoned(running, tmp_path)
        assert (workspace.publishing / "one.json").exists()
    assert (workspace.publishing / "one.json").exists(), "the intent record of unfinished work is kept for the next command"


def test_an_intent_record_does_not_overwrite_another(tmp_path: Path) -> None:
    folder, running = abandoned_folder(tmp_path), Workspace(tmp_path, "single")
    (running.publishing / "one.json").write_text("mine")
    recover_abandoned(running, tmp_path)
    assert (running.publishing / "one.json").read_text() == "mine" and (folder / "publishing" / "one.json").exists()
    (running.publishing / "one.json").unlink()
    os.utime(folder, (0, 0))
    recover_abandoned(running, tmp_path)
    assert (running.publishing / "one.json").read_text() == "{}" and not folder.exists()


def test_the_media_of_a_dead_command_are_removed_by_the_next_one(tmp_path: Path) -> None:
    folder = abandoned_folder(tmp_path)
    with command_workspace(GuestConfig(tmp_path)) as workspace:
        assert not folder.exists() and (workspace.publishing / "one.json").exists()


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_link_is_not_taken_for_the_folder_of_a_command(tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "publishing").mkdir(parents=True)
    (other / "publishing" / "one.json").write_text("{}")
    base = tmp_path / "temp"
    base.mkdir()
    (base / "command-abcdefgh").symlink_to(other)
    os.utime(base / "command-abcdefgh", (0, 0), follow_symlinks=False)
    running = Workspace(base, "single")
    recover_abandoned(running, base)
    assert (other / "publishing" / "one.json").exists()


def test_each_worker_of_a_machine_has_the_first_free_folder(tmp_path: Path) -> None:
    config = GuestConfig(tmp_path)
    first, one = claim_worker_folder(config)
    second, other = claim_worker_folder(config)
    assert (first, second) == ("worker-0", "worker-1")
    assert one.path == tmp_path / "worker-0" and one.instance_mark != other.instance_mark
    one.release_lock()
    assert claim_worker_folder(config)[0] == "worker-0"


def test_a_folder_that_is_locked_briefly_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another starting worker may hold it while it looks for leftover files."""
    claim_worker_folder(GuestConfig(tmp_path))[1].release_lock()

    def held_at_first(path: Path, *options: Any) -> Workspace:
        if path.name == "worker-0":
            with acquire_lock(path / LOCK_FILE, path, ""):
                return Workspace(path, *options)
        return Workspace(path, *options)

    monkeypatch.setattr("muxer.pipeline.shared_temp.Workspace", held_at_first)
    assert claim_worker_folder(GuestConfig(tmp_path))[0] == "worker-1"


def test_a_worker_of_a_shard_has_the_name_of_the_shard_too(tmp_path: Path) -> None:
    config = GuestConfig(tmp_path)
    config.is_sharded, config.instance_name = True, "primary-1"
    assert claim_worker_folder(config)[0] == "primary-1-worker-0"


def test_an_unusable_folder_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "worker-0").write_text("not a folder")
    with pytest.raises(ConfigError, match="temp_dir"):
        claim_worker_folder(GuestConfig(tmp_path))


def test_the_unfinished_work_of_a_dead_worker_is_adopted_and_its_folder_stays(tmp_path: Path) -> None:
    config = GuestConfig(tmp_path)
    _, died = claim_worker_folder(config)
    (died.publishing / "one.json").write_text("{}")
    died.release_lock()
    os.utime(died.path, (0, 0))
    running = Workspace(tmp_path, "single")
    recover_abandoned(running, tmp_path)
    assert [path.name for path in running.publishing.iterdir()] == ["one.json"]
    assert died.path.is_dir() and not list(died.publishing.iterdir())


def test_the_files_of_a_running_worker_are_not_changed(tmp_path: Path) -> None:
    _, living = claim_worker_folder(GuestConfig(tmp_path))
    (living.publishing / "one.json").write_text("{}")
    os.utime(living.path, (0, 0))
    recover_abandoned(Workspace(tmp_path, "single"), tmp_path)
    assert [path.name for path in living.publishing.iterdir()] == ["one.json"]


def test_a_folder_that_cannot_be_claimed_is_reported_to_the_configured_log(tmp_path: Path) -> None:
    config = create_sources(tmp_path, logfile__logfile_path=tmp_path).config

    def refuse(_: object) -> None:
        raise ConfigError([Problem("[processing] temp_dir", "cannot be used")])

    with pytest.raises(ConfigError) as refusal:
        service._claim_folder(config, refuse)
    assert refusal.value.logfile["logfile_path"] == tmp_path
