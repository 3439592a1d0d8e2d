"""The service of Windows: what its process reports to the service manager, and the command line that is registered."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import types
from collections.abc import Callable, Sequence
from pathlib import PurePath, PureWindowsPath
from typing import Any

import pytest

from muxer.app import windows_service as module
from muxer.app.windows_service import MAX_EVENT_LINES, LastLines, MuxerService
from muxer.commands import main, service
from muxer.commands.service import service_command
from muxer.system.exit_codes import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, EXIT_SOME_FAILED

STOPPED, STOP_PENDING, RUNNING = 1, 3, 4
STOP, PRESHUTDOWN, INTERROGATE = 1, 15, 4


class Exited(BaseException):
    """The process would have ended."""


class EventLogError(Exception):
    """The error of pywin32."""


class FakeManager:
    """The service manager, with the modules of pywin32 that call it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.states: list[tuple[int, ...]] = []
        self.events: list[str] = []
        self.is_log_full = False
        self.send: Callable[..., None] = lambda *_: None
        set_status = lambda _handle, status: self.states.append(status)  # noqa: E731
        for name, content in {
            "win32service": {"SetServiceStatus": set_status},
            "win32evtlog": {"EVENTLOG_ERROR_TYPE": 1},
            "win32evtlogutil": {"ReportEvent": self._report_event},
            "pywintypes": {"error": EventLogError},
        }.items():
            monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**content))

    def _report_event(self, _source: str, _number: int, eventType: int, strings: Sequence[str]) -> None:
        if self.is_log_full:
            raise EventLogError("The event log is full.")
        self.events.extend(strings)

    def RegisterServiceCtrlHandler(self, _name: str, handler: Callable[..., None], _extra: bool) -> int:
        self.send = handler
        return 1


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> FakeManager:
    def end_process(code: int) -> None:
        raise Exited(code)

    monkeypatch.setattr(os, "_exit", end_process)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    return FakeManager(monkeypatch)


def run_service(
    manager: FakeManager, monkeypatch: pytest.MonkeyPatch, body: Callable[[threading.Event], int]
) -> tuple[int, Sequence[str]]:
    """Run a service whose muxer is `body`; return its exit code and the arguments of its muxer."""
    seen: list[Any] = []

    def run_muxer(arguments: Sequence[str], *, stop: threading.Event) -> int:
        seen.extend(arguments)
        return body(stop)

    monkeypatch.setattr(module, "run_muxer", run_muxer)
    with pytest.raises(Exited) as ended:
        MuxerService(manager, "name", ["--config-file=x"]).SvcRun()
    return ended.value.args[0], seen


@pytest.mark.parametrize("control", [STOP, PRESHUTDOWN])
def test_the_service_runs_until_the_manager_stops_it(
    manager: FakeManager, monkeypatch: pytest.MonkeyPatch, control: int
) -> None:
    def mux(stop: threading.Event) -> int:
        manager.send(INTERROGATE, 0, None)
        assert not stop.is_set()
        manager.send(control, 0, None)
        assert stop.is_set()
        return EXIT_OK

    assert run_service(manager, monkeypatch, mux) == (EXIT_OK, ["--config-file=x"])
    assert [status[1] for status in manager.states][1:] == [RUNNING, STOP_PENDING, STOPPED]
    assert manager.states[-1][3:5] == (0, 0) and manager.events == []


@pytest.mark.parametrize("code", [EXIT_CONFIG, EXIT_SOME_FAILED])
def test_an_end_that_a_restart_cannot_help_is_reported_with_its_code(
    manager: FakeManager, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def mux(_stop: threading.Event) -> int:
        print("[processing] ffmpeg: is missing", file=sys.stderr)
        return code

    assert run_service(manager, monkeypatch, mux)[0] == code
    assert manager.states[-1][1] == STOPPED and manager.states[-1][3:5] == (1066, code)
    assert f"exit code {code}" in manager.events[0] and "ffmpeg: is missing" in manager.events[0]


def test_a_full_event_log_does_not_keep_the_end_from_being_reported(
    manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.is_log_full = True
    assert run_service(manager, monkeypatch, lambda _stop: EXIT_CONFIG)[0] == EXIT_CONFIG
    assert manager.states[-1][1] == STOPPED


def test_an_unexpected_end_is_not_reported_so_that_the_manager_restarts_the_service(
    manager: FakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mux(_stop: threading.Event) -> int:
        raise RuntimeError("unexpected")

    assert run_service(manager, monkeypatch, mux)[0] == EXIT_FAILED
    assert manager.states[-1][1] == RUNNING and "RuntimeError: unexpected" in manager.events[0]


def test_only_the_last_lines_are_kept_for_the_event_log() -> None:
    output = LastLines()
    for number in range(MAX_EVENT_LINES + 5):
        print(f"line {number}\n", file=output)
    assert len(output.lines) == MAX_EVENT_LINES and output.lines[-1] == f"line {MAX_EVENT_LINES + 4}"
    assert not output.isatty()


def test_the_registered_command_has_absolute_paths_and_the_options_of_the_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_exec_prefix", "/the system")
    monkeypatch.setattr(sys, "prefix", "/venv")
    given = argparse.Namespace(name="One", config_file="a b/muxer.cfg", muxer_type=None, muxer_id="2", total_muxers="")
    command = service_command(given)
    assert command.startswith(f'"{PurePath("/the system/python.exe")}" ')
    assert " One " in command and command.endswith('" --muxer-id=2 --total-muxers=')
    assert PureWindowsPath(command.partition("--config-file=")[2].partition('"')[0]).name == "muxer.cfg"


@pytest.mark.parametrize(
    ("number", "text", "advice"),
    [
        (5, "Access is denied.", "; an administrator can do this"),
        (1060, "The specified service does not exist.", "; install it first, or correct --name"),
        (1053, "The service did not respond.", "; the log of the muxer and the event log of Windows say why"),
        (1056, "An instance of the service is already running.", "; to start it again, stop it first"),
        (1722, "The RPC server is unavailable.", ""),
    ],
)
def test_the_advice_fits_the_refusal_of_the_service_manager(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, text: str, advice: str
) -> None:
    class RefusalError(Exception):
        winerror, funcname, strerror = number, "StartService", text

    def refuse(_: object) -> str:
        raise RefusalError

    monkeypatch.setitem(sys.modules, "pywintypes", types.SimpleNamespace(error=RefusalError))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(service, "sys", types.SimpleNamespace(platform="win32", stdout=sys.stdout, stderr=sys.stderr))
    monkeypatch.setitem(service._ACTIONS, "start", refuse)
    assert service.main(["start"]) == 1
    assert capsys.readouterr().err == f"RecordingMuxer: {text} (StartService){advice}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="is about systems that are not Windows")
@pytest.mark.parametrize("action", ["start", "stop", "remove"])
def test_elsewhere_the_command_names_the_unit_of_systemd(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", action]) == EXIT_CONFIG
    assert "on Linux use the unit of systemd" in capsys.readouterr().err
