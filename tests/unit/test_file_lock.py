"""The lock of a folder or file: it ends with its holder and names it."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path

import pytest

from muxer.errors import ConfigError
from muxer.system import file_lock as module
from muxer.system.file_lock import acquire_lock, lock_holder

if sys.platform != "win32":
    import fcntl


def test_a_second_holder_is_refused_until_the_first_releases_the_lock(tmp_path: Path) -> None:
    first = acquire_lock(tmp_path / "lock", tmp_path, "[section] option")
    with pytest.raises(ConfigError) as caught:
        acquire_lock(tmp_path / "lock", tmp_path, "[section] option")
    (problem,) = caught.value.problems
    assert problem.where == "[section] option"
    assert f"{tmp_path} is used by another instance (process {os.getpid()} on {socket.gethostname()})" in problem.what
    first.close()
    acquire_lock(tmp_path / "lock", tmp_path, "[section] option").close()


def test_the_text_of_an_earlier_holder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("process 1 on a host with a long name " * 10)
    with acquire_lock(tmp_path / "lock", tmp_path, "o"):
        assert (tmp_path / "lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}"


def test_a_file_system_without_locks_is_not_taken_for_another_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_lock(_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module, "_lock_now", refuse_lock)
    with pytest.raises(OSError, match="No locks"):
        acquire_lock(tmp_path / "lock", tmp_path, "o")


def test_a_full_disk_does_not_hinder_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_disk_full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("muxer.system.file_lock.os.write", raise_disk_full)
    with acquire_lock(tmp_path / "lock", tmp_path, "o"), pytest.raises(ConfigError, match="unknown process"):
        acquire_lock(tmp_path / "lock", tmp_path, "o")


def test_the_lock_holder_is_reported_without_locking(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert lock_holder(path) is None and not path.exists()
    with acquire_lock(path, tmp_path, "o"):
        holder = lock_holder(path)
        assert holder == f"process {os.getpid()} on {socket.gethostname()}"
    assert lock_holder(path) is None
    acquire_lock(path, tmp_path, "o").close()


@pytest.mark.skipif(sys.platform == "win32", reason="there a lock is held by one only")
def test_concurrent_lock_queries_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("process 1 on a host that is long gone")
    with path.open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert lock_holder(path) is None


@pytest.mark.posix
def test_a_query_at_the_same_instant_does_not_refuse_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`status` and `check` hold the lock of a process that died while they ask for it."""
    query = (tmp_path / "lock").open("w")
    fcntl.flock(query, fcntl.LOCK_SH)
    pauses: list[float] = []

    def end_query(seconds: float) -> None:
        pauses.append(seconds)
        query.close()

    monkeypatch.setattr("muxer.system.file_lock.time.sleep", end_query)
    acquire_lock(tmp_path / "lock", tmp_path, "o").close()
    assert len(pauses) == 1
