"""When a failed recording is retried, and what the journal stores on disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import sys
from pathlib import Path

import pytest

from muxer.errors import (
    AccessDenied,
    EncryptionError,
    EncryptionMissing,
    LocalResourceError,
    MediaError,
    MediaIncomplete,
    MediaNotFound,
    MetadataError,
    MuxerError,
    ServiceUnavailable,
    StoredByOtherMuxer,
    ToolError,
)
from muxer.gir.responses import HttpResponse, response_error
from muxer.journal import journal as module
from muxer.journal.journal import Journal, TargetKey, record_external_success
from muxer.journal.retry_policy import MAX_PERMANENT_ATTEMPTS, backoff_delay
from muxer.system import files
from tests.support.disk import fill_disk, small_disk

FOREVER = 10.0**12
TARGET_KEY = TargetKey("x", "C1")


def test_a_target_that_never_failed_may_run() -> None:
    assert Journal(None).may_run("x", 0)


@pytest.mark.parametrize("kind", [ServiceUnavailable, AccessDenied, LocalResourceError, EncryptionMissing])
def test_a_transient_error_backs_off_and_is_never_set_aside(kind: type[MuxerError]) -> None:
    journal, now = Journal(None), 0.0
    for _ in range(50):
        entry = journal.record_failure(TARGET_KEY, kind("later"), now)
        assert entry.retry_at is not None
        assert entry.retry_at > now
        assert not journal.may_run("x", now)
        assert journal.may_run("x", entry.retry_at)
        now = entry.retry_at


@pytest.mark.parametrize(("status", "code"), [(401, 20), (403, 5), (403, 3), (500, 4), (503, 0), (429, 0)])
def test_errors_of_a_whole_service_are_never_set_aside(status: int, code: int) -> None:
    journal = Journal(None)
    for number in range(10):
        entry = journal.record_failure(
            TARGET_KEY, response_error(HttpResponse("RWS", status, {}, b""), code, ""), float(number)
        )
    assert entry.retry_at is not None


def test_the_delay_grows_up_to_a_bound() -> None:
    delays = [backoff_delay(attempt) for attempt in range(1, 2000)]
    assert delays == sorted(delays)
    assert delays[0] < delays[1] < delays[2]
    assert delays[-1] <= 3600


def test_media_that_may_still_arrive_are_tried_at_every_poll() -> None:
    journal = Journal(None)
    for number in range(20):
        journal.record_failure(TARGET_KEY, MediaNotFound("not there"), float(number))
        assert journal.may_run("x", float(number))


def test_a_missing_file_is_looked_for_less_often_the_longer_it_is_missing() -> None:
    journal = Journal(None)
    for now, retry_at in ((0, 0), (3600, 3600), (7200, 7920), (100_000, 103_600)):
        assert journal.record_failure(TARGET_KEY, MediaNotFound("not there"), now).retry_at == retry_at
    assert journal.record_failure(TARGET_KEY, MediaIncomplete("truncated"), 100_001).retry_at == 100_001


@pytest.mark.parametrize("error", [OSError(24, "too many open files"), MemoryError(), StoredByOtherMuxer("theirs")])
def test_local_errors_and_other_muxers_back_off_and_are_never_set_aside(error: Exception) -> None:
    journal = Journal(None)
    for _ in range(20):
        journal.record_failure(TARGET_KEY, error, 0.0)
        assert not journal.may_run("x", 1.0)
    assert journal.may_run("x", FOREVER)


def test_the_delay_requested_by_a_service_is_kept() -> None:
    entry = Journal(None).record_failure(TARGET_KEY, ServiceUnavailable("busy", retry_after=500), 1000)
    assert entry.retry_at is not None
    assert 1500 <= entry.retry_at <= 1600


@pytest.mark.parametrize("kind", [MediaError, MetadataError, ToolError, EncryptionError, ValueError])
def test_a_permanent_error_is_tried_a_bounded_number_of_times_then_set_aside(kind: type[Exception]) -> None:
    journal = Journal(None)
    for _ in range(MAX_PERMANENT_ATTEMPTS - 1):
        journal.record_failure(TARGET_KEY, kind("corrupt"), 0)
        assert journal.may_run("x", FOREVER)
    entry = journal.record_failure(TARGET_KEY, kind("corrupt"), 0)
    assert entry.retry_at is None
    assert not journal.may_run("x", FOREVER)
    assert entry.reason == "corrupt"


def test_an_outage_does_not_use_up_the_attempts_of_a_permanent_error() -> None:
    journal = Journal(None)
    for number in range(10):
        journal.record_failure(TARGET_KEY, ServiceUnavailable("down"), float(number))
    journal.record_failure(TARGET_KEY, ToolError("too slow"), 10)
    assert journal.may_run("x", FOREVER)


def test_a_success_resets_the_failures() -> None:
    journal = Journal(None)
    for _ in range(MAX_PERMANENT_ATTEMPTS):
        journal.record_failure(TARGET_KEY, MediaError("corrupt"), 0)
    journal.record_done(TARGET_KEY, 0, {})
    assert journal.may_run("x", 0)
    assert journal.record_failure(TARGET_KEY, MediaError("corrupt"), 0).attempts == 1


def test_targets_do_not_affect_each_other() -> None:
    journal = Journal(None)
    for _ in range(MAX_PERMANENT_ATTEMPTS):
        journal.record_failure(TARGET_KEY, MediaError("corrupt"), 0)
    assert journal.may_run("x with another screen file", 0)


def test_the_journal_does_not_grow_without_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FAILURES_IN_MEMORY", 3)
    journal = Journal(None)
    for name in ("a", "b", "c", "a", "d"):
        journal.record_failure(TargetKey(name, "C1"), MediaError("corrupt"), 0)
    assert [name for name in "abcd" if not journal.may_run(name, 0)] == ["a", "c", "d"]


# ---- on disk -----------------------------------------------------------------------------------------


def read_states(path: Path) -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return dict(database.execute("SELECT name, state FROM targets"))


def test_a_target_set_aside_stays_set_aside_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    journal = Journal(path)
    for _ in range(MAX_PERMANENT_ATTEMPTS):
        journal.record_failure(TARGET_KEY, MediaError("corrupt"), 100.0)
    journal.close()
    again = Journal(path)
    assert not again.may_run("x", FOREVER)
    assert read_states(path) == {"x": "aside"}


def test_the_attempts_and_the_time_of_the_next_one_survive_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    entry = Journal(path).record_failure(TARGET_KEY, ServiceUnavailable("down"), 1000.0)  # never closed
    again = Journal(path)
    assert entry.retry_at is not None
    assert not again.may_run("x", entry.retry_at - 1)
    assert again.may_run("x", entry.retry_at)
    assert again.record_failure(TARGET_KEY, ServiceUnavailable("down"), 2000.0).attempts == 2


def test_targets_of_a_dead_process_are_wanted_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    Journal(path).record_running(TARGET_KEY, 1.0)
    Journal(path)
    assert read_states(path) == {"x": "wanted"}


def test_each_state_is_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    journal = Journal(path)
    seen = []
    journal.record_wanted(TARGET_KEY, 1.0)
    seen.append(read_states(path)["x"])
    journal.record_running(TARGET_KEY, 2.0)
    seen.append(read_states(path)["x"])
    journal.record_failure(TARGET_KEY, ServiceUnavailable("down"), 3.0)
    seen.append(read_states(path)["x"])
    journal.record_done(TARGET_KEY, 4.0, {"seconds": 1.5})
    seen.append(read_states(path)["x"])
    assert seen == ["wanted", "running", "retry", "done"]


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100, b"SQLite format 3\0" + bytes(4096)])
def test_an_unreadable_journal_is_replaced(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "journal.sqlite3"
    path.write_bytes(content)
    journal = Journal(path)
    journal.record_failure(TARGET_KEY, MediaError("corrupt"), 1.0)
    assert read_states(path) == {"x": "retry"}
    assert bool(content) == ("replaced by a new one" in caplog.text)


@pytest.fixture
def closed_before_move(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list that gets, for each journal that is moved away, whether it was closed (as Windows needs)."""
    moves: list[bool] = []
    move = module._set_aside_corrupt

    def record_move(path: Path) -> None:
        opened = [Path(f"/proc/self/fd/{one}") for one in os.listdir("/proc/self/fd")]  # noqa: PTH208
        moves.append(not any(one.exists() and one.samefile(path) for one in opened))
        move(path)

    if sys.platform == "linux":
        monkeypatch.setattr(module, "_set_aside_corrupt", record_move)
    return moves


