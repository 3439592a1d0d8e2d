"""Calls the program of `[alerts] command` for each event, in threads of its own: nothing in the muxer waits for it."""

from __future__ import annotations

import json
import logging
import os
import queue
import socket
import tempfile
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import IO

from muxer.app.alert_events import (
    MIGRATION_FAILED,
    AlertEvent,
    ConditionWatch,
    ExpiryWatch,
    find_conditions,
    set_aside_event,
)
from muxer.errors import MuxerError, format_error
from muxer.journal.correction_need import CorrectionNeed, find_correction_need
from muxer.journal.history import read_failures_since_muxed
from muxer.journal.journal import TargetKey
from muxer.journal.retry_policy import Failure
from muxer.monitoring.certificate_expiry import CertificateExpiries, ServerCertificates
from muxer.monitoring.person_mask import PersonMask
from muxer.monitoring.view import ViewSources, current_fleet
from muxer.system.process import Runner

log = logging.getLogger(__name__)

EVENT_VERSION = 1
WATCH_INTERVAL = 2.0
# By then the first poll has most likely ended, so that the storages are known.
FIRST_CERTIFICATE_DELAY, CERTIFICATE_INTERVAL = 60.0, 3600.0
# The journal is read for it.
CORRECTION_INTERVAL = 30.0
COMMAND_TIMEOUT_SECONDS = 30.0
# How long the end waits for waiting events. A migration that ended by itself has time for its summary, a stop has none.
CLOSE_SECONDS, CLOSE_MIGRATION_SECONDS = 3.0, COMMAND_TIMEOUT_SECONDS + 5.0
MAX_WAITING_EVENTS = 100
MAX_TEXT_LENGTH = 2000
FAILURE_LOG_INTERVAL = 3600.0


