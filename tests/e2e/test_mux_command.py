"""Command `mux`: one call recording now, again, or into a local file."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import signal
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.cases import CASE_PLANS, Case
from lab.lab import Lab
from lab.tools import run_program as run_tool
from muxer.commands import mux
from muxer.journal.journal import JOURNAL_FILE
from muxer.status.activity import RunningTarget
from muxer.status.fleet_status import fleet_to_dict
from tests.support import commands, instance_state
from tests.support.daemon import MuxerProcess, wait_until
from tests.support.fleet_views import fleet_view, worker_view
from tests.support.muxer_runs import hanging_mark, labelled_ids, muxed_entries, write_config, write_slow_program
from tests.support.status_views import running_job
from tests.support.tiers import spread_variants

Make = Callable[..., Lab]
IDS = {plan.name: plan.recording_id() for plans in CASE_PLANS.values() for plan in plans}
PLAIN, TRANSFER = IDS["plain"], IDS["transfer"]


@pytest.fixture
def lab(make_lab: Make) -> Lab:
    """A lab with one call whose result is encrypted."""
    lab = make_lab()
    lab.add_case(Case.PLAIN)
    return lab


@pytest.fixture
def config(lab: Lab) -> Path:
    return write_config(lab)[0]


@pytest.fixture(scope="module")
def transfer(tmp_path_factory: pytest.TempPathFactory, kept_lab: type[Lab]) -> Iterator[tuple[Lab, Path]]:
    """A lab with a call of two agents that is not muxed, and its configuration."""
    with kept_lab(tmp_path_factory.mktemp("mux")) as lab:
        lab.add_case(Case.TRANSFER)
        yield lab, write_config(lab)[0]


def stored_muxed_files(lab: Lab) -> set[str]:
    return {path.name for path in (lab.site.media.folder / "screens").iterdir() if "muxed" in path.name}


def is_playable(lab: Lab, entry: dict) -> bool:
    """Return whether the file of an entry can be decrypted with its envelope and decoded."""
    stored = lab.site.media.folder / "screens" / entry["mediaId"]
    if not stored.exists():
        return False
    clear = lab.folder / "played.mp4"
    lab.decrypt_file(entry["pkcs7"], stored, clear)
    run_tool(["ffmpeg", "-v", "error", "-xerror", "-i", str(clear), "-f", "null", "-"])
    return True


def temp_files(lab: Lab) -> list[str]:
    return sorted(str(path.relative_to(lab.folder)) for path in (lab.folder / "temp").rglob("*"))


def test_recording_is_muxed_then_reported_then_remuxed_with_force(lab: Lab, config: Path) -> None:
    state = lab.folder / "temp" / "state.json"
    running = asdict(RunningTarget(PLAIN, "agent1", "1_muxed.mp4", time.time()))
    state.write_text(json.dumps(instance_state.new_instance_state(None) | {"running": [running]}))
    code, out, err = commands.run_in_process(config, "mux", PLAIN)
    state.unlink()
    assert "a running muxer is processing this recording, too" in err
    [first] = muxed_entries(lab, PLAIN)
    assert (code, out) == (0, f"muxed of agent1: {first['mediaId']}, 24.0 s, copy\n")
    assert re.findall(r"^  (\w+) done, [\d.]+ s$", err, re.MULTILINE) == [
        *("check", "fetch", "mux", "encrypt", "store", "publish", "label")
    ]
    assert labelled_ids(lab) == {PLAIN} and is_playable(lab, first)
    seen = len(lab.store.served_requests)
    of_fleet = fleet_to_dict(fleet_view(worker_view(running=(replace(running_job(PLAIN, "mux"), agent="agent1"),))))
    state.write_text(json.dumps(instance_state.new_instance_state(None) | {"fleet": of_fleet}))
    code, out, err = commands.run_in_process(config, "mux", PLAIN)
    state.unlink()
    assert (code, out) == (0, f"already done of agent1: {first['mediaId']}\n")
    assert "a running muxer is processing this recording, too" in err
    assert {request.method for request in lab.store.served_requests[seen:]} == {"GET"}
    report = commands.run_json_in_process(config, "mux", PLAIN, "--force")
    [second] = muxed_entries(lab, PLAIN)
    assert [(target["outcome"], target["file"]) for target in report["targets"]] == [("muxed", second["mediaId"])]
    assert report["targets"][0]["timeline"]["length"] == 24
    assert second["mediaId"] != first["mediaId"] and is_playable(lab, second)
    assert stored_muxed_files(lab) == {second["mediaId"]} and lab.store.media_deletes == [(PLAIN, first["mediaId"])]
    assert temp_files(lab) == []


@pytest.mark.parametrize(
    ("point", "next_time"),
    spread_variants(
        [
            ("posted", ["--force"]),
            ("fetched", None),
            ("stored", None),
            ("published", ["--force"]),
            ("entry deleted", []),
        ],
        5,
    ),
)
def test_remuxed_recording_stays_playable_after_kill_at_any_point(
    lab: Lab, config: Path, point: str, next_time: list[str] | None
) -> None:
    lab.switches = replace(lab.switches, replacing_post=True)
    commands.run_json_in_process(config, "mux", PLAIN)
    commands.run_until_killed(point, config, "mux", PLAIN, "--force")
    entries = muxed_entries(lab, PLAIN)
    assert entries and all(is_playable(lab, entry) for entry in entries)
    if next_time is not None:
        age_leftovers(lab)
        commands.run_json_in_process(config, "mux", PLAIN, *next_time)
        [entry] = muxed_entries(lab, PLAIN)
        assert is_playable(lab, entry) and stored_muxed_files(lab) == {entry["mediaId"]}
        assert len((lab.store.get_screen(PLAIN) or {})["mediaFiles"]) == 2, "the screen file is lost"
        assert temp_files(lab) == []


def age_leftovers(lab: Lab) -> None:
    """Make the folders of killed commands old enough to be cleaned up."""
    for folder in (lab.folder / "temp").glob("command-*"):
        os.utime(folder, (0, 0))


def test_a_running_muxer_recovers_what_a_killed_command_left(lab: Lab, config: Path) -> None:
    lab.switches = replace(lab.switches, replacing_post=True)
    log = lab.folder / "log" / "recording-muxer-single.log"
    commands.run_until_killed("posted", config, "mux", PLAIN)
    [folder] = (lab.folder / "temp").glob("command-*")
    assert len((lab.store.get_screen(PLAIN) or {})["mediaFiles"]) == 1
    age_leftovers(lab)
    with MuxerProcess(config) as muxer:
        wait_until(lambda: len((lab.store.get_screen(PLAIN) or {})["mediaFiles"]) == 2, 60, "the repair", log)
        wait_until(lambda: not folder.exists(), 60, "the end of the folder", log)
        assert muxer.stop() == 0


def test_output_to_a_local_file_writes_nothing_else(transfer: tuple[Lab, Path], tmp_path: Path) -> None:
    lab, config = transfer
    output = tmp_path / "call.mp4"
    seen = len(lab.store.served_requests)
    code, out, _ = commands.run_in_process(config, "mux", TRANSFER, "--agent", "agent2", "--output", str(output))
    assert (code, out) == (0, f"written of agent2: {output}, 32.0 s, copy\n")
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    run_tool(["ffmpeg", "-v", "error", "-xerror", "-i", str(output), "-f", "null", "-"])
    assert {request.method for request in lab.store.served_requests[seen:]} == {"GET"}
    assert stored_muxed_files(lab) == set() and muxed_entries(lab, TRANSFER) == []
    assert [path.name for path in tmp_path.iterdir() if "call" in path.name] == ["call.mp4"]
    content = output.read_bytes()
    code, _, err = commands.run_in_process(config, "mux", TRANSFER, "--agent", "agent2", "--output", str(output))
    assert (code, output.read_bytes()) == (1, content)
    assert f"--output {output}: it exists already" in err
    output.write_bytes(b"old")
    report = commands.run_json_in_process(config, "mux", TRANSFER, "--agent", "agent2", "--output", str(output), "--force")
    assert report["targets"][0]["outcome"] == "written" and output.stat().st_size == len(content)
    assert temp_files(lab) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--output", "here.mp4"), "there are 2 muxed files, of agent1, agent2; choose one with --agent NAME"),
        (("--agent", "nobody"), "--agent nobody: no such agent in this recording; its agents are agent1, agent2"),
        (("--output", "/nowhere/at/all.mp4"), "there is no folder /nowhere/at"),
    ],
)
def test_unusable_arguments_are_errors(transfer: tuple[Lab, Path], arguments: tuple[str, ...], text: str) -> None:
    lab, config = transfer
    code, out, err = commands.run_in_process(config, "mux", TRANSFER, *arguments)
    assert (code, out) == (1, "")
    assert text in err and "Traceback" not in err
    assert temp_files(lab) == []


@pytest.mark.posix
@pytest.mark.parametrize(("name", "reason"), [("x" * 300, "File name too long"), ("call.mp4", "Read-only file system")])
@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
def test_an_output_that_cannot_be_written_is_an_error(
    transfer: tuple[Lab, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str, is_late: bool
) -> None:
    """It is found before the muxing; a file system may also become read-only meanwhile."""
    lab, config = transfer
    output, seen = tmp_path / name, len(lab.store.served_requests)
    if name == "call.mp4":

        def refuse(**_: object) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr(mux, "tempfile", SimpleNamespace(mkstemp=refuse, NamedTemporaryFile=refuse))
    if is_late:
        monkeypatch.setattr(mux, "_check_output", lambda *_: None)
    code, out, err = commands.run_in_process(config, "mux", TRANSFER, "--agent", "agent2", "--output", str(output))
    assert (code, out) == (1, "") and f"--output {output}: it cannot be written: {reason}" in err and "Traceback" not in err
    assert (len(lab.store.served_requests) == seen) is not is_late, "nothing was read"
    assert temp_files(lab) == []


def test_an_unavailable_service_is_reported_for_a_command(transfer: tuple[Lab, Path], tmp_path: Path) -> None:
    """A daemon resumes automatically; this command does not."""
    config = tmp_path / "muxer.cfg"
    config.write_text(transfer[0].config_text(**{"htcc.password": "wrong"}))
    code, _, err = commands.run_in_process(config, "mux", "1")
    assert (
        code == 1
        and "error: RWS is unavailable; this command cannot use it now: MUX-" in err
        and "resume automatically" not in err
    )


def test_failed_target_does_not_prevent_the_other(make_lab: Make) -> None:
    lab = make_lab()
    lab.add_case(Case.TRANSFER)
    config = write_config(lab)[0]
    [broken] = (lab.site.media.folder / "screens").glob(f"agent1_{TRANSFER}*")
    broken.write_bytes(b"no media")
    code, out, _ = commands.run_subprocess(config, "mux", TRANSFER, "--json")
    outcomes = {target["agent"]: target for target in json.loads(out)["targets"]}
    assert code == 1
    assert {agent: one["outcome"] for agent, one in outcomes.items()} == {"agent1": "failed", "agent2": "muxed"}
    assert outcomes["agent1"]["reason"].startswith(f"MUX-323 MediaError: {broken.name}: ")
    assert outcomes["agent1"]["remedy"].startswith("Look at its first bytes.")


@pytest.mark.parametrize(("number", "code"), spread_variants([(signal.SIGTERM, 143), (signal.SIGINT, 130)], 2))
@pytest.mark.parametrize("program", spread_variants(["ffmpeg", "openssl"], 2))
def test_a_signal_ends_the_command_and_leaves_nothing(lab: Lab, number: int, code: int, program: str) -> None:
    slow = write_slow_program(lab.folder, program)
    config, _ = write_config(lab, **{f"processing.{program}": str(slow)})
    process = commands.start_command(config, "mux", PLAIN)
    wait_until(hanging_mark(slow).exists, 60, "the hanging program")
    process.send_signal(number)
    out, err = process.communicate(timeout=commands.TIMEOUT_SECONDS)
    assert (process.returncode, out) == (code, "")
    assert err.endswith("stopped\n") and "Traceback" not in err
    assert temp_files(lab) == [] and stored_muxed_files(lab) == set() and muxed_entries(lab, PLAIN) == []


@pytest.mark.machine_ffmpeg  # the static one is too fast for a bar of its step
def test_terminal_shows_a_bar_for_each_step_and_the_result(lab: Lab, config: Path) -> None:
    code, written = commands.run_on_terminal(100, config, "mux", PLAIN)
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written)
    assert "agent1 mux" in plain and "━" in plain
    assert plain.rstrip().splitlines()[-1].startswith("muxed of agent1: ")


@pytest.mark.long
def test_a_recording_that_was_set_aside_is_done_in_the_journal(lab: Lab) -> None:
    config, log = write_config(lab)
    [screen] = (lab.site.media.folder / "screens").glob(f"agent1_{PLAIN}*")
    content = screen.read_bytes()
    screen.write_bytes(b"no media")
    journal = lab.folder / "temp" / JOURNAL_FILE
    with MuxerProcess(config) as muxer:
        wait_until(lambda: _target_state(journal) in ("retry", "aside"), 60, "the failure", log)
        screen.write_bytes(content)
        commands.run_json_in_process(config, "mux", PLAIN)
        assert _target_state(journal) == "done"
        assert muxer.stop() == 0


def _target_state(journal: Path) -> str:
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(journal)) as database:
        return next((state for (state,) in database.execute("SELECT state FROM targets")), "")
    return ""
