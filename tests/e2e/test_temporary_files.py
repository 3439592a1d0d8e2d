"""The temporary folder of the real process: the lock, the clean-up, permissions, and a disk that becomes full."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.cases import Case
from lab.lab import Lab
from tests.support.daemon import MuxerProcess, log_lines, run_muxer, wait_until
from tests.support.disk import KILOBYTE, fill_disk, small_disk, without_privilege
from tests.support.muxer_runs import labelled_ids, log_messages, muxed_entries, write_config, write_slow_program
from tests.support.tiers import spread_variants

Make = Callable[..., Lab]
TIMEOUT_SECONDS = 60
FULL, ROOM = "the disk is nearly full", "the disk has enough space again"
MIGRATION = {"advanced__call_recording_query_string": "startTime=0"}


def matching_lines(log: Path, text: str) -> list[dict]:
    return [line for line in log_lines(log) if text in line["message"]]


def create_leftover(folder: Path, name: str) -> Path:
    path = folder / name
    path.mkdir()
    (path / "half.mp4").write_bytes(b"half")
    return path


# --- the folder and its lock ---


def write_minimal(folder: Path, **options: Path) -> Path:
    """Write a configuration that is refused before any service is called."""
    config = folder / "muxer.cfg"
    settings = {"temp_dir": folder / "temp", "logfile_path": folder / "log", **options}
    for path in (folder / "temp", folder / "log"):
        path.mkdir(exist_ok=True)
    config.write_text(
        "[htcc]\nbase_uri = http://127.0.0.1:9\ncontact_center_id = c\n"
        f"[processing]\ntemp_dir = {settings['temp_dir']}\n[logfile]\nlogfile_path = {settings['logfile_path']}\n"
    )
    return config


@pytest.mark.parametrize("option", ["temp_dir", "logfile_path"])
@pytest.mark.parametrize("kind", ["missing", "file", "read-only"])
def test_unusable_folder_is_refused(tmp_path: Path, option: str, kind: str) -> None:
    folder, through = tmp_path / "bad", []
    if kind == "file":
        folder.write_bytes(b"")
    elif kind == "read-only":
        folder.mkdir(mode=0o500)
        through = without_privilege()
    done = run_muxer(write_minimal(tmp_path, **{option: folder}), seconds=TIMEOUT_SECONDS, cwd=tmp_path, through=through)
    assert done.process.returncode == 2
    (line,) = [line for line in done.err.splitlines() if f"] {option} = '{folder}'" in line]
    assert ("may read and write" if kind == "read-only" else "folder that exists") in line
    assert "Traceback" not in done.err


def test_second_instance_reports_lock_holder_and_kill_9_releases_lock(make_lab: Make, tmp_path: Path) -> None:
    config, log = write_config(make_lab())
    other = tmp_path / "other.cfg"
    (tmp_path / "other-log").mkdir()
    other.write_text(config.read_text().replace(str(log.parent), str(tmp_path / "other-log")))
    with MuxerProcess(config) as first:
        wait_until(lambda: "poll done" in log_messages(log), TIMEOUT_SECONDS, "a poll", log)
        second = run_muxer(other, seconds=TIMEOUT_SECONDS)
        assert second.process.returncode == 2
        assert "[processing] temp_dir" in second.err and "another instance" in second.err
        assert f"process {first.process.pid} on {os.uname().nodename}" in second.err
        first.process.kill()
        first.process.wait()
    with MuxerProcess(other) as second:
        other_log = tmp_path / "other-log" / log.name
        wait_until(lambda: '"poll done"' in other_log.read_text(), TIMEOUT_SECONDS, "a poll", other_log)
        assert second.stop() == 0


def test_folder_deleted_under_running_muxer_is_recreated(make_lab: Make) -> None:
    lab = make_lab()
    config, log = write_config(lab)
    temp = lab.folder / "temp"
    with MuxerProcess(config) as muxer:
        wait_until(lambda: "poll done" in log_messages(log), TIMEOUT_SECONDS, "a poll", log)
        temp.rename(removed := lab.folder / "removed")
        wait_until(lambda: matching_lines(log, "was created again"), TIMEOUT_SECONDS, "the folder", log)
        (call,) = lab.add_case(Case.PLAIN)
        wait_until(lambda: call.id in labelled_ids(lab), TIMEOUT_SECONDS, "the label", log)
        assert muxer.stop() == 0
    assert removed.is_dir() and (temp / "journal.sqlite3").exists()
    assert [line["level"] for line in matching_lines(log, "was removed while it is in use")] == ["critical"]


# --- the clean-up ---


@pytest.fixture
def strangers(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Return a function that puts foreign files into a folder. At the end all of them must still exist."""
    kept = []

    def create_foreign_entries(temp: Path) -> None:
        elsewhere = create_leftover(tmp_path, "elsewhere")
        (temp / "muxer-job-notes.txt").write_text("notes")
        (temp / "muxer-job-00000000").symlink_to(elsewhere)
        folders = [create_leftover(temp, name) for name in ("muxer-job-backup", "holiday")]
        kept.extend([temp / "muxer-job-notes.txt", temp / "muxer-job-00000000", elsewhere / "half.mp4"])
        kept.extend(folder / "half.mp4" for folder in folders)

    yield create_foreign_entries
    assert kept and all(path.exists() for path in kept)


