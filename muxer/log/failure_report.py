"""Reports on stderr that lines of the log are lost, once and without the lines: their secrets are not masked yet."""

from __future__ import annotations

import contextlib
import logging
import sys


class FailureReportMixin(logging.Handler):
    """Replaces the error handling of a handler of the standard library, which prints the unmasked line each time."""

    destination = "the log"
    _is_failing = _has_failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, and report when lines are written again."""
        self._has_failed = False
        super().emit(record)
        if not self._has_failed:
            self.report_success()

    def handleError(self, record: logging.LogRecord) -> None:
        """Report once why lines are lost."""
        self.report_failure(f"cannot be written, lines are lost: {sys.exc_info()[1]}")

    def report_failure(self, what: str) -> None:
        """Report the first failure of a series."""
        self._has_failed = True
        if not self._is_failing:
            self._is_failing = True
            self._write_to_stderr(what)

    def report_success(self) -> None:
        """Report the end of a series of failures."""
        if self._is_failing:
            self._is_failing = False
            self._write_to_stderr("is written again")

    def _write_to_stderr(self, what: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{self.destination} {what}\n")
            sys.stderr.flush()
