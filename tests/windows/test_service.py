"""The muxer as a service of Windows: installed, started, stopped and removed through the service manager of Wine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from lab.cases import Case
from lab.lab import Lab
from muxer.system.exit_codes import EXIT_CONFIG, EXIT_FAILED
from tests.support.daemon import wait_until
from tests.windows.machine import windows_path
from tests.windows.muxer import RUN_SECONDS, Finished, WindowsMuxer, held_files

pytestmark = pytest.mark.long

NAME = f"RecordingMuxer-{os.getpid()}"
# The service manager of Wine does not have the PATH of these tests.
PROGRAMS = {f"processing.{name}": rf"C:\tools\{name}.exe" for name in ("ffmpeg", "ffprobe", "openssl")}


@pytest.fixture
def service(muxer: WindowsMuxer) -> Iterator[Callable[..., Finished]]:
    """Return a function that runs an action of the command `service`; the service is removed at the end.

    A program runs meanwhile: Wine ends with its last program, and starts again with its services.
    """

    def run_action(action: str, *options: str) -> Finished:
        arguments = ["-m", "muxer", "service", action, f"--name={NAME}", *options]
        return muxer.run_python(*arguments, PYTHONPATH=windows_path(muxer.folder))

    with held_files(muxer.machine):
        yield run_action
        muxer.machine.run_program("sc.exe", "stop", NAME)
        muxer.machine.run_program("sc.exe", "delete", NAME)


def query_service(muxer: WindowsMuxer) -> str:
    return muxer.machine.run_program("sc.exe", "query", NAME).stdout.decode(errors="replace")


def test_a_service_muxes_until_it_is_stopped(
    make_lab: Callable[..., Lab], muxer: WindowsMuxer, service: Callable[..., Finished]
) -> None:
    lab = make_lab()
    lab.add_case(Case.ENCRYPTED)
    muxer.write_config(lab, **PROGRAMS)
    installed = service("install", "--config-file=muxer.cfg")
    assert installed.code == 0, installed.err
    started = service("start")
    assert started.code == 0, started.err
    wait_until(lambda: muxer.log_lines("recording muxed"), RUN_SECONDS, "the muxed file", muxer.log)
    refused = service("remove")
    assert refused.code == EXIT_CONFIG and "stop it first" in refused.err
    stopped = service("stop")
    assert stopped.code == 0, stopped.err
    assert [line["message"] for line in muxer.log_lines()][-2:] == ["stopping", "stopped"]
    assert not list(muxer.temp.glob("muxer-job-*"))
    assert service("remove").code == 0
    missing = service("start")
    assert missing.code == EXIT_FAILED and NAME in missing.err


def test_a_service_with_a_wrong_configuration_stops_with_its_exit_code(
    make_lab: Callable[..., Lab], muxer: WindowsMuxer, service: Callable[..., Finished]
) -> None:
    muxer.write_config(make_lab(), **PROGRAMS)
    assert service("install", "--config-file=muxer.cfg").code == 0
    muxer.write_config(make_lab(), **{**PROGRAMS, "processing.ffmpeg": r"C:\missing.exe"})
    started = service("start")
    wait_until(lambda: "STOPPED" in query_service(muxer), RUN_SECONDS, "the end of the service", muxer.log)
    status = query_service(muxer)
    assert "1066" in status and "SERVICE_EXIT_CODE" in status and f": {EXIT_CONFIG} " in status, (status, started)
    assert "cannot start" in muxer.log.read_text(encoding="utf-8")
