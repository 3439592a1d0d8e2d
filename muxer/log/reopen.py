"""Opens the log file again: after SIGHUP, and when another program has renamed or deleted it."""

from __future__ import annotations

import logging
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from muxer.log.log_file import RotatingLogFile
from muxer.system.exit_codes import ignore_hangup

log = logging.getLogger(__name__)

CHECK_INTERVAL = 5.0
END_TIMEOUT_SECONDS = 1.0
_HANGUP, _END = "hangup", "end"


@contextmanager
def watch_log() -> Iterator[None]:
    """Within this block, reopen the log file after SIGHUP, and recreate it when it was renamed or deleted."""
    # A signal handler may interrupt itself: of the ways to wake a thread, only this one allows that.
    events: queue.SimpleQueue[str] = queue.SimpleQueue()
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda _number, _frame: events.put(_HANGUP))
    thread = threading.Thread(target=_watch_events, args=(events,), name="log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ignore_hangup()
        events.put(_END)
        thread.join(END_TIMEOUT_SECONDS)


def _watch_events(events: queue.SimpleQueue[str]) -> None:
    while True:
        try:
            event = events.get(timeout=CHECK_INTERVAL)
        except queue.Empty:
            _reopen_files(if_replaced=True)
            continue
        if event == _END:
            return
        reopened = "the log file is open again; " if _reopen_files() else ""
        log.info("SIGHUP received: %sthe configuration is read at the start only, restart to apply changes", reopened)


def _reopen_files(*, if_replaced: bool = False) -> bool:
    """Reopen the log file, and return whether there is one."""
    files = [handler for handler in logging.getLogger().handlers if isinstance(handler, RotatingLogFile)]
    for file in files:
        file.reopen(if_replaced=if_replaced)
    return bool(files)
