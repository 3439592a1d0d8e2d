"""Writes to the standard streams, whatever their encoding; on a terminal, log lines and one progress line below them."""

from __future__ import annotations

import codecs
import io
import logging
import os
import sys
from typing import TextIO

DEFAULT_TERMINAL_COLUMNS = 80


def escape_unencodable_output() -> None:
    """Let stdout and stderr escape the characters that their encoding lacks: Windows redirects text in its code page."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def writes_utf8(stream: TextIO) -> bool:
    """Whether `stream` encodes its text as UTF-8."""
    return codecs.lookup(stream.encoding or "ascii").name == "utf-8"


def terminal_width() -> int:
    """Return the number of characters that fit into one line."""
    try:
        width = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        width = 0
    return (width or DEFAULT_TERMINAL_COLUMNS) - 1


def write_text(stream: TextIO, text: str) -> None:
    """Write `text` to stdout or stderr. When that fails, because its terminal was closed, all further text is dropped."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        with open(os.devnull, "wb") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), stream.fileno())


def show_progress_line(line: str, end: str = "") -> None:
    """Replace the progress line. Does nothing when stderr is not a terminal."""
    if sys.stderr.isatty():
        width = terminal_width()
        write_text(sys.stderr, f"\r{line[:width]:<{width}}{end}")


def clear_progress_line(stream: TextIO) -> str:
    """Return what clears the progress line on `stream`, empty when that is not a terminal."""
    return f"\r{'':<{terminal_width()}}\r" if stream.isatty() else ""


class TerminalHandler(logging.StreamHandler[TextIO]):
    """Writes log lines over the progress line."""

    def format(self, record: logging.LogRecord) -> str:
        """Put before the record what clears the progress line: in one piece, because other threads write too."""
        return f"{clear_progress_line(self.stream)}{super().format(record)}"
