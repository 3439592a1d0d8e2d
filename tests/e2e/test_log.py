"""The log of the real process: a line for each step and recording, formats, levels, rotation, one writer, full disks."""

from __future__ import annotations

import json
import re
import shutil
import stat
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from lab.cases import Case
from lab.lab import Lab
from tests.support.daemon import FAST_RETRY, MuxerProcess, log_lines, run_muxer, wait_until
from tests.support.disk import fill_disk, small_disk, without_privilege
from tests.support.muxer_runs import labelled_ids, log_messages, write_config
from tests.support.tiers import spread_variants

Make = Callable[..., Lab]
TIMEOUT_SECONDS = 60
MIGRATION = {"advanced__call_recording_query_string": "startTime=0"}
STEPS = ["check", "fetch", "mux", "store", "publish", "label"]


@pytest.mark.parametrize("encrypted", spread_variants([True, False], 2))
def test_each_step_is_logged_and_last_line_has_all_timings(make_lab: Make, encrypted: bool) -> None:
    lab = make_lab(encryption_group="certificates" if encrypted else "empty")
    (call,) = lab.add_case(Case.ENCRYPTED if encrypted else Case.PLAIN)
    config, log = write_config(lab, **MIGRATION)
    assert run_muxer(config, seconds=TIMEOUT_SECONDS).process.returncode == 0
    lines = [line for line in log_lines(log) if line.get("recording") == call.id]
    steps = [line for line in lines if "step" in line]
    assert [line["step"] for line in steps] == [*STEPS[:3], *(["encrypt"] if encrypted else []), *STEPS[3:]]
    assert all(line["message"] == f"{line['step']} done" and line["seconds"] > 0 for line in steps)
    (finished,) = [line for line in lines if line["message"] == "recording muxed"]
    timings = {name.removesuffix("_seconds"): value for name, value in finished.items() if name.endswith("_seconds")}
    assert timings == {line["step"]: pytest.approx(line["seconds"], abs=0.001) for line in steps}
    assert finished["seconds"] == pytest.approx(sum(timings.values()), abs=0.01)
    assert (finished["agent"], finished["sources"], finished["encrypted"]) == ("agent1", 2, encrypted)
    assert lines[-1] == finished


def test_failed_step_is_logged(make_lab: Make) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    (lab.site.media.folder / "screens" / call.screens[0].media_id).write_bytes(b"rubbish")
    config, log = write_config(lab)
    with MuxerProcess(config) as muxer:
        wait_until(lambda: "mux failed" in log_messages(log), TIMEOUT_SECONDS, "the failure", log)
        assert muxer.stop() == 0
    lines = [line for line in log_lines(log) if line.get("recording") == call.id and "step" in line]
    assert [line["message"] for line in lines][:3] == ["check done", "fetch done", "mux failed"]
    assert lines[2]["seconds"] > 0


def test_text_format_has_the_same_lines(make_lab: Make) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    config, log = write_config(lab, **MIGRATION, logfile__format="text")
    assert run_muxer(config, seconds=TIMEOUT_SECONDS).process.returncode == 0
    text = log.read_text()
    for step in (*STEPS, "encrypt"):
        pattern = rf"^\d{{4}}-\S+Z INFO    \[{call.id}\] {step} done step={step} seconds=\d+\.\d{{3}}$"
        assert len(re.findall(pattern, text, re.MULTILINE)) == 1
    (finished,) = re.findall(rf"^\S+Z INFO    \[{call.id}\] recording muxed (.*)$", text, re.MULTILINE)
    assert re.findall(r"(\w+)_seconds=[\d.]+", finished) == [*STEPS[:3], "encrypt", *STEPS[3:]]


