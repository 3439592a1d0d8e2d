"""Where the log goes: a file, stderr, the journal of systemd, syslog or the event log of Windows."""

from __future__ import annotations

import importlib.util
import logging
import logging.handlers
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from muxer.config import schema
from muxer.config.schema import LogfileOptions
from muxer.errors import ConfigError, Problem
from muxer.log.failure_report import FailureReportMixin
from muxer.log.log_file import RotatingLogFile
from muxer.log.terminal import TerminalHandler

EVENT_SOURCE = "Recording Muxer"
# The name, instead of that of an instance, in the log file of starts that an instance which runs has refused.
REFUSED_NAME = "refused"
# sd-daemon(3): a line on stderr that starts with <N> has this priority in the journal.
_JOURNAL_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}


def log_path_for(options: LogfileOptions, instance: str) -> Path:
    """Return the path of the log file."""
    return (options.logfile_path or Path.cwd()).absolute() / f"recording-muxer-{instance}.log"


def describe_output(options: LogfileOptions, instance: str) -> str:
    """Return where the log of an instance is, in words."""
    return {
        schema.FILE_OUTPUT: f"log file: {log_path_for(options, instance)}",
        schema.STDERR_OUTPUT: "log: stderr",
        schema.JOURNALD_OUTPUT: "log: journal of systemd, read it with journalctl -u and the name of the unit",
        schema.SYSLOG_OUTPUT: f"log: syslog at {options.syslog_address}, as {_program_name(instance)}",
        schema.EVENTLOG_OUTPUT: f"log: Windows event log, source {EVENT_SOURCE}",
    }[options.output]


def find_output_problem(options: LogfileOptions) -> Problem | None:
    """Return why syslog or the event log cannot be used on this machine."""
    address = options.syslog_address
    if options.output == schema.SYSLOG_OUTPUT and address.startswith("/") and not _is_socket(Path(address)):
        what = "must be the socket of a running syslog service, or host:port of one on another machine"
        return Problem(f"[logfile] syslog_address = {address!r}", what)
    if options.output == schema.EVENTLOG_OUTPUT and importlib.util.find_spec("win32evtlogutil") is None:
        what = "needs Windows, and the package pywin32 in the Python of the muxer; use another output"
        return Problem("[logfile] output = 'eventlog'", what)
    return None


def open_output(options: LogfileOptions, instance: str) -> list[logging.Handler]:
    """Return the handlers for `[logfile] output`. Raises ConfigError when it cannot be used, OSError for the file."""
    if problem := find_output_problem(options):
        raise ConfigError([problem])
    handler = _OPENERS[options.output](options, instance)
    if isinstance(handler, StderrHandler) or not sys.stderr.isatty():
        return [handler]
    return [handler, TerminalHandler()]


def is_on_stderr() -> bool:
    """Whether the log goes to stderr, where nothing needs to be written twice."""
    return any(isinstance(handler, StderrHandler) for handler in logging.getLogger().handlers)


def is_stderr_seen() -> bool:
    """Whether an administrator can read stderr: on a terminal, or in the journal of systemd."""
    return sys.stderr.isatty() or _is_journal(sys.stderr)


class StderrHandler(FailureReportMixin, TerminalHandler):
    """Writes the log to stderr, whatever that is."""


class JournalHandler(StderrHandler):
    """Writes the log to stderr, each line with its priority, for the journal of systemd."""

    def format(self, record: logging.LogRecord) -> str:
        """Put the priority before each line of the record, because each becomes an entry of the journal."""
        priority = _JOURNAL_PRIORITIES.get(record.levelno, _JOURNAL_PRIORITIES[logging.INFO])
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


class SyslogHandler(FailureReportMixin, logging.handlers.SysLogHandler):
    """Writes the log to the syslog service of this machine, or of another one over UDP."""

    append_nul = False


class EventLogHandler(FailureReportMixin, logging.handlers.NTEventLogHandler):
    """Writes the log to the application log of Windows."""


def _open_file(options: LogfileOptions, instance: str) -> logging.Handler:
    return RotatingLogFile(log_path_for(options, instance), options.max_bytes, options.backup_count)


def _open_stderr(_options: LogfileOptions, _instance: str) -> logging.Handler:
    return StderrHandler()


def _open_journal(_options: LogfileOptions, _instance: str) -> logging.Handler:
    if _is_journal(sys.stderr):
        return JournalHandler()
    if sys.stderr.isatty():
        return StderrHandler()
    what = "needs the journal of systemd on stderr; start the muxer as a unit of systemd, or use another output"
    raise ConfigError([Problem("[logfile] output = 'journald'", what)])


def _open_syslog(options: LogfileOptions, instance: str) -> logging.Handler:
    host, _, port = options.syslog_address.rpartition(":")
    is_local = options.syslog_address.startswith("/")
    try:
        handler = SyslogHandler(
            options.syslog_address if is_local else (host.strip("[]"), int(port)), SyslogHandler.LOG_DAEMON
        )
    except OSError as error:
        what = f"cannot be used: {error.strerror or error}"
        raise ConfigError([Problem(f"[logfile] syslog_address = {options.syslog_address!r}", what)]) from error
    handler.destination = f"syslog at {options.syslog_address}"
    handler.ident = f"{_program_name(instance)}[{os.getpid()}]: "
    return handler


def _open_event_log(_options: LogfileOptions, _instance: str) -> logging.Handler:
    handler = EventLogHandler(EVENT_SOURCE)
    handler.destination = "the Windows event log"
    return handler


_OPENERS: dict[str, Callable[[LogfileOptions, str], logging.Handler]] = {
    schema.FILE_OUTPUT: _open_file,
    schema.STDERR_OUTPUT: _open_stderr,
    schema.JOURNALD_OUTPUT: _open_journal,
    schema.SYSLOG_OUTPUT: _open_syslog,
    schema.EVENTLOG_OUTPUT: _open_event_log,
}


def _program_name(instance: str) -> str:
    return f"recording-muxer-{instance}"


def _is_journal(stream: TextIO) -> bool:
    """Whether a stream goes to the journal: systemd.exec(5), JOURNAL_STREAM."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except OSError:
        return False