def test_a_journal_whose_rows_cannot_be_read_is_closed_and_replaced(tmp_path: Path, closed_before_move: list[bool]) -> None:
    path = tmp_path / "journal.sqlite3"
    Journal(path).close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE targets")
        database.execute("CREATE TABLE targets (state TEXT)")
    journal = Journal(path)
    journal.record_wanted(TARGET_KEY, 1.0)
    assert read_states(path) == {"x": "wanted"} and path.with_suffix(".corrupt").exists()
    assert all(closed_before_move)


def test_a_journal_damaged_in_use_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, closed_before_move: list[bool]
) -> None:
    path = tmp_path / "journal.sqlite3"
    journal = Journal(path)
    for number in range(2000):
        journal.record_failure(TargetKey(f"n{number}", "C1"), MediaError("x" * 200), 1.0)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    path.write_bytes(content[:4096] + os.urandom(len(content) - 4096))
    journal.reload_changes(2.0)
    for number in range(2000, 2100):
        journal.record_failure(TargetKey(f"n{number}", "C1"), MediaError("y"), 3.0)
    assert "replaced by a new one" in caplog.text
    assert read_states(path)["n2099"] == "retry"
    assert not journal.may_run("n2099", 3.0)
    assert all(closed_before_move)


def test_a_journal_with_another_schema_is_replaced_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    Journal(path).record_wanted(TARGET_KEY, 1.0)
    assert read_states(path) == {"x": "wanted"}
    assert path.with_suffix(".corrupt").exists()


