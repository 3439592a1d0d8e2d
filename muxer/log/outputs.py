"""Where the log goes: a file, stderr, the journal of systemd, syslog or the event log of Windows."""

from __future__ import annotations

import importlib.util
import logging
import logging.handlers
import os
import socket
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from muxer.config import schema
from muxer.config.schema import LogfileOptions
from muxer.errors import ConfigError, Problem
from muxer.log.background import BackgroundHandler
from muxer.log.log_file import RotatingLogFile
from muxer.log.terminal import TerminalHandler, clear_progress_line

EVENT_SOURCE = "Recording Muxer"
# The name, instead of that of an instance, in the log file of starts that an instance which runs has refused.
REFUSED_NAME = "refused"
# syslog(3); sd-daemon(3): a line on stderr that starts with <N> has this priority in the journal.
_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
_DAEMON_FACILITY = 3
# The name of a syslog service on another machine is looked up again after these seconds.
LOOK_UP_INTERVAL = 300.0
_JOURNAL_SOCKET = Path("/run/systemd/journal/stdout")


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
    if options.output == schema.SYSLOG_OUTPUT and _is_path(address) and not _is_socket(Path(address)):
        what = "must be the socket of a running syslog service, or host:port of one on another machine"
        return Problem(f"[logfile] syslog_address = {address!r}", what)
    if options.output == schema.EVENTLOG_OUTPUT and importlib.util.find_spec("win32evtlogutil") is None:
        what = "needs Windows, and the package pywin32 in the Python of the muxer; use another output"
        return Problem("[logfile] output = 'eventlog'", what)
    return None


def find_loss(options: LogfileOptions) -> tuple[str, str] | None:
    """Return why the log of a muxer that starts now would be lost, and what to do; None when it would not."""
    if options.output == schema.JOURNALD_OUTPUT and not _JOURNAL_SOCKET.exists():
        return f"no journal of systemd: {_JOURNAL_SOCKET} does not exist", "set [logfile] output to another one"
    if options.output == schema.SYSLOG_OUTPUT:
        try:
            _connect_syslog(options.syslog_address, blocking=False).close()
        except (OSError, UnicodeError) as error:
            reason = f"syslog at {options.syslog_address}: {getattr(error, 'strerror', None) or error}"
            return reason, "start the syslog service, or correct [logfile] syslog_address"
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


class StderrHandler(BackgroundHandler):
    """Writes the log to stderr, whatever that is."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = _own_stderr()

    def format(self, record: logging.LogRecord) -> str:
        """Write over the progress line."""
        return f"{clear_progress_line(self._stream)}{super().format(record)}"

    def write_line(self, _level: int, line: str) -> None:
        """Write a line."""
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def _write_to_stderr(self, what: str) -> None:
        """Do nothing: there, the report would wait like the lines that it is about."""


class JournalHandler(StderrHandler):
    """Writes the log to stderr, each line with its priority, for the journal of systemd."""

    def format(self, record: logging.LogRecord) -> str:
        """Put the priority before each line of the record, because each becomes an entry of the journal."""
        return "\n".join(f"<{_priority(record.levelno)}>{line}" for line in super().format(record).splitlines())


class SyslogHandler(BackgroundHandler):
    """Writes the log to the syslog service of this machine, or of another one over UDP."""

    def __init__(self, address: str, name: str) -> None:
        """`address` is the path of a socket or host:port; lines bear `name`."""
        super().__init__()
        self.destination = f"syslog at {address}"
        self._address, self._name = address, name
        self._socket: socket.socket | None = None
        self._looked_up = 0.0

    def write_line(self, level: int, line: str) -> None:
        """Send a line. The name of another machine is looked up for the first line, and regularly: it may move."""
        if self._socket is None or time.monotonic() - self._looked_up > LOOK_UP_INTERVAL:
            self._look_up_service()
        text = f"<{_DAEMON_FACILITY * 8 + _priority(level)}>{self._name}[{os.getpid()}]: {line}"
        data = text.encode(errors="backslashreplace")
        try:
            self._send(data)
        except OSError:
            # A service of this machine may have been restarted; over UDP, the error is that of an earlier line.
            if _is_path(self._address):
                self._connect()
            self._send(data)

    def _look_up_service(self) -> None:
        try:
            self._connect()
        except OSError:
            if self._socket is None:
                raise

    def _connect(self) -> None:
        self._looked_up = time.monotonic()
        service = _connect_syslog(self._address)
        if self._socket is not None:
            self._socket.close()
        self._socket = service

    def _send(self, data: bytes) -> None:
        assert self._socket is not None
        # As syslog(3) ends a line in a stream, and every service reads it; a line may contain line breaks.
        end = b"\0" if self._socket.type == socket.SOCK_STREAM else b""
        self._socket.sendall(data + end)


class EventLogHandler(BackgroundHandler):
    """Writes the log to the application log of Windows."""

    destination = "the Windows event log"

    def __init__(self) -> None:
        super().__init__()
        self._writer = _EventLogWriter(EVENT_SOURCE)

    def write_line(self, level: int, line: str) -> None:
        """Write an event."""
        self._writer.emit(logging.makeLogRecord({"levelno": level, "msg": line}))


class _EventLogWriter(logging.handlers.NTEventLogHandler):
    def handleError(self, _record: logging.LogRecord) -> None:
        raise


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
    return SyslogHandler(options.syslog_address, _program_name(instance))


def _open_event_log(_options: LogfileOptions, _instance: str) -> logging.Handler:
    return EventLogHandler()


_OPENERS: dict[str, Callable[[LogfileOptions, str], logging.Handler]] = {
    schema.FILE_OUTPUT: _open_file,
    schema.STDERR_OUTPUT: _open_stderr,
    schema.JOURNALD_OUTPUT: _open_journal,
    schema.SYSLOG_OUTPUT: _open_syslog,
    schema.EVENTLOG_OUTPUT: _open_event_log,
}


def _program_name(instance: str) -> str:
    return f"recording-muxer-{instance}"


def _priority(level: int) -> int:
    """Return the priority of a line, for the journal and for syslog."""
    return _PRIORITIES.get(level, _PRIORITIES[logging.INFO])


def _own_stderr() -> TextIO:
    """Return a stream of its own for stderr: the thread that hangs in a write must not hold the lock of `sys.stderr`."""
    try:
        return os.fdopen(sys.stderr.fileno(), "w", encoding=sys.stderr.encoding, errors="backslashreplace", closefd=False)
    except (OSError, ValueError):
        return sys.stderr


def _connect_syslog(address: str, blocking: bool = True) -> socket.socket:
    """Connect to a syslog service. Raises OSError when its name is unknown, or none of its addresses can be used."""
    failure = OSError("it has no address")
    for family, kind, target in _find_syslog_targets(address):
        try:
            service = socket.socket(family, kind)
        except OSError as error:  # this machine has no IPv6
            failure = error
            continue
        try:
            service.setblocking(blocking)
            service.connect(target)
        except OSError as error:
            service.close()
            failure = error
        else:
            return service
    raise failure


def _find_syslog_targets(address: str) -> list[tuple[int, int, Any]]:
    """Return family, type and target of each socket that may reach a syslog service, the best first."""
    if _is_path(address) and sys.platform != "win32":
        return [(socket.AF_UNIX, kind, address) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    return [(family, socket.SOCK_DGRAM, target) for family, _, _, _, target in found]


def _is_path(address: str) -> bool:
    return address.startswith("/")


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
