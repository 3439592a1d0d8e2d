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
    return 4
sys.exit(exit_code_of({body}))
"""
AS_RESULT, IN_PASSING = "lambda: write_result(write_much, 4)", "write_much"


def start(lines: int, body: str = AS_RESULT, **streams: object) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", BODY.format(lines=lines, body=body)]
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
@pytest.mark.parametrize("body", [AS_RESULT, IN_PASSING])
def test_output_that_cannot_be_written_is_one_line_and_no_success(lines: int, body: str) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123
        _, err = (process := start(lines, body, stdout=full)).communicate(timeout=60)
    assert process.returncode == 1 and err.count("\n") == 1 and "stdout" in err, err


@pytest.mark.skipif(sys.platform == "win32", reason="a closed stdout is given by the shell")
def test_a_closed_stdout_is_one_line_and_no_success() -> None:
    _, err = (process := start(1, preexec_fn=lambda: os.close(1))).communicate(timeout=60)
    assert process.returncode == 1 and err.count("\n") == 1 and "stdout is closed" in err, err


def test_an_error_of_another_file_is_not_taken_for_one_of_stdout() -> None:
    _, err = (process := start(1, "lambda: open('/nonexistent/file')", stdout=subprocess.DEVNULL)).communicate(timeout=60)
    assert process.returncode == 1 and "No such file" in err and "stdout" not in err, err
