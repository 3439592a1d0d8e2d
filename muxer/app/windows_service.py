"""The muxer in a service of Windows, in the process that the service manager has started."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import traceback
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from muxer.app.cli import run_muxer
from muxer.log.outputs import EVENT_SOURCE
from muxer.system.exit_codes import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, EXIT_SOME_FAILED

# The muxer stops in less than 15 seconds.
STOP_SECONDS = 20
# The service manager restarts the service after a failure without a report, so not after these.
REPORTED_CODES = (EXIT_OK, EXIT_CONFIG, EXIT_SOME_FAILED)
MAX_EVENT_LINES = 20
_ERROR_SERVICE_SPECIFIC = 1066
_CONTROL_STOP, _CONTROL_SHUTDOWN, _CONTROL_PRESHUTDOWN = 1, 5, 15
_STOP_CONTROLS = (_CONTROL_STOP, _CONTROL_SHUTDOWN, _CONTROL_PRESHUTDOWN)
_ACCEPTED_CONTROLS = 0x1 | 0x4 | 0x100
_OWN_PROCESS, _STOPPED, _START_PENDING, _STOP_PENDING, _RUNNING = 0x10, 1, 2, 3, 4


class LastLines(io.TextIOBase):
    """Keeps the last lines of the standard streams, which a service does not have, for the event log."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=MAX_EVENT_LINES)

    def write(self, text: str) -> int:
        """Keep the lines of `text`."""
        self.lines.extend(line for line in text.splitlines() if line.strip())
        return len(text)


class MuxerService:
    """One run of the service. The service manager calls it by the names of pywin32."""

    def __init__(self, manager: Any, name: str, arguments: Sequence[str]) -> None:
        """Register with the `manager`, the module servicemanager. `arguments` are those of muxer_process.py."""
        self._manager, self._arguments, self._stop = manager, arguments, threading.Event()
        self._handle = manager.RegisterServiceCtrlHandler(name, self._handle_control, True)
        self._report(_START_PENDING)

    def SvcRun(self) -> NoReturn:
        """Run the muxer, report its end to the service manager and the event log, and end the process."""
        self._report(_RUNNING)
        output = sys.stdout = sys.stderr = LastLines()
        try:
            code = run_muxer(self._arguments, stop=self._stop)
        except BaseException:
            traceback.print_exc(file=output)
            code = EXIT_FAILED
        if code != EXIT_OK:
            self._write_event(f"The Recording Muxer ended with exit code {code}.\n" + "\n".join(output.lines))
        if code in REPORTED_CODES:
            self._report(_STOPPED, code)
        os._exit(code)

    def _handle_control(self, control: int, _event: int, _data: object) -> None:
        if control in _STOP_CONTROLS:
            self._report(_STOP_PENDING)
            self._stop.set()

    def _report(self, state: int, code: int = 0) -> None:
        """Report `state` to the service manager; `code` is the exit code of a stopped one."""
        import win32service

        accepted = _ACCEPTED_CONTROLS if state == _RUNNING else 0
        is_moving = state in (_START_PENDING, _STOP_PENDING)
        error = _ERROR_SERVICE_SPECIFIC if code else 0
        status = (_OWN_PROCESS, state, accepted, error, code, int(is_moving), 1000 * STOP_SECONDS if is_moving else 0)
        win32service.SetServiceStatus(self._handle, status)

    def _write_event(self, text: str) -> None:
        """Write `text` to the event log. When that fails, only the exit code shows the end."""
        import pywintypes
        import win32evtlog
        import win32evtlogutil

        with contextlib.suppress(pywintypes.error):
            win32evtlogutil.ReportEvent(EVENT_SOURCE, 1, eventType=win32evtlog.EVENTLOG_ERROR_TYPE, strings=[text])


def run_windows_service(name: str, arguments: Sequence[str]) -> None:
    """Run the muxer as service `name` with the `arguments` of muxer_process.py, in the folder of its configuration."""
    import servicemanager

    option = next((one for one in arguments if one.startswith("--config-file=")), "")
    os.chdir(Path(option.partition("=")[2]).parent)
    servicemanager.Initialize(EVENT_SOURCE, servicemanager.__file__)
    servicemanager.PrepareToHostSingle(lambda _arguments: MuxerService(servicemanager, name, arguments))
    servicemanager.StartServiceCtrlDispatcher()
