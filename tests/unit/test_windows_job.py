"""Windows: a program and its child processes end together (a fake kernel32 keeps the Job Objects)."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from muxer.errors import ToolError
from muxer.system import process
from muxer.system.process import Runner
from muxer.system.windows_job import WindowsJob
from tests.support.daemon import wait_until
from tests.support.windows import Kernel32
from tests.unit.test_process import is_running


@pytest.fixture
def kernel32(monkeypatch: pytest.MonkeyPatch) -> Kernel32:
    fake_kernel32 = Kernel32()
    monkeypatch.setattr(ctypes, "WinDLL", lambda name, **_: fake_kernel32, raising=False)
    monkeypatch.setattr(ctypes, "get_last_error", lambda: 5, raising=False)
    monkeypatch.setattr(process, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(subprocess.Popen, "_handle", property(lambda item: item.pid), raising=False)
    return fake_kernel32


def test_windows_ends_what_is_in_the_job_when_its_last_handle_is_closed(kernel32: Kernel32) -> None:
    WindowsJob(42)
    assert kernel32.jobs == {1000: [42]}
    assert kernel32.flags == {1000: Kernel32.KILL_ON_JOB_CLOSE}
    used = ("CreateJobObjectW", "SetInformationJobObject", "AssignProcessToJobObject", "TerminateJobObject", "CloseHandle")
    assert all(getattr(kernel32, name).argtypes for name in used)  # without them a handle is truncated to 32 bits
    assert kernel32.CreateJobObjectW.restype is ctypes.c_void_p  # type: ignore[attr-defined]


@pytest.mark.posix
def test_each_program_has_a_job_that_is_released(kernel32: Kernel32) -> None:
    jobs: list[dict[int, list[int]]] = []
    pid = Runner().run_streaming(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        lambda out: (int(out.read()), jobs.append(dict(kernel32.jobs)))[0],
        timeout=60,
    )
    assert jobs == [{1000: [pid]}]
    assert kernel32.jobs == {}


@pytest.mark.posix
def test_the_time_limit_ends_what_a_wrapper_has_started(kernel32: Kernel32, tmp_path: Path) -> None:
    wrapper = tmp_path / "ffmpeg"
    wrapper.write_text(f"#!/bin/sh\n( sleep 2; touch {tmp_path / 'late'} )\n:\n")
    wrapper.chmod(0o700)
    with pytest.raises(ToolError, match="time limit"):
        Runner().run([wrapper], timeout=0.3)
    assert not (tmp_path / "late").exists()
    assert kernel32.jobs == {}


@pytest.mark.posix
def test_child_processes_end_with_their_program(kernel32: Kernel32, tmp_path: Path) -> None:
    wrapper = tmp_path / "ffmpeg"
    wrapper.write_text("#!/bin/sh\nsleep 600 >/dev/null 2>&1 &\necho $!\n")
    wrapper.chmod(0o700)
    left = int(Runner().run([wrapper], timeout=60))
    wait_until(lambda: not is_running(left), 30, "the end of what was left")


@pytest.mark.posix
@pytest.mark.parametrize("refused", ["CreateJobObjectW", "SetInformationJobObject", "AssignProcessToJobObject"])
def test_a_program_runs_without_a_job_when_windows_refuses_one(
    kernel32: Kernel32, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    monkeypatch.setattr(getattr(kernel32, refused), "_body", lambda *_: 0)
    assert Runner().run([sys.executable, "-c", "print(7)"], timeout=60).strip() == b"7"
    assert kernel32.jobs == {}
    with pytest.raises(ToolError, match="time limit"):
        Runner().run([sys.executable, "-c", "import time; time.sleep(600)"], timeout=0.3)
    with pytest.raises(OSError, match="Windows error 5"):
        WindowsJob(42)


def test_a_released_job_is_not_used_again(kernel32: Kernel32) -> None:
    job = WindowsJob(42)
    kernel32.jobs[1000].clear()
    job.close()
    job.close()
    job.terminate_programs()