@pytest.mark.parametrize("is_windows", [True, False])
def test_a_journal_that_another_program_holds_open_on_windows_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_windows: bool
) -> None:
    """The C library of Windows reports a file in use as a missing permission; on POSIX that is a file of another account."""
    path = tmp_path / "journal.sqlite3"
    Journal(path).close()
    monkeypatch.setattr(sys, "platform", "win32" if is_windows else "linux")
    monkeypatch.setattr(files, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(module, "LOCK_TIMEOUT_SECONDS", 0.0)
    with monkeypatch.context() as held:
        held.setattr(os, "open", raise_held)
        journal = Journal(path)
    assert path.with_suffix(".corrupt").exists() is not is_windows
    assert ("kept in memory" in caplog.text) is is_windows
    journal.reload_changes(1.0)
    journal.record_wanted(TARGET_KEY, 1.0)
    assert read_states(path) == {"x": "wanted"}


def raise_held(*_arguments: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_a_journal_that_cannot_be_written_does_not_stop_the_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(tmp_path / "missing" / "journal.sqlite3")
    for _ in range(MAX_PERMANENT_ATTEMPTS):
        journal.record_failure(TARGET_KEY, MediaError("corrupt"), 1.0)
    assert not journal.may_run("x", FOREVER)
    assert "cannot be used" in caplog.text


def test_a_lock_of_another_process_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT_SECONDS", 0.05)
    path = tmp_path / "journal.sqlite3"
    journal = Journal(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        journal.record_failure(TARGET_KEY, ServiceUnavailable("down"), 1.0)
        journal.record_wanted(TargetKey("y", "C2"), 1.0)
        other.execute("COMMIT")
    assert caplog.text.count("cannot be written now") == 1
    assert not journal.may_run("x", 2.0), "the state in memory is used"
    journal.record_wanted(TargetKey("z", "C3"), 2.0)
    assert read_states(path) == {"x": "retry", "y": "wanted", "z": "wanted"}


def write_set_aside(path: Path) -> None:
    """Write a journal in which a target is set aside."""
    journal = Journal(path)
    for _ in range(MAX_PERMANENT_ATTEMPTS):
        journal.record_failure(TARGET_KEY, MediaError("corrupt"), 1.0)
    journal.close()


def test_targets_set_aside_survive_a_start_while_the_disk_is_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_disk(tmp_path / "disk", "512k") as folder:
        write_set_aside(folder / "journal.sqlite3")
        filler = fill_disk(folder)
        journal = Journal(folder / "journal.sqlite3")
        journal.record_failure(TargetKey("y", "C2"), ServiceUnavailable("down"), 1.0)
        journal.reload_changes(1.0)
        filler.unlink()
        journal.reload_changes(2.0)
        assert not journal.may_run("x", FOREVER)
        assert not journal.may_run("y", 1.0)
        journal.record_wanted(TargetKey("z", "C3"), 2.0)
        assert read_states(folder / "journal.sqlite3") == {"x": "aside", "y": "retry", "z": "wanted"}
        journal.close()
    assert len([record for record in caplog.records if "kept in memory" in record.message]) == 1


def test_targets_set_aside_survive_a_start_with_a_locked_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT_SECONDS", 0.05)
    path = tmp_path / "journal.sqlite3"
    write_set_aside(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        journal = Journal(path)
        journal.reload_changes(1.0)
    journal.reload_changes(2.0)
    assert not journal.may_run("x", FOREVER)


def test_a_locked_journal_is_waited_for_once_and_again_after_its_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOCK_TIMEOUT_SECONDS", 0.2)
    path = tmp_path / "journal.sqlite3"
    journal = Journal(path)

    def busy_timeout_ms() -> int:
        assert journal._database is not None
        return int(journal._database.execute("PRAGMA busy_timeout").fetchone()[0])

    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        journal.record_wanted(TARGET_KEY, 1.0)
        assert busy_timeout_ms() == 0
    journal.record_wanted(TARGET_KEY, 1.0)
    assert busy_timeout_ms() == 200


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a file away")
def test_a_journal_of_another_account_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    write_set_aside(path)
    os.chown(path, 12345, -1)
    assert Journal(path).may_run("x", 2.0)
    assert path.stat().st_uid == 0


def test_a_link_in_place_of_the_journal_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    (tmp_path / "journal.sqlite3").symlink_to(tmp_path / "precious")
    Journal(tmp_path / "journal.sqlite3").record_wanted(TARGET_KEY, 1.0)
    assert (tmp_path / "precious").read_bytes() == b""
    assert read_states(tmp_path / "journal.sqlite3") == {"x": "wanted"}


def test_a_target_requeued_by_the_operator_may_run_after_the_next_reload(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    journal = Journal(path)
    for _ in range(MAX_PERMANENT_ATTEMPTS):
        journal.record_failure(TARGET_KEY, MediaError("corrupt"), 100.0)
    journal.reload_changes(100.0)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as operator:
        operator.execute("UPDATE targets SET state = 'wanted', attempts = 0, permanent = 0 WHERE name = 'x'")
    journal.reload_changes(101.0)
    assert journal.may_run("x", 101.0)
    assert journal.record_failure(TARGET_KEY, MediaError("corrupt"), 102.0).attempts == 1


def test_the_journal_does_not_grow_over_the_years(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DONE_TARGETS", 10)
    path = tmp_path / "journal.sqlite3"
    journal = Journal(path)
    for day in range(200):
        journal.record_done(TargetKey(f"d{day}", "C1"), day * 3600.0, {})
    journal.record_failure(TargetKey("old", "C2"), MediaError("corrupt"), 0.0)
    journal.reload_changes(200 * 3600.0)
    assert sorted(read_states(path)) == [f"d{day}" for day in range(190, 200)]
    assert journal.may_run("old", 0.0)


@pytest.mark.posix
def test_only_this_account_can_read_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    Journal(path).record_wanted(TARGET_KEY, 1.0)
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o077 == 0


def test_a_clock_that_was_set_back_delays_no_target() -> None:
    journal = Journal(None)
    journal.record_failure(TARGET_KEY, ServiceUnavailable("down"), 1_000_000.0)
    assert not journal.may_run("x", 1_000_001.0)
    assert journal.may_run("x", 1000.0)


def test_targets_done_by_another_process_are_loaded(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite3")
    for _ in range(MAX_PERMANENT_ATTEMPTS):
        journal.record_failure(TARGET_KEY, MediaError("broken"), 1)
    assert not journal.may_run("x", FOREVER)
    record_external_success(tmp_path / "journal.sqlite3", TARGET_KEY, 2, {"bytes": 3})
    journal.reload_changes(3)
    assert journal.may_run("x", 3)
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite3")) as database:
        row = database.execute("SELECT state, attempts, facts FROM targets").fetchone()
    assert row == ("done", 0, '{"bytes": 3}')


def test_another_process_creates_no_journal(tmp_path: Path) -> None:
    record_external_success(tmp_path / "journal.sqlite3", TARGET_KEY, 2, {})
    assert list(tmp_path.iterdir()) == []


def test_a_failure_that_could_not_be_written_survives_a_change_by_another_process(tmp_path: Path) -> None:
    journal = Journal(path := tmp_path / "journal.sqlite3")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        journal.record_failure(TARGET_KEY, EncryptionMissing("no certificate"), 100.0)
        assert not journal.is_persistent
        other.execute("INSERT INTO samples VALUES (100, 0, 0, 0, NULL)")
        other.execute("COMMIT")
    journal.reload_changes(101.0)
    assert not journal.may_run("x", 101.0)
    journal.close()
    assert not Journal(path).may_run("x", 101.0)


@pytest.mark.posix
def test_a_journal_whose_folder_was_removed_continues_in_the_new_one(tmp_path: Path) -> None:
    (folder := tmp_path / "temp").mkdir()
    journal = Journal(path := folder / "journal.sqlite3")
    journal.record_failure(TARGET_KEY, EncryptionMissing("no certificate"), 100.0)
    shutil.rmtree(folder)
    folder.mkdir()
    journal.reopen_database()
    journal.record_wanted(TargetKey("y", "C2"), 101.0)
    assert not journal.may_run("x", 101.0)
    assert read_states(path) == {"y": "wanted"}
