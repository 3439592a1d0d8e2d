"""Sets up the log: its output, text or JSON, each line with its recording, secrets masked."""

from __future__ import annotations

import contextvars
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from muxer.config.schema import LogfileOptions
from muxer.log.outputs import open_output
from muxer.system.masking import Mask

# Longer ids are cut, so that metadata cannot fill the log.
MAX_ID_LENGTH = 200
_recording: contextvars.ContextVar[str] = contextvars.ContextVar("recording", default="")


@contextmanager
def recording_context(recording_id: str) -> Iterator[None]:
    """Add `recording_id` to every line that this thread logs in the block."""
    token = _recording.set(recording_id if len(recording_id) <= MAX_ID_LENGTH else f"{recording_id[:MAX_ID_LENGTH]}…")
    try:
        yield
    finally:
        _recording.reset(token)


def set_up_logging(options: LogfileOptions, instance: str, secrets: Sequence[str]) -> None:
    """Start to log, also to a terminal. Raises ConfigError when the output cannot be used, OSError."""
    formatter = _JsonFormatter(secrets) if options.format == "json" else _TextFormatter(secrets)
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    for handler in open_output(options, instance):
        handler.setFormatter(formatter)
        root.addHandler(handler)
    # Libraries log addresses and more at their lower levels.
    root.setLevel(logging.WARNING)
    logging.getLogger("muxer").setLevel(options.level.upper())


class _Formatter(logging.Formatter, ABC):
    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__()
        self._mask = Mask(secrets)

    def format(self, record: logging.LogRecord) -> str:
        return self._mask(self.format_line(record, getattr(record, "fields", {})))

    @abstractmethod
    def format_line(self, record: logging.LogRecord, fields: dict[str, Any]) -> str:
        """Return the line of a record."""

    def format_time(self, record: logging.LogRecord) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def format_traceback(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info else ""


class _TextFormatter(_Formatter):
    def format_line(self, record: logging.LogRecord, fields: dict[str, Any]) -> str:
        recording = _recording.get()
        context = f" [{escape_control(recording)}]" if recording else ""
        text = f"{self.format_time(record)} {record.levelname:<7}{context} {escape_control(record.getMessage())}"
        text += "".join(f" {name}={escape_control(_shorten_value(value))}" for name, value in fields.items())
        # Indented, so that no text in it can pass for a log line.
        return "\n    ".join([text, *map(escape_control, self.format_traceback(record).splitlines())])


class _JsonFormatter(_Formatter):
    def format_line(self, record: logging.LogRecord, fields: dict[str, Any]) -> str:
        entry: dict[str, Any] = {"time": self.format_time(record), "level": record.levelname.lower(), "logger": record.name}
        if _recording.get():
            entry["recording"] = _recording.get()
        entry |= {"message": record.getMessage(), **fields}
        if trace := self.format_traceback(record):
            entry["trace"] = trace
        return json.dumps(entry, ensure_ascii=False, default=str)


def escape_control(text: str) -> str:
    """Escape characters of `text` that would end the line or control a terminal: it may come from metadata."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _shorten_value(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return json.dumps(text) if " " in text or not text else text
