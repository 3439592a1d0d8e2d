"""The benchmarks run. Their figures are not checked: a test machine is too noisy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from muxer.media.mp4 import read_tracks
from tests.bench.inputs import Quality, create_screen
from tests.support.tools import FOLDER_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
# Without the fleet benchmarks, which take minutes: their parts have separate tests.
TOPICS = ["engine", "pipeline", "memory", "polling", "audit", "start", "scaling", "backlog"]
TIMEOUT_SECONDS = 300


@pytest.mark.long
def test_benchmarks_run(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.bench", "--quick", "--only", ",".join(TOPICS), "--json", str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    assert done.returncode == 0, done.stderr
    figures = json.loads(report.read_text())["figures"]
    assert list(figures) == TOPICS
    for topic, several in figures.items():
        # Two tiny runs may differ by zero or less, nothing waits when there is little to do, a busy machine is never idle.
        assert all(
            one["value"] > 0 or re.search("more (memory|time|processor)|age of|idle share|share of the time", one["what"])
            for one in several
        )
        assert topic == "scaling" or any(one["at_most"] or one["at_least"] for one in several)
        assert all(f"{topic:<9} {one['what']}" in done.stdout for one in several)
    whole = next(one for one in figures["polling"] if "requests" in one["what"])
    assert whole["value"] <= 2.0


def test_screen_files_have_the_keyframe_distance(tmp_path: Path) -> None:
    [video] = read_tracks(create_screen(tmp_path, 4, Quality(kilobits=200, fps=5, key_seconds=2)))
    assert (len(video.sizes), list(video.sync or ())) == (20, [0, 10])


def test_a_folder_chooses_the_programs_of_all_benchmarks(tmp_path: Path) -> None:
    code = "from tests.bench.inputs import PROGRAMS, QUIET; print(*PROGRAMS.values(), QUIET[0])"
    command, env = [sys.executable, "-c", code], {**os.environ, FOLDER_VARIABLE: str(tmp_path)}
    printed = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    assert printed.split() == [f"{tmp_path}/ffmpeg", f"{tmp_path}/ffprobe", f"{tmp_path}/ffmpeg"]
