"""The exit code of a command whose output has no reader, or cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BODY = """
import sys
from muxer.commands._shared.common import exit_code_of, write_result
def write_much():
    for _ in range({lines}):
        sys.stdout.write("a finding\\n")
sys.exit(exit_code_of(lambda: write_result(write_much, 4)))
"""


def start(lines: int, **streams: object) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", BODY.format(lines=lines)]
    return subprocess.Popen(line, stderr=subprocess.PIPE, text=True, **streams)  # type: ignore[call-overload]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows reports a closed pipe as any other error")
@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_has_left_does_not_change_the_exit_code(lines: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = start(lines, stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4 and not err, err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("lines", [1, 100_000])
def test_output_that_cannot_be_written_is_one_line_and_no_success(lines: int) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123
        _, err = (process := start(lines, stdout=full)).communicate(timeout=60)
    assert process.returncode == 1 and err.count("\n") == 1 and "stdout" in err, err


@pytest.mark.skipif(sys.platform == "win32", reason="a closed stdout is given by the shell")
def test_a_closed_stdout_is_one_line_and_no_success() -> None:
    _, err = (process := start(1, preexec_fn=lambda: os.close(1))).communicate(timeout=60)
    assert process.returncode == 1 and err.count("\n") == 1 and "stdout is closed" in err, err
