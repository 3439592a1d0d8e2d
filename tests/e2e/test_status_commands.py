"""``status``, ``failed`` and ``retry`` beside the real muxer: what has failed is seen, put back, and muxed."""

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
from tests.support.commands import inside, run
from tests.support.daemon import PACKAGE, PYTHON, Muxer, log_lines, wait_until
from tests.support.running import configured, labelled, muxed

from muxer.lab.build import AddedCall
from muxer.lab.cases import Case
from muxer.lab.lab import Lab

SECONDS = 90


def command(config: Path, name: str, *arguments: str, how: Callable[..., Any] = inside) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, or in one of its own."""
    return subprocess.CompletedProcess(name, *how(config, name, *arguments))


def told(config: Path, *arguments: str) -> Any:
    return json.loads(command(config, *arguments, "--json").stdout)


@dataclass
class Scene:
    """A muxer at work on a lab: one recording is good, one has an empty screen file and one no key of RCS."""

    lab: Lab
    config: Path
    log: Path
    good: AddedCall
    broken: AddedCall
    whole: bytes

    @property
    def source(self) -> Path:
        return self.lab.site.media.folder / "screens" / self.broken.screens[0].media_id


@pytest.fixture
def scene(make_lab: Callable[..., Lab]) -> Iterator[Scene]:
    lab = make_lab(encryption_group="empty")
    good, broken = lab.add_case(Case.GAPS)[0], lab.add_case(Case.PLAIN)[0]
    config, log = configured(lab, processing__min_poll_interval="10", advanced__incomplete_after="0", logfile__format="json")
    made = Scene(lab, config, log, good, broken, b"")
    made.whole = made.source.read_bytes()
    made.source.write_bytes(b"")
    yield made


def test_what_has_failed_is_seen_put_back_and_muxed(scene: Scene) -> None:
    """Polls are ten minutes apart: what is put back is tried long before the next one."""
    with Muxer(scene.config) as muxer:
        wait_until(lambda: scene.good.id in labelled(scene.lab), SECONDS, "the first muxed file", scene.log)
        wait_until(lambda: told(scene.config, "failed"), SECONDS, "the failure", scene.log)
        (failure,) = told(scene.config, "failed")
        assert (failure["recording"], failure["code"], failure["attempts"]) == (scene.broken.id, "MUX-322", 1)
        assert "the file is empty" in failure["reason"] and failure["remedy"]
        plain = command(scene.config, "failed")
        assert plain.returncode == 0 and scene.broken.id in plain.stdout and "MUX-322: Upload it again" in plain.stdout
        assert told(scene.config, "failed", "--code=MUX-999") == told(scene.config, "failed", "--aside") == []

        status = told(scene.config, "status")
        assert (status["standing"], status["trouble"]) == ("runs", []) and status["state"]["pid"] == muxer.process.pid
        assert status["targets"] == {"done": 1, "retry": 1} and status["failures_by_code"] == [["MUX-322", "retry", 1]]
        assert (status["last_hour"]["muxed"], status["last_hour"]["failed"]) == (1, 1)
        shown = command(scene.config, "status", how=run)
        assert shown.returncode == 0 and "single: runs" in shown.stdout and "1 muxed, 1 failed" in shown.stdout
        assert "\nMUX-322: Upload it again" in shown.stdout and status["remedies"]["MUX-322"].startswith("Upload it again")

        unknown = command(scene.config, "retry", "nobody")
        assert unknown.returncode == 1 and "nothing of nobody has failed" in unknown.stderr
        scene.source.write_bytes(scene.whole)
        done = command(scene.config, "retry", scene.broken.id, how=run)
        assert done.returncode == 0 and "1 put back; tried within seconds" in done.stdout, done.stderr
        wait_until(lambda: scene.broken.id in labelled(scene.lab), SECONDS, "the second attempt", scene.log)
        assert len(muxed(scene.lab, scene.broken.id)) == 1 and told(scene.config, "failed") == []
        assert muxer.stop() == 0
    (line,) = [one for one in log_lines(scene.log) if "recording failed" in one["message"]]
    assert line["code"] == "MUX-322" and "MUX-322 MediaError: " in line["message"]
    down = command(scene.config, "status")
    assert down.returncode == 1 and "no instance runs" in down.stdout
    assert "nothing has failed" in command(scene.config, "retry", "--all").stderr


def test_what_is_put_back_while_nothing_runs_is_tried_at_the_start(scene: Scene) -> None:
    with Muxer(scene.config) as muxer:
        wait_until(lambda: told(scene.config, "failed"), SECONDS, "the failure", scene.log)
        muxer.process.kill()
        muxer.process.wait()
    died = told(scene.config, "status")
    # What it said last, if anything, is only some seconds old.
    assert died["standing"] in ("runs", "died", "does not run")
    scene.source.write_bytes(scene.whole)
    assert "when the muxer is started" in command(scene.config, "retry", "--all").stdout or died["standing"] == "runs"
    with Muxer(scene.config) as muxer:
        wait_until(lambda: scene.broken.id in labelled(scene.lab), SECONDS, "the second attempt", scene.log)
        assert muxer.stop() == 0


def test_without_a_journal_it_says_where_it_looked(make_lab: Callable[..., Lab]) -> None:
    config, _ = configured(make_lab())
    for arguments, nothing in ((["failed"], []), (["retry", "--all"], {"put_back": []})):
        done = command(config, *arguments)
        assert done.returncode == 1 and "there is no journal at" in done.stderr and not done.stdout
        as_json = command(config, *arguments, "--json")
        assert as_json.returncode == 1 and json.loads(as_json.stdout) == nothing and "no journal" in as_json.stderr
    assert command(config, "status").returncode == 1


def test_a_journal_that_cannot_be_read_is_said(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    config, _ = configured(lab)
    (lab.folder / "temp" / "journal.sqlite3").write_bytes(b"rubbish " * 1000)
    for arguments, verb in ((["failed"], "read"), (["retry", "--all"], "changed")):
        done = command(config, *arguments)
        assert done.returncode == 1 and f"cannot be {verb}: " in done.stderr and "Traceback" not in done.stderr
        assert json.loads(command(config, *arguments, "--json").stdout) in ([], {"put_back": []})


def test_on_a_terminal_there_is_a_table(scene: Scene) -> None:
    with Muxer(scene.config) as muxer:
        wait_until(lambda: told(scene.config, "failed"), SECONDS, "the failure", scene.log)
        assert muxer.stop() == 0
    screen, terminal = pty.openpty()
    line = [PYTHON, "-m", "muxer", "failed", f"--config-file={scene.config}"]
    narrow = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    subprocess.run(line, cwd=PACKAGE.parent, stdout=terminal, stdin=terminal, timeout=60, env=narrow, check=True)
    os.close(terminal)
    shown = os.read(screen, 100_000).decode()
    assert "───" in shown and "MUX-322" in shown and scene.broken.id in shown, "an id is not folded"