@pytest.mark.parametrize(("enabled", "timeout"), spread_variants([("1", "43200"), ("1", "-1"), ("0", "1"), ("1", "1")], 2))
def test_leftover_files_are_cleaned_up_as_configured(
    make_lab: Make, strangers: Callable[[Path], None], enabled: str, timeout: str
) -> None:
    lab = make_lab()
    config, log = write_config(
        lab, processing__auto_clean_temp_folder=enabled, processing__clean_temp_folder_timeout=timeout
    )
    temp = lab.folder / "temp"
    early = create_leftover(temp, "muxer-job-0_dead_0")
    (early / "link").symlink_to(lab.folder)
    strangers(temp)
    with MuxerProcess(config) as muxer:
        if enabled == "1":
            wait_until(lambda: not early.exists(), TIMEOUT_SECONDS, "the clean-up after the start", log)
        wait_until(lambda: "poll done" in log_messages(log), TIMEOUT_SECONDS, "a poll", log)
        late = create_leftover(temp, "muxer-job-1_dead_1")
        if enabled == "1" and timeout != "43200":
            wait_until(lambda: not late.exists(), TIMEOUT_SECONDS, "the next clean-up", log)
        else:
            time.sleep(2)
        assert muxer.stop() == 0
    assert early.exists() == (enabled == "0")
    assert late.exists() == (enabled == "0" or timeout == "43200")
    assert len(matching_lines(log, "leftover folders removed")) == (not early.exists()) + (not late.exists())


