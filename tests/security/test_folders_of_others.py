"""A temporary folder that others can write to is refused, or gets a warning where systems share it on purpose."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from muxer.errors import ConfigError
from muxer.pipeline.workspace import Workspace
from tests.support.disk import small_disk

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can make files of others")
NOBODY_UID = 65534


@pytest.mark.parametrize("mode", [0o777, 0o722, 0o702, 0o2777])
def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(ConfigError, match=rf"temp_dir: .*mode {mode:04o}.*chmod 700"):
        Workspace(tmp_path, "single")
    tmp_path.chmod(0o700)


def test_a_folder_of_another_account_is_refused_with_its_name(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY_UID, -1)
    with pytest.raises(ConfigError, match=r"temp_dir: .*belongs to the account nobody; run this with that account, or"):
        Workspace(tmp_path, "single")


@pytest.mark.parametrize("mode", [0o1777, 0o770, 0o2775])
def test_a_folder_that_is_shared_on_purpose_gets_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    tmp_path.chmod(mode)
    Workspace(tmp_path, "single").release_lock()
    assert f"mode {mode:04o}" in caplog.text and "[processing] temp_dir" in caplog.text
    tmp_path.chmod(0o700)


def test_a_volume_is_shared_on_purpose(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_disk(tmp_path / "volume", "8M") as volume:
        volume.chmod(0o777)
        Workspace(volume, "single", 1).release_lock()
    assert "mode 0777" in caplog.text


def test_a_private_folder_gets_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o755)
    Workspace(tmp_path, "single").release_lock()
    assert caplog.text == ""


def test_a_lock_file_created_by_another_account_is_named() -> None:
    with tempfile.TemporaryDirectory() as name:
        temp = Path(name)
        (temp / "muxer.lock").touch(mode=0o600)
        os.chown(temp, NOBODY_UID, -1)
        os.seteuid(NOBODY_UID)
        try:
            with pytest.raises(ConfigError, match=r"muxer\.lock: Permission denied: it belongs to the account root"):
                Workspace(temp, "single")
        finally:
            os.seteuid(0)


def test_a_lock_file_that_is_open_to_all_is_not_used(tmp_path: Path) -> None:
    """Its owner could hold the lock for ever and write a false holder into it."""
    lock = tmp_path / "muxer.lock"
    lock.write_text("process 1 on another host")
    lock.chmod(0o666)
    os.chown(lock, NOBODY_UID, -1)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"muxer\.lock: it belongs to the account nobody; run this with that"):
            Workspace(tmp_path, "single")


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "folder"])
def test_only_a_regular_file_is_locked_or_changed(tmp_path: Path, kind: str) -> None:
    (tmp_path / "temp").mkdir(mode=0o700)
    other, lock = tmp_path / "muxer.cfg", tmp_path / "temp" / "muxer.lock"
    other.write_text("[htcc]")
    make = {"link": lock.symlink_to, "second name": lock.hardlink_to, "pipe": lambda _: os.mkfifo(lock)}
    make.get(kind, lambda _: lock.mkdir())(other)
    with pytest.raises(ConfigError, match=r"muxer\.lock: (it is a link, or not a regular file|Is a directory)"):
        Workspace(tmp_path / "temp", "single")
    assert other.read_text() == "[htcc]"


def test_a_folder_that_others_can_replace_gets_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "outer" / "temp").mkdir(parents=True, mode=0o700)
    (tmp_path / "outer").chmod(0o777)
    Workspace(tmp_path / "outer" / "temp", "single").release_lock()
    assert f"other accounts may put another folder in place of {tmp_path / 'outer' / 'temp'}" in caplog.text
    caplog.clear()
    (tmp_path / "outer").chmod(0o1777)
    Workspace(tmp_path / "outer" / "temp", "single").release_lock()
    assert caplog.text == ""
