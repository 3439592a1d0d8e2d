"""External programs: argument lists, time limits, cancellation, no orphans."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

import pytest

from muxer.errors import LocalResourceError, Stopped, ToolError
from muxer.system.process import Runner

ROOT = Path(__file__).resolve().parents[2]
LONG_SECONDS = 60.0


def python_command(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def test_the_output_is_returned() -> None:
    assert Runner().run(python_command("print('x' * 200_000, end='')"), timeout=LONG_SECONDS) == b"x" * 200_000


@pytest.mark.posix
def test_arguments_are_passed_as_they_are_without_a_shell() -> None:
    words = ["a b", "$HOME", "; touch x", "ü", "*", ""]
    out = Runner().run(python_command("import sys; print(repr(sys.argv[1:]))", *words), timeout=LONG_SECONDS)
    assert out.decode().strip() == repr(words)


def test_a_program_works_in_the_given_folder(tmp_path: Path) -> None:
    out = Runner().run(python_command("import os; print(os.getcwd())"), timeout=LONG_SECONDS, cwd=tmp_path)
    assert out.decode().strip() == str(tmp_path)


def test_the_input_is_empty() -> None:
    assert Runner().run(python_command("import sys; print(len(sys.stdin.read()))"), timeout=LONG_SECONDS).strip() == b"0"


def test_a_failure_is_reported_with_the_end_of_the_program_output() -> None:
    code = "import sys; sys.stderr.write('early ' * 10_000 + 'the reason'); sys.exit(3)"
    with pytest.raises(ToolError, match=r"status 3.*the reason") as caught:
        Runner().run(python_command(code), timeout=LONG_SECONDS)
    assert len(str(caught.value)) < 3000


def test_output_on_stderr_is_a_failure_where_it_is_not_accepted() -> None:
    command = python_command("import sys; sys.stderr.write('broken frame'); print('out')")
    assert Runner().run(command, timeout=LONG_SECONDS).strip() == b"out"
    with pytest.raises(ToolError, match="broken frame"):
        Runner().run(command, timeout=LONG_SECONDS, complaint="broken")


def test_a_program_that_takes_too_long_is_killed() -> None:
    with pytest.raises(ToolError, match="time limit"):
        Runner().run(python_command("import time; time.sleep(600)"), timeout=0.3)


@pytest.mark.parametrize("status", [1, 0])
def test_a_program_that_reports_a_full_disk_is_a_transient_error_whatever_its_status(status: int) -> None:
    code = f"import sys; sys.stderr.write('Error writing trailer: No space left on device'); sys.exit({status})"
    with pytest.raises(LocalResourceError):
        Runner().run(python_command(code), timeout=LONG_SECONDS)


def test_a_missing_program_is_a_transient_error(tmp_path: Path) -> None:
    with pytest.raises(LocalResourceError, match="cannot be started"):
        Runner().run([tmp_path / "none"], timeout=LONG_SECONDS)


def test_cancel_kills_running_programs_and_starts_no_more() -> None:
    runner, raised = Runner(), []
    read, write = os.pipe()

    def run_program() -> None:
        def read_output(out: IO[bytes]) -> bytes:
            os.write(write, out.read(1))
            return out.read()

        try:
            runner.run_streaming(
                python_command("import time; print('x', flush=True); time.sleep(600)"),
                read_output,
                timeout=10 * LONG_SECONDS,
            )
        except Stopped as error:
            raised.append(error)

    thread = threading.Thread(target=run_program, daemon=True)
    thread.start()
    os.read(read, 1)
    runner.cancel_all()
    thread.join(LONG_SECONDS / 3)
    os.close(read)
    os.close(write)
    assert len(raised) == 1
    with pytest.raises(Stopped):
        runner.run(python_command("print()"), timeout=LONG_SECONDS)


def test_a_failure_of_the_program_takes_precedence_over_one_of_its_reader() -> None:
    def fail_to_read(out: IO[bytes]) -> bytes:
        raise ValueError(f"cannot read {out.read()!r}")

    with pytest.raises(ToolError, match="real reason"):
        Runner().run_streaming(python_command("import sys; sys.exit('real reason')"), fail_to_read, timeout=LONG_SECONDS)
    with pytest.raises(ValueError, match="cannot read"):
        Runner().run_streaming(python_command("pass"), fail_to_read, timeout=LONG_SECONDS)


@pytest.mark.posix
def test_an_error_of_the_listener_ends_the_program() -> None:
    def refuse(_line: bytes) -> bool:
        raise ToolError("too much")

    with pytest.raises(ToolError, match=r"^too much$"):
        Runner().run_streaming(
            ["sh", "-c", "while :; do echo again >&2; done"], lambda out: out.read(), timeout=100, hear=refuse
        )


@pytest.mark.posix
def test_a_reader_that_fails_leaves_no_process_behind() -> None:
    pids: list[int] = []

    def read_and_fail(out: IO[bytes]) -> bytes:
        pids.append(int(out.readline()))
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        Runner().run_streaming(
            python_command("import os, time; print(os.getpid(), flush=True); time.sleep(600)"),
            read_and_fail,
            timeout=LONG_SECONDS,
        )
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


@pytest.mark.posix
def test_the_time_limit_holds_for_what_a_wrapper_script_has_started(tmp_path: Path) -> None:
    wrapper = tmp_path / "ffmpeg"
    wrapper.write_text(f"#!/bin/sh\n( sleep 2; touch {tmp_path / 'late'} )\n:\n")
    wrapper.chmod(0o700)
    with pytest.raises(ToolError, match="time limit"):
        Runner().run([wrapper], timeout=0.3)
    assert not (tmp_path / "late").exists()


@pytest.mark.posix
def test_a_program_does_not_outlive_a_muxer_that_is_killed() -> None:
    code = """
import os, sys
from muxer.system.process import Runner
def consume(out):
    print(out.readline().decode().strip(), flush=True)
    os.kill(os.getpid(), 9)
child = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
Runner().run_streaming([sys.executable, "-c", child], consume, timeout=60)
"""
    muxer = subprocess.run(python_command(code), cwd=ROOT, stdout=subprocess.PIPE, check=False)
    assert muxer.returncode == -9
    for _ in range(500):
        if not is_running(int(muxer.stdout)):
            return
        time.sleep(0.02)
    raise AssertionError("the program is still running")


def is_running(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.rsplit(")", 1)[1].split()[0] not in ("Z", "X")


@pytest.mark.posix
def test_programs_get_no_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTP_PROXY", "db_password", "API_KEY", "Aws_Profile", "MONKEY_BUSINESS"):
        monkeypatch.setenv(name, "given")
    shown = Runner().run(python_command("import os; print(*os.environ)"), timeout=LONG_SECONDS).decode().split()
    assert "MONKEY_BUSINESS" in shown
    assert not {"https_proxy", "HTTP_PROXY", "db_password", "API_KEY", "Aws_Profile"} & set(shown)


@pytest.mark.parametrize("script", ["muxer/muxer_process.py", "encryptPassword.py", "muxer/__main__.py"])
def test_missing_packages_are_named_without_a_traceback(script: str) -> None:
    path = str(ROOT / script)
    code = f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); runpy.run_path({path!r}, run_name='__main__')"
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG_SECONDS, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "Python package python-dateutil: it is not installed" in done.stderr and "pip install -r" in done.stderr
