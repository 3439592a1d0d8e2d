"""The exit codes of the process, and the handling of the signals that stop it."""

from __future__ import annotations

import os
import signal
import threading

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_SOME_FAILED = 4
EXIT_KILLED = 130


def ignore_hangup() -> None:
    """Let SIGHUP, which a closed terminal sends, do nothing. Programs that are started do not inherit that."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)


def handle_signals(stop: threading.Event) -> None:
    """Set `stop` at the first signal, and end the process at once at the second."""

    received = threading.Event()

    def set_stop(_number: int, _frame: object) -> None:
        if received.is_set():
            os._exit(EXIT_KILLED)
        received.set()
        stop.set()  # may be set already: a migration that is complete stops by itself

    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), set_stop)
