"""Writes the log in a separate thread: where it goes may be a service that hangs, and nothing else must wait for that."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from abc import abstractmethod

from muxer.log.failure_report import FailureReportMixin

log = logging.getLogger(__name__)

# More lines that wait are lost.
MAX_WAITING_LINES = 10_000
# How long a line may wait for room while lines are written: many at once are no reason to lose some.
ROOM_TIMEOUT_SECONDS = 1.0
# How long a stop waits for the last lines.
END_TIMEOUT_SECONDS = 2.0


class BackgroundHandler(FailureReportMixin):
    """Queues formatted lines for a thread that writes them; its first line starts it."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.Queue[tuple[int, str] | None] = queue.Queue(MAX_WAITING_LINES)
        self._thread: threading.Thread | None = None
        self._failing_since = 0.0

    @abstractmethod
    def write_line(self, level: int, line: str) -> None:
        """Write one line, or raise an exception: the line is lost. Called in the thread, and may take any time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line."""
        try:
            line = self.format(record)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._write_lines, name="log output", daemon=True)
                self._thread.start()
            # Where nothing was written in that time, the next lines do not wait.
            self._lines.put((record.levelno, line), timeout=0.0 if self._is_failing else ROOM_TIMEOUT_SECONDS)
        except queue.Full:
            self.report_failure("cannot be written, lines are lost: it has not taken any for a while")
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Wait for the lines that are queued, not longer than twice the time limit."""
        if self._thread is not None and self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._lines.put(None, timeout=END_TIMEOUT_SECONDS)
                self._thread.join(END_TIMEOUT_SECONDS)
            if self._thread.is_alive():
                self.report_failure("has not taken the last lines in time, they are lost")
        super().close()

    def report_failure(self, what: str) -> None:
        """Report the first failure of a series, and remember its time."""
        if not self._is_failing:
            self._failing_since = time.monotonic()
        super().report_failure(what)

    def report_success(self) -> None:
        """After a failure, report its end in the log too, whose reader sees no stderr."""
        was_failing = self._is_failing
        super().report_success()
        if was_failing and log.isEnabledFor(logging.WARNING):
            text = "lines of the log are lost: %s could not be written for %.0f s"
            values = (self.destination, time.monotonic() - self._failing_since)
            # Not by `log`: at the end of the process, this handler is locked while it waits for the thread that calls this.
            self.emit(log.makeRecord(log.name, logging.WARNING, __file__, 0, text, values, None))

    def _write_lines(self) -> None:
        is_ending = has_written = False
        # A report of lines that were lost comes behind the end.
        while not is_ending or not self._lines.empty():
            if (line := self._lines.get()) is None:
                is_ending = True
            else:
                has_written = self._try_line(*line)
            # While lines wait, the next may be lost again: one report for the whole time.
            if has_written and self._lines.empty():
                self.report_success()

    def _try_line(self, level: int, line: str) -> bool:
        """Write a line, and report a failure. Returns whether it was written."""
        try:
            self.write_line(level, line)
        except Exception as error:
            self.report_failure(f"cannot be written, lines are lost: {error}")
            return False
        return True
