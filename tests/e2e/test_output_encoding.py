"""The muxer and its commands where the encoding of the standard streams lacks characters of a recording."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.cases import Case
from lab.lab import Lab
from muxer.commands import COMMANDS
from tests.support.commands import ROOT, clean_environment, run_in_process
from tests.support.daemon import PYTHON, MuxerProcess, run_muxer, wait_until
from tests.support.muxer_runs import write_config

RECORDING = "Gespräch 日本 🎧"
ASCII = {"PYTHONIOENCODING": "ascii:strict"}
CP1252 = {"PYTHONIOENCODING": "cp1252:strict"}
TIMEOUT_SECONDS = 120


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """Return a lab with two recordings that have the same empty screen file."""
    lab = make_lab(encryption_group="empty")
    (call,) = lab.add_case(Case.PLAIN)
    recording, screen = (copy.deepcopy(get(call.id)) for get in (lab.store.get_call, lab.store.get_screen))
    assert recording is not None and screen is not None
    (lab.site.media.folder / "screens" / call.screens[0].media_id).write_bytes(b"")
    recording["mediaFiles"][0]["mediaId"], screen["mediaFiles"][0]["mediaId"] = "other.mp3", "other.mp4"
    lab.store.add_screen_media(RECORDING, lab.region, screen["mediaFiles"][0])
    lab.store.add_call({**recording, "id": RECORDING})
    return lab


def run_command(config: Path, encoding: dict[str, str], name: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [PYTHON, "-m", "muxer", name, f"--config-file={config}", *arguments]
    environment = clean_environment(**encoding)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=TIMEOUT_SECONDS, check=False)


@pytest.mark.long
def test_migration_and_commands_escape_what_the_encoding_lacks(lab: Lab) -> None:
    config, log = write_config(lab, advanced__call_recording_query_string="startTime=0", advanced__incomplete_after="0")
    done = run_muxer(config, env=ASCII)
    assert (done.process.returncode, done.err.count("Traceback")) == (4, 0)
    assert "2 failed: " in done.out and r"Gespr\xe4ch \u65e5\u672c \U0001f3a7" in done.out
    write_config(lab, advanced__incomplete_after="0", processing__min_poll_interval="10")
    with MuxerProcess(config, env=ASCII) as muxer:
        wait_until(
            lambda: run_in_process(config, "failed")[1].count("\tMUX-322\t") == 2, TIMEOUT_SECONDS, "the failures", log
        )
        assert muxer.stop() == 0
    for encoding in (ASCII, CP1252):
        failed = run_command(config, encoding, "failed")
        assert failed.returncode == 0 and rb"\u65e5\u672c" in failed.stdout, failed.stderr
        listed = run_command(config, encoding, "failed", "--json")
        assert RECORDING in {row["recording"] for row in json.loads(listed.stdout.decode("ascii"))}
        for name, *arguments in (
            *(("status",), ("config",), ("check",), ("check", "--json"), ("plan", RECORDING), ("plan", RECORDING, "--json")),
            *(("mux", RECORDING), ("support-bundle", f"--output={config.parent}"), ("retry", "nothing 日本")),
        ):
            shown = run_command(config, encoding, name, *arguments)
            assert b"Traceback" not in shown.stderr and (shown.stdout or shown.stderr), (name, shown.stderr)


@pytest.mark.parametrize("name", [*(name for name in COMMANDS if not COMMANDS[name][0].startswith("lab.")), "run"])
def test_every_help_text_can_be_written(tmp_path: Path, name: str) -> None:
    shown = run_command(tmp_path, ASCII, name, "--help")
    assert shown.returncode == 0 and b"usage: " in shown.stdout and not shown.stderr
