"""stderr when it is a terminal: log lines, and under them one line that is written over and over."""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

DEFAULT_TERMINAL_COLUMNS = 80


def terminal_width() -> int:
    """Return how many characters stand in one line without a break."""
    try:
        width = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        width = 0
    return (width or DEFAULT_TERMINAL_COLUMNS) - 1


def show_progress_line(line: str, end: str = "") -> None:
    """Write a line over the last one; nothing when stderr is no terminal."""
    if sys.stderr.isatty():
        width = terminal_width()
        sys.stderr.write(f"\r{line[:width]:<{width}}{end}")
        sys.stderr.flush()


class TerminalHandler(logging.StreamHandler[TextIO]):
    """Writes log lines in place of the line that :func:`show` has left there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Wipe that line and write the record."""
        show_progress_line("", "\r")
        super().emit(record)