def test_idle_cleanup_waits_for_jobs_and_files_are_private(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    slow = write_slow_program(tmp_path, "ffmpeg")
    slow.write_text(slow.read_text().replace("sleep 600", f"while [ ! -e {tmp_path / 'go'} ]; do sleep 0.2; done"))
    config, log = write_config(lab, processing__ffmpeg=str(slow), processing__clean_temp_folder_timeout="-1")
    temp = lab.folder / "temp"
    temp.chmod(0o755)
    early = create_leftover(temp, "muxer-job-1_dead_1")
    with MuxerProcess(config, umask=0) as muxer:
        wait_until(lambda: "fetch done" in log_messages(log), TIMEOUT_SECONDS, "the fetch", log)
        wait_until(lambda: not early.exists(), TIMEOUT_SECONDS, "the clean-up after the start", log)
        created = [path for path in temp.rglob("*") if not path.is_symlink()]
        assert len(created) >= 5  # the job's folder and sources, the lock, publishing/, uploading/
        assert {stat.S_IMODE(path.stat().st_mode) for path in created if path.is_dir()} == {0o700}
        assert {stat.S_IMODE(path.stat().st_mode) for path in [*created, log] if path.is_file()} == {0o600}
        assert stat.S_IMODE(temp.stat().st_mode) == 0o755
        dead = create_leftover(temp, "muxer-job-0_dead_0")
        time.sleep(1.5)
        assert dead.exists()
        (tmp_path / "go").touch()
        wait_until(lambda: not dead.exists(), TIMEOUT_SECONDS, "the clean-up", log)
        assert muxer.stop() == 0
    assert call.id in labelled_ids(lab)


def test_instances_without_temp_dir_have_separate_folders(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    config, log = write_config(lab)
    config.write_text(re.sub(r"temp_dir = .*", "temp_dir =", config.read_text()))
    env = {"TMPDIR": str(tmp_path)}
    sharded = ("--muxer-id=0", "--total-muxers=2")
    with (
        MuxerProcess(config, *sharded, env=env) as primary,
        MuxerProcess(config, *sharded, "--muxer-type=backup", env=env) as backup,
    ):
        logs = [log.with_name(f"recording-muxer-{name}.log") for name in ("primary-0", "backup-0")]
        for one in logs:
            wait_until(lambda one=one: "poll done" in log_messages(one), TIMEOUT_SECONDS, "a poll", one)  # type: ignore[misc]
        assert (primary.stop(), backup.stop()) == (0, 0)
    folders = [tmp_path / f"recording-muxer-{name}" for name in ("primary-0", "backup-0")]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700, 0o700]


# --- a disk that becomes full ---


def test_full_disk_pauses_work_until_space_is_free(make_lab: Make) -> None:
    lab = make_lab()
    calls = [lab.add_case(Case.PLAIN, serial=number)[0] for number in range(2)]
    config, log = write_config(lab)
    with small_disk(lab.folder / "temp", "24m") as temp:
        filler = fill_disk(temp)
        with MuxerProcess(config) as muxer:
            wait_until(lambda: matching_lines(log, FULL), TIMEOUT_SECONDS, "the line", log)
            time.sleep(2.5)
            assert not matching_lines(log, "check done") and not matching_lines(log, "poll done")
            filler.unlink()
            wait_until(lambda: labelled_ids(lab) == {call.id for call in calls}, TIMEOUT_SECONDS, "the labels", log)
            assert muxer.stop() == 0
    ((started,), (ended,)) = matching_lines(log, FULL), matching_lines(log, ROOM)
    assert (started["level"], ended["level"]) == ("error", "warning")
    for part in (str(temp), "0.0 MB are free", "1.2 MB must stay free", "1.3 MB are free"):
        assert part in started["message"]
    order = log_messages(log)
    assert order.index(started["message"]) < order.index(ended["message"]) < order.index("check done")


@pytest.mark.long
def test_stop_during_full_disk_is_immediate(make_lab: Make) -> None:
    lab = make_lab()
    lab.add_case(Case.PLAIN)
    config, log = write_config(lab)
    with small_disk(lab.folder / "temp", "24m") as temp:
        fill_disk(temp)
        with MuxerProcess(config) as muxer:
            wait_until(lambda: matching_lines(log, FULL), TIMEOUT_SECONDS, "the line", log)
            time.sleep(1)
            before = time.monotonic()
            assert muxer.stop() == 0
            assert time.monotonic() - before < 5
    assert not matching_lines(log, "check done") and not matching_lines(log, ROOM)


@pytest.mark.long
def test_migration_waits_for_configured_free_space(make_lab: Make) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    config, log = write_config(lab, **MIGRATION, processing__min_free_megabytes="20")
    with small_disk(lab.folder / "temp", "24m") as temp:
        filler = fill_disk(temp, leave=19 * 1024 * KILOBYTE)
        with MuxerProcess(config) as muxer:
            wait_until(lambda: matching_lines(log, "20.0 MB must stay free"), TIMEOUT_SECONDS, "the line", log)
            time.sleep(1)
            assert muxer.process.poll() is None and not muxed_entries(lab, call.id)
            filler.unlink()
            assert muxer.wait(TIMEOUT_SECONDS) == 0
            assert "1 files muxed" in muxer.out


def test_more_free_space_than_disk_size_is_refused(make_lab: Make) -> None:
    lab = make_lab()
    config, _ = write_config(lab, processing__min_free_megabytes="23")
    with small_disk(lab.folder / "temp", "24m"):
        done = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 2
    assert "[processing] min_free_megabytes = '23': must be at most 21" in done.err


def claim_size(lab: Lab, recording_id: str, size: str) -> None:
    """Let the metadata of a recording claim that each source has this size."""
    call, screen = lab.store.get_call(recording_id), lab.store.get_screen(recording_id)
    assert call and screen
    for media in call["mediaFiles"]:
        media["size"] = size
    lab.store.add_call(call)
    for media in screen["mediaFiles"]:
        lab.store.add_screen_media(recording_id, lab.region, {**media, "size": size})


@pytest.mark.long
def test_recording_too_large_for_disk_waits_without_delaying_others(make_lab: Make) -> None:
    lab = make_lab()
    (large,) = lab.add_case(Case.PLAIN, serial=1)
    (small,) = lab.add_case(Case.PLAIN, serial=2)
    claim_size(lab, large.id, str(10 * 1024 * KILOBYTE))
    config, log = write_config(lab)
    with small_disk(lab.folder / "temp", "24m"), MuxerProcess(config) as muxer:
        wait_until(lambda: matching_lines(log, "it needs about 50.0 MB in"), TIMEOUT_SECONDS, "the refusal", log)
        wait_until(lambda: small.id in labelled_ids(lab), TIMEOUT_SECONDS, "the label of the other recording", log)
        assert muxer.stop() == 0
    refusals = matching_lines(log, "it needs about")
    assert {line["recording"] for line in refusals} == {large.id}
    assert "recording failed, retried later: MUX-232 LocalResourceError" in refusals[0]["message"]
    assert {line["recording"] for line in matching_lines(log, "fetch")} == {small.id}


def test_disk_that_becomes_full_during_mux_loses_nothing(make_lab: Make) -> None:
    """The sizes in the metadata are too small, so the recording starts and then runs out of disk space."""
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    claim_size(lab, call.id, "1")
    config, log = write_config(lab, **MIGRATION)
    screens = lab.site.media.folder / "screens"
    with small_disk(lab.folder / "temp", "4m") as temp:
        filler = fill_disk(temp, leave=400 * KILOBYTE)
        with MuxerProcess(config) as muxer:
            wait_until(lambda: matching_lines(log, "LocalResourceError"), TIMEOUT_SECONDS, "the failure", log)
            assert not list(temp.glob("muxer-job-*"))
            assert not muxed_entries(lab, call.id) and not lab.store.screen_posts
            assert [path.name for path in screens.iterdir()] == [call.screens[0].media_id]
            filler.unlink()
            assert muxer.wait(TIMEOUT_SECONDS) == 0, muxer.err
    (failure,) = matching_lines(log, "LocalResourceError")
    assert "fetch done" in log_messages(log)[: log_messages(log).index(failure["message"])]
    assert "retried later" in failure["message"]
    assert len(muxed_entries(lab, call.id)) == 1