@pytest.mark.machine_ffmpeg
def test_debug_log_files_contain_everything_but_secrets(make_lab: Make) -> None:
    lab = make_lab()
    calls = [lab.add_case(case)[0] for case in (Case.PLAIN, Case.ENCRYPTED)]
    size = 4000
    config, log = write_config(
        lab, **MIGRATION, logfile__level="debug", logfile__max_bytes=str(size), logfile__backup_count="2"
    )
    passwords = {account.password for account in (lab.site.rws_account, lab.site.rcs_account, lab.site.dav_account)}
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, umask=0)
    assert done.process.returncode == 0, done.err
    names = {path.name for path in log.parent.iterdir()}
    assert names == {log.name, f"{log.name}.1", f"{log.name}.2", f"{log.name}.lock"}
    files = [log.with_name(f"{log.name}{end}") for end in (".2", ".1", "")]
    assert all(path.stat().st_size <= size and stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    # Threads write their lines one after the other, some milliseconds after their times.
    times = [datetime.fromisoformat(line["time"]) for line in lines]
    assert all(later - earlier > timedelta(seconds=-1) for earlier, later in pairwise(times))
    assert any(line["level"] == "debug" and "running: ffmpeg" in line["message"].replace("/usr/bin/", "") for line in lines)
    assert lines[-1]["message"] == "stopped"
    assert {line.get("recording") for line in lines} >= {call.id for call in calls}
    written = "".join(path.read_text() for path in files) + done.err + done.out
    assert passwords and not [one for one in passwords if one in written]


@pytest.mark.long
def test_warning_level_hides_normal_work(make_lab: Make) -> None:
    lab = make_lab()
    (good,) = lab.add_case(Case.PLAIN, serial=1)
    (bad,) = lab.add_case(Case.PLAIN, serial=2)
    (lab.site.media.folder / "screens" / bad.screens[0].media_id).write_bytes(b"rubbish")
    config, log = write_config(lab, logfile__level="warning", processing__min_poll_interval="0.02")
    with MuxerProcess(config, **FAST_RETRY) as muxer:
        wait_until(
            lambda: any("set aside" in message for message in log_messages(log)), TIMEOUT_SECONDS, "the set-aside state", log
        )
        wait_until(lambda: good.id in labelled_ids(lab), TIMEOUT_SECONDS, "the label of the good recording", log)
        assert muxer.stop() == 0
    lines = log_lines(log)
    assert {line["level"] for line in lines} <= {"warning", "error"}
    assert [line["recording"] for line in lines if "set aside" in line["message"]] == [bad.id]


def test_second_process_does_not_write_to_same_log_file(make_lab: Make, tmp_path: Path) -> None:
    config, log = write_config(make_lab())
    (tmp_path / "temp").mkdir()
    other = tmp_path / "other.cfg"
    other.write_text(re.sub(r"temp_dir = .*", f"temp_dir = {tmp_path / 'temp'}", config.read_text()))
    with MuxerProcess(config) as first:
        wait_until(lambda: "poll done" in log_messages(log), TIMEOUT_SECONDS, "a poll", log)
        second = run_muxer(other, seconds=TIMEOUT_SECONDS, cwd=tmp_path)
        assert second.process.returncode == 2
        (line,) = [line for line in second.err.splitlines() if "[logfile] logfile_path" in line]
        assert str(log) in line and f"process {first.process.pid} on " in line
        assert "cannot start" not in log.read_text()
        assert line.strip() in log.with_name("recording-muxer-refused.log").read_text(), "under LCA no one sees stderr"
        assert not list(tmp_path.glob("*.log*")), "nothing is left in the working directory"
        third = run_muxer(other, seconds=TIMEOUT_SECONDS, cwd=log.parent)
        assert third.process.returncode == 2 and "cannot start" not in log.read_text()
        first.process.kill()
        first.process.wait()
    with MuxerProcess(other) as second:
        lines = log_lines(log)
        wait_until(lambda: "poll done" in log_messages(log)[len(lines) :], TIMEOUT_SECONDS, "a poll", log)
        assert second.stop() == 0


@pytest.mark.parametrize("kind", ["folder", "read-only"])
def test_unwritable_log_file_is_refused(make_lab: Make, tmp_path: Path, kind: str) -> None:
    config, log = write_config(make_lab())
    through = []
    if kind == "folder":
        log.mkdir()
    else:
        log.touch(mode=0o400)
        through = without_privilege()
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, cwd=tmp_path, through=through)
    assert done.process.returncode == 2
    assert f"[logfile] logfile_path: the log file cannot be written: {log}: " in done.err
    assert "Traceback" not in done.err and done.err.count("cannot be written") == 1


def test_full_log_disk_does_not_delay_work(make_lab: Make) -> None:
    lab = make_lab()
    config, log = write_config(lab, logfile__level="debug")
    with small_disk(log.parent, "1m") as folder:
        with MuxerProcess(config) as muxer:
            wait_until(lambda: "poll done" in log_messages(log), TIMEOUT_SECONDS, "a poll", log)
            filler = fill_disk(folder)
            (call,) = lab.add_case(Case.PLAIN)
            wait_until(lambda: call.id in labelled_ids(lab), TIMEOUT_SECONDS, "the label", log)
            filler.unlink()
            wait_until(lambda: log.read_text().count("poll done") > 1, TIMEOUT_SECONDS, "a poll that is logged", log)
            assert muxer.stop() == 0
        shutil.copy(log, lab.folder / "kept")
    assert log_lines(lab.folder / "kept")[-1]["message"] == "stopped"
    assert muxer.err.count("cannot be written, lines are lost: [Errno 28]") == 1
    assert muxer.err.count("is written again") == 1
    assert "Traceback" not in muxer.err and "Logging error" not in muxer.err


def test_muxer_with_permanently_full_log_disk_starts_works_and_stops(make_lab: Make) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    config, log = write_config(lab)
    with small_disk(log.parent, "1m") as folder:
        fill_disk(folder)
        with MuxerProcess(config) as muxer:
            wait_until(lambda: call.id in labelled_ids(lab), TIMEOUT_SECONDS, "the label")
            assert muxer.stop() == 0
    assert "cannot be written" in muxer.err
    assert "Traceback" not in muxer.err and "Exception ignored" not in muxer.err, muxer.err
