"""`python -m lab demo`: the muxer on the lab, as `./install.sh --demo` runs it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.support.daemon import PYTHON

pytestmark = pytest.mark.machine_ffmpeg

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
def test_demo_muxes_every_recording_and_leaves_a_file_to_play(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lab", "demo", "--python", PYTHON]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "7/7" in done.stdout and done.stdout.count("screenRecording") == 7
    assert Path(done.stdout.rsplit("One to play: ", 1)[1].strip()).stat().st_size > 0


def test_on_a_terminal_the_status_page_is_served_until_enter(tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "lab", "demo", "--python", PYTHON]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdin=terminal, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        address = next(line for line in demo.stdout if "Its status page: " in line).rsplit(" ", 1)[1].strip()
        page = requests.get(address, timeout=30)
        assert page.status_code == 200 and "Recording Muxer" in page.text
        os.write(controller, b"\n")
        demo.stdout.read()
    os.close(controller)
    os.close(terminal)
    assert demo.returncode == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(address, timeout=30)


@pytest.mark.parametrize("package", ["muxer", "lab"])
def test_lab_and_demo_start_from_the_source_folder(package: str) -> None:
    for words in (["demo"], ["lab"] if package == "muxer" else []):
        command = [sys.executable, "-m", package, *words, "--help"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 and "usage" in done.stdout
