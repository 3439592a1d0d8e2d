"""The lock of a folder or file: it ends with its holder, and says who that is."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

import pytest

from muxer import lock as module
from muxer.errors import ConfigError
from muxer.lock import holder, lock

if sys.platform != "win32":
    import fcntl


def test_a_second_holder_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    first = lock(tmp_path / "lock", tmp_path, "[section] option")
    with pytest.raises(ConfigError) as caught:
        lock(tmp_path / "lock", tmp_path, "[section] option")
    (problem,) = caught.value.problems
    assert problem.where == "[section] option"
    assert f"{tmp_path} is used by another instance (process {os.getpid()} on {socket.gethostname()})" in problem.what
    first.close()
    lock(tmp_path / "lock", tmp_path, "[section] option").close()


def test_the_text_of_an_earlier_holder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("process 1 on a host with a long name " * 10)
    with lock(tmp_path / "lock", tmp_path, "o"):
        assert (tmp_path / "lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}"


def test_a_file_system_without_locks_is_not_taken_for_another_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module, "_lock_now", refuse)
    with pytest.raises(OSError, match="No locks"):
        lock(tmp_path / "lock", tmp_path, "o")


def test_a_full_disk_does_not_hinder_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("muxer.lock.os.write", full)
    with lock(tmp_path / "lock", tmp_path, "o"), pytest.raises(ConfigError, match="does not say which"):
        lock(tmp_path / "lock", tmp_path, "o")


def test_who_holds_a_lock_is_told_without_taking_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder(path) is None and not path.exists()
    with lock(path, tmp_path, "o"):
        told = holder(path)
        assert told == f"process {os.getpid()} on {socket.gethostname()}"
    assert holder(path) is None
    lock(path, tmp_path, "o").close()


@pytest.mark.skipif(sys.platform == "win32", reason="there a lock is held by one only")
def test_who_asks_disturbs_nobody_who_asks_too(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("process 1 on a host that is long gone")
    with path.open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert holder(path) is None
