"""The log file: one process writes it, it is rotated, and its failures never stop the work."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import sys
from pathlib import Path

from muxer.system.file_lock import acquire_lock


def lock_path(path: Path) -> Path:
    """Return the path of the lock file of the log file `path`."""
    return path.with_name(f"{path.name}.lock")


class RotatingLogFile(logging.handlers.RotatingFileHandler):
    """A rotated log file that only this process writes. A failure to write it is reported on stderr once."""

    def __init__(self, path: Path, max_bytes: int, backup_count: int) -> None:
        """Lock and open the file. Raises ConfigError when another process writes it, OSError when it cannot be written."""
        self._lock_file = acquire_lock(lock_path(path), path, "[logfile] logfile_path")
        self._failing = self._failed = False
        super().__init__(path, maxBytes=max_bytes, backupCount=backup_count, encoding="utf-8", errors="backslashreplace")

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, after a rotation when it is due."""
        self._failed = False
        super().emit(record)
        if self._failing and not self._failed:
            self._failing = False
            self._write_to_stderr("is written again")

    def doRollover(self) -> None:
        """Rotate without losing a file. If that fails (Windows), go on in the same file."""
        stream, self.stream = self.stream, None
        if stream:
            stream.close()
        current = Path(self.baseFilename)
        paths = [current, *(current.with_name(f"{current.name}.{number + 1}") for number in range(self.backupCount))]
        free = next((number for number, path in enumerate(paths) if not path.exists()), self.backupCount)
        try:
            for number in range(free, 0, -1):
                paths[number - 1].replace(paths[number])
        except OSError as error:
            self._report_failure(f"cannot be rotated: {error}")

    def handleError(self, record: logging.LogRecord) -> None:
        """Report once why lines are lost, without the record: its secrets are not masked yet."""
        self._report_failure(f"cannot be written, lines are lost: {sys.exc_info()[1]}")

    def close(self) -> None:
        """Close the file and release its lock."""
        super().close()
        self._lock_file.close()

    def _report_failure(self, what: str) -> None:
        self._failed = True
        if not self._failing:
            self._failing = True
            self._write_to_stderr(what)

    def _write_to_stderr(self, what: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"the log file {self.baseFilename} {what}\n")
            sys.stderr.flush()