class AlertHook:
    """Watches the muxer behind `sources`, and calls the program. Safe to use from any thread."""

    def __init__(self, sources: ViewSources) -> None:
        self._sources, self._alerts = sources, sources.config.alerts
        self._host, self._runner, self._stop = socket.gethostname(), Runner(), threading.Event()
        self._events: queue.Queue[AlertEvent | None] = queue.Queue(MAX_WAITING_EVENTS)
        self._lock, self._lost = threading.Lock(), 0
        self._next_log = float("-inf")
        self._conditions = ConditionWatch(self._alerts.service_minutes * 60)
        self._expiries, self._reported = CertificateExpiries(sources.config), ExpiryWatch()
        self._servers = ServerCertificates(sources, self._stop)
        self._correction: CorrectionNeed | None = None
        self._correction_due = time.monotonic()
        self._certificates_due = time.monotonic() + FIRST_CERTIFICATE_DELAY
        self._caller = threading.Thread(target=self._call_for_events, name="alert command", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        self._caller.start()
        threading.Thread(target=self._watch, name="alerts", daemon=True).start()

    def report_set_aside(self, key: TargetKey, failure: Failure) -> None:
        """Report a recording that is set aside. Returns at once."""
        self._put(set_aside_event(key, failure))

    def report_migration(self, failures: Iterable[tuple[str, str]]) -> None:
        """Report once that a migration has ended with `failures`: recording and reason of each."""
        count = len({recording for recording, _ in failures})
        failed = "1 recording failed" if count == 1 else f"{count} recordings failed"
        text = f"{failed}; the log lists them" if count else "not all recordings could be read; the log says why"
        self._put(AlertEvent(MIGRATION_FAILED, text, subject={"failed": count}))

    def close(self, *, has_ended: bool = False) -> None:
        """Stop watching, and end when the program was called for the waiting events, or after a limit.

        `has_ended`: this is a migration that ended by itself.
        """
        self._stop.set()
        deadline = time.monotonic() + (CLOSE_MIGRATION_SECONDS if has_ended else CLOSE_SECONDS)
        while self._caller.is_alive() and time.monotonic() < deadline:
            try:
                self._events.put(None, timeout=0.1)
                break
            except queue.Full:
                continue
        self._caller.join(max(0.0, deadline - time.monotonic()))
        self._runner.cancel_all()

    def _put(self, event: AlertEvent) -> None:
        try:
            self._events.put_nowait(event)
        except queue.Full:
            with self._lock:
                self._lost += 1

    def _watch(self) -> None:
        while not self._stop.wait(WATCH_INTERVAL):
            try:
                self._find_events()
            except Exception:
                log.exception("the watch for alerts failed with an unexpected error; it continues")

    def _find_events(self) -> None:
        sources, fleet = self._sources, current_fleet(self._sources)
        if time.monotonic() >= self._correction_due:
            self._correction_due = time.monotonic() + CORRECTION_INTERVAL
            # While the journal cannot be read, what is known remains.
            if (failures := read_failures_since_muxed(sources.journal)) is not None:
                self._correction = find_correction_need(failures, time.time())
        out, has_room = sources.circuit_breaker.open_circuits(), sources.disk.has_room()
        found = find_conditions(out, has_room, self._host, fleet, self._correction)
        # Without RabbitMQ it is unknown what the workers lack.
        is_complete = fleet is None or fleet.connected
        for event in self._conditions.compare(found, time.monotonic(), is_complete=is_complete):
            self._put(event)
        if time.monotonic() >= self._certificates_due:
            self._certificates_due = time.monotonic() + CERTIFICATE_INTERVAL
            self._servers.check_servers()
            expiries = (*self._expiries.read_expiries(sources.recipients()), *self._servers.last_expiries())
            for event in self._reported.compare(expiries, time.time()):
                self._put(event)

    def _call_for_events(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                self._call_program(event)
            except (MuxerError, OSError) as error:
                self._log_failure(error)
            except Exception:
                log.exception("an alert failed with an unexpected error")

    def _call_program(self, event: AlertEvent) -> None:
        # Other programs do not get the proxies; this one may need them to deliver the event.
        proxies = {name: value for name, value in os.environ.items() if name.upper().endswith("_PROXY")}
        variables = {**proxies, "MUXER_ALERT": event.kind, "MUXER_INSTANCE": self._sources.config.instance_name}
        with tempfile.TemporaryFile() as document:
            document.write(self._encode_event(event))
            document.seek(0)
            self._runner.run_streaming(
                [str(self._alerts.command)],
                _discard_output,
                timeout=COMMAND_TIMEOUT_SECONDS,
                stdin=document,
                variables=variables | {"MUXER_CODE": event.code},
            )

    def _encode_event(self, event: AlertEvent) -> bytes:
        with self._lock:
            lost, self._lost = self._lost, 0
        content = {
            "version": EVENT_VERSION,
            "event": event.kind,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "instance": self._sources.config.instance_name,
            "host": self._host,
            "code": event.code,
            "text": self._mask_text(event.text, event.names),
            **{name: self._mask_subject(one) if isinstance(one, str) else one for name, one in event.subject.items()},
            "lost": lost,
        }
        return json.dumps(content, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"

    def _mask_subject(self, text: str) -> str:
        return self._sources.secret_mask(text)[:MAX_TEXT_LENGTH]

    def _mask_text(self, text: str, names: Iterable[str]) -> str:
        """Return a text without secrets and people, shortened."""
        people, secrets = PersonMask(), self._sources.secret_mask
        for name in names:
            people.add_name(name)
        plain = secrets(text)
        people.collect_names(plain)
        return secrets(people.mask_text(plain))[:MAX_TEXT_LENGTH]

    def _log_failure(self, error: Exception) -> None:
        if not self._stop.is_set() and time.monotonic() >= self._next_log:
            self._next_log = time.monotonic() + FAILURE_LOG_INTERVAL
            log.warning(
                "the program of [alerts] command failed; the next warning follows in an hour at the earliest: %s",
                format_error(error),
            )


def _discard_output(output: IO[bytes]) -> None:
    while output.read(65_536):
        pass
