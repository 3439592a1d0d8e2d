"""Writes to stderr when it is a terminal: log lines, and one progress line below them."""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

DEFAULT_TERMINAL_COLUMNS = 80


def terminal_width() -> int:
    """Return the number of characters that fit into one line."""
    try:
        width = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        width = 0
    return (width or DEFAULT_TERMINAL_COLUMNS) - 1


def show_progress_line(line: str, end: str = "") -> None:
    """Replace the progress line. Does nothing when stderr is not a terminal."""
    if sys.stderr.isatty():
        width = terminal_width()
        sys.stderr.write(f"\r{line[:width]:<{width}}{end}")
        sys.stderr.flush()


class TerminalHandler(logging.StreamHandler[TextIO]):
    """Writes log lines over the progress line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Clear the progress line and write the record."""
        show_progress_line("", "\r")
        super().emit(record)
