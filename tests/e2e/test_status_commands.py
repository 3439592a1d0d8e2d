"""Commands `status`, `failed` and `retry` next to the real muxer: a failure is listed, requeued and muxed."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.build import AddedCall
from lab.cases import Case
from lab.lab import Lab
from tests.support.commands import run_in_process, run_subprocess
from tests.support.daemon import PACKAGE, PYTHON, MuxerProcess, log_lines, wait_until
from tests.support.monitoring import send_request
from tests.support.muxer_runs import labelled_ids, muxed_entries, write_config
from tests.support.ports import free_port

TIMEOUT_SECONDS = 90


def run_named(
    config: Path, name: str, *arguments: str, how: Callable[..., Any] = run_in_process
) -> subprocess.CompletedProcess[str]:
    """Run a command in this process or in a separate one."""
    return subprocess.CompletedProcess(name, *how(config, name, *arguments))


def read_json(config: Path, *arguments: str) -> Any:
    return json.loads(run_named(config, *arguments, "--json").stdout)


@dataclass
class RunningLab:
    """A lab with a good recording and one with an empty screen file."""

    lab: Lab
    config: Path
    log: Path
    good: AddedCall
    broken: AddedCall
    whole: bytes

    @property
    def broken_source(self) -> Path:
        return self.lab.site.media.folder / "screens" / self.broken.screens[0].media_id


@pytest.fixture
def scene(make_lab: Callable[..., Lab]) -> Iterator[RunningLab]:
    lab = make_lab(encryption_group="empty")
    good, broken = lab.add_case(Case.GAPS)[0], lab.add_case(Case.PLAIN)[0]
    config, log = write_config(
        lab, processing__min_poll_interval="10", advanced__incomplete_after="0", logfile__format="json"
    )
    running = RunningLab(lab, config, log, good, broken, b"")
    running.whole = running.broken_source.read_bytes()
    running.broken_source.write_bytes(b"")
    yield running


def test_a_failure_that_waits_for_an_option_is_shown_as_such(make_lab: Callable[..., Lab]) -> None:
    """The muxer tries again, in vain: nothing may look as if it would resume."""
    lab, port = make_lab(), free_port()
    lab.add_case(Case.ENCRYPTED)
    options = {"rcs__base_uri": "", "rcs__username": "", "rcs__password": ""}
    config, log = write_config(lab, processing__min_poll_interval="10", monitoring__http_port=str(port), **options)
    with MuxerProcess(config) as muxer:
        wait_until(lambda: read_json(config, "failed"), TIMEOUT_SECONDS, "the failure", log)
        text = "Working; 1 recording waits for a correction"
        wait_until(lambda: text in send_request(port).body, TIMEOUT_SECONDS, "the failure on the page", log)
        shown = run_named(config, "status").stdout
        assert muxer.stop() == 0
    assert "\n1\tMUX-215\tretried; waits for a correction\nMUX-215: Configure `[rcs]` and restart the muxer." in shown
    (line,) = [line["message"] for line in log_lines(log) if "recording failed" in line["message"]]
    assert line.endswith("[rcs] base_uri is empty; set the options of [rcs], then restart the muxer")


def test_a_killed_muxer_is_noticed_at_once(make_lab: Callable[..., Lab]) -> None:
    config, log = write_config(make_lab(), processing__min_poll_interval="10")
    with MuxerProcess(config) as muxer:
        wait_until(lambda: run_named(config, "status").returncode == 0, TIMEOUT_SECONDS, "the state of a poll", log)
        assert run_named(config, "status").stdout.startswith("single: runs")
        muxer.process.kill()
        muxer.process.wait()
        killed = run_named(config, "status")
    assert killed.returncode == 1 and killed.stdout.startswith("single: died") and "the process died" in killed.stdout


def test_a_failure_is_listed_requeued_and_muxed(scene: RunningLab) -> None:
    """Polls are ten minutes apart: a requeued recording is retried long before the next one."""
    with MuxerProcess(scene.config) as muxer:
        wait_until(lambda: scene.good.id in labelled_ids(scene.lab), TIMEOUT_SECONDS, "the first muxed file", scene.log)
        wait_until(lambda: read_json(scene.config, "failed"), TIMEOUT_SECONDS, "the failure", scene.log)
        (failure,) = read_json(scene.config, "failed")
        assert (failure["recording"], failure["code"], failure["attempts"]) == (scene.broken.id, "MUX-322", 1)
        assert "the file is empty" in failure["reason"] and failure["remedy"]
        plain = run_named(scene.config, "failed")
        assert plain.returncode == 0 and scene.broken.id in plain.stdout and "MUX-322: Upload it again" in plain.stdout
        assert read_json(scene.config, "failed", "--code=MUX-999") == read_json(scene.config, "failed", "--aside") == []

        status = read_json(scene.config, "status")
        assert (status["standing"], status["trouble"]) == ("runs", []) and status["state"]["pid"] == muxer.process.pid
        assert status["targets"] == {"done": 1, "retry": 1} and status["failures_by_code"] == [["MUX-322", "retry", 1]]
        assert (status["last_hour"]["muxed"], status["last_hour"]["failed"]) == (1, 1)
        shown = run_named(scene.config, "status", how=run_subprocess)
        assert shown.returncode == 0 and "single: runs" in shown.stdout and "1 muxed, 1 failed" in shown.stdout
        assert "\nMUX-322: Upload it again" in shown.stdout and status["remedies"]["MUX-322"].startswith("Upload it again")

        unknown = run_named(scene.config, "retry", "nobody")
        assert unknown.returncode == 1 and "there is no failure of recording nobody" in unknown.stderr
        other_code = run_named(scene.config, "retry", "--all", "--code=MUX-999")
        assert other_code.returncode == 1 and "there is no failure with code MUX-999;" in other_code.stderr
        scene.broken_source.write_bytes(scene.whole)
        done = run_named(scene.config, "retry", scene.broken.id, how=run_subprocess)
        assert done.returncode == 0 and "1 requeued; retried within seconds" in done.stdout, done.stderr
        wait_until(lambda: scene.broken.id in labelled_ids(scene.lab), TIMEOUT_SECONDS, "the second attempt", scene.log)
        assert len(muxed_entries(scene.lab, scene.broken.id)) == 1 and read_json(scene.config, "failed") == []
        assert muxer.stop() == 0
    (line,) = [line for line in log_lines(scene.log) if "recording failed" in line["message"]]
    assert line["code"] == "MUX-322" and "MUX-322 MediaError: " in line["message"]
    down = run_named(scene.config, "status")
    assert down.returncode == 1 and "no instance runs" in down.stdout
    assert "there is no failure;" in run_named(scene.config, "retry", "--all").stderr


def test_a_recording_requeued_while_nothing_runs_is_retried_at_the_start(scene: RunningLab) -> None:
    with MuxerProcess(scene.config) as muxer:
        wait_until(lambda: read_json(scene.config, "failed"), TIMEOUT_SECONDS, "the failure", scene.log)
        muxer.process.kill()
        muxer.process.wait()
    died = read_json(scene.config, "status")
    # Its last state file, if any, is only seconds old.
    assert died["standing"] in ("runs", "died", "does not run")
    scene.broken_source.write_bytes(scene.whole)
    assert "when the muxer starts" in run_named(scene.config, "retry", "--all").stdout or died["standing"] == "runs"
    with MuxerProcess(scene.config) as muxer:
        wait_until(lambda: scene.broken.id in labelled_ids(scene.lab), TIMEOUT_SECONDS, "the second attempt", scene.log)
        assert muxer.stop() == 0


def test_without_a_journal_the_error_names_its_path(make_lab: Callable[..., Lab]) -> None:
    config, _ = write_config(make_lab())
    for arguments, nothing in ((["failed"], []), (["retry", "--all"], {"put_back": []})):
        done = run_named(config, *arguments)
        assert done.returncode == 1 and "there is no journal at" in done.stderr and not done.stdout
        as_json = run_named(config, *arguments, "--json")
        assert as_json.returncode == 1 and json.loads(as_json.stdout) == nothing and "no journal" in as_json.stderr
    assert run_named(config, "status").returncode == 1


def test_a_journal_that_cannot_be_read_is_an_error(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    config, _ = write_config(lab)
    (lab.folder / "temp" / "journal.sqlite3").write_bytes(b"rubbish " * 1000)
    for arguments, verb in ((["failed"], "read"), (["retry", "--all"], "change")):
        done = run_named(config, *arguments)
        assert done.returncode == 1 and f"cannot {verb} the journal" in done.stderr and "Traceback" not in done.stderr
        assert json.loads(run_named(config, *arguments, "--json").stdout) in ([], {"put_back": []})


@pytest.mark.long
def test_on_a_terminal_there_is_a_table(scene: RunningLab) -> None:
    with MuxerProcess(scene.config) as muxer:
        wait_until(lambda: read_json(scene.config, "failed"), TIMEOUT_SECONDS, "the failure", scene.log)
        assert muxer.stop() == 0
    screen, terminal = pty.openpty()
    line = [PYTHON, "-m", "muxer", "failed", f"--config-file={scene.config}"]
    narrow = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    subprocess.run(line, cwd=PACKAGE.parent, stdout=terminal, stdin=terminal, timeout=60, env=narrow, check=True)
    os.close(terminal)
    shown = os.read(screen, 100_000).decode()
    assert "───" in shown and "MUX-322" in shown and scene.broken.id in shown, "an id is not folded"
