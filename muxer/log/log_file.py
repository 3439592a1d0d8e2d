"""The log file: one process writes it, it is rotated here or by another program, and its failures never stop the work."""

from __future__ import annotations

import logging.handlers
import os
import sys
from pathlib import Path

from muxer.log.failure_report import FailureReportMixin
from muxer.system.file_lock import acquire_lock


def lock_path(path: Path) -> Path:
    """Return the path of the lock file of the log file `path`."""
    return path.with_name(f"{path.name}.lock")


class RotatingLogFile(FailureReportMixin, logging.handlers.RotatingFileHandler):
    """A rotated log file that only this process writes. A failure to write it is reported on stderr once."""

    def __init__(self, path: Path, max_bytes: int, backup_count: int) -> None:
        """Lock and open the file. Raises ConfigError when another process writes it, OSError when it cannot be written."""
        self._lock_file = acquire_lock(lock_path(path), path, "[logfile] logfile_path")
        self.destination = f"the log file {path}"
        super().__init__(path, maxBytes=max_bytes, backupCount=backup_count, encoding="utf-8", errors="backslashreplace")

    def doRollover(self) -> None:
        """Rotate without losing a file. If that fails (Windows), go on in the same file."""
        self._close_stream()
        current = Path(self.baseFilename)
        paths = [current, *(current.with_name(f"{current.name}.{number + 1}") for number in range(self.backupCount))]
        free = next((number for number, path in enumerate(paths) if not path.exists()), self.backupCount)
        try:
            for number in range(free, 0, -1):
                paths[number - 1].replace(paths[number])
        except OSError as error:
            self.report_failure(f"cannot be rotated: {error}")

    def reopen(self, *, if_replaced: bool = False) -> None:
        """Open the file with this name again; with `if_replaced` only when that is another file, or does not exist."""
        self.acquire()
        try:
            if not if_replaced or self._is_replaced():
                self._close_stream()
                # The next line opens it again; it may come late.
                Path(self.baseFilename).open("a", encoding="utf-8").close()
        except OSError as error:
            self.report_failure(f"cannot be opened again, lines are lost: {error}")
        finally:
            self.release()

    def close(self) -> None:
        """Close the file and release its lock."""
        super().close()
        self._lock_file.close()

    def _is_replaced(self) -> bool:
        # Windows does not let other programs rename or delete an open file.
        if self.stream is None or sys.platform == "win32":
            return False
        try:
            found = Path(self.baseFilename).stat()
        except FileNotFoundError:
            return True
        return not os.path.samestat(found, os.fstat(self.stream.fileno()))

    def _close_stream(self) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.close()
