"""Audits at regular intervals beside the running muxer: quiet when all is well, a warning when it is not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from muxer.audit.auditor import Auditor
from muxer.audit.findings import TEXTS
from muxer.audit.ledger import LEDGER_FILE, AuditLedger
from muxer.audit.pace import Pace
from muxer.audit.report import format_epoch
from muxer.audit.scope import AuditScope, PastEncryption, site_facts
from muxer.audit.spans import Span
from muxer.config.schema import Config
from muxer.errors import ConfigError, MuxerError, Stopped, format_error
from muxer.pipeline.services import Services
from muxer.status.last_audit import LastAudit, read_last_audit, write_last_audit

log = logging.getLogger(__name__)

CHECK_SECONDS = 30.0
# After a failure, such as an unavailable service, the audit goes on behind what it has done.
RETRY_SECONDS = 1800.0
DAY_SECONDS = 86_400.0


class ScheduledAudit:
    """Runs the audits of `[audit] every` in a thread. Each begins where the one before it ended."""

    def __init__(self, config: Config, services: Services, now: Callable[[], float] = time.time) -> None:
        self._config, self._services, self._now = config, services, now
        self._interval = config.audit.every * DAY_SECONDS
        processing = config.processing
        # Younger calls are still the work of the muxer.
        self._settle = (processing.window_past + processing.window_past_older_than) * 60.0
        self._thread = threading.Thread(target=self._run_forever, name="audit", daemon=True)

    def start(self) -> None:
        """Start the thread, which ends when the process stops."""
        self._thread.start()

    def _run_forever(self) -> None:
        while not self._services.stop.is_set():
            pause = CHECK_SECONDS
            try:
                if self.is_due():
                    self.run_audit()
            except Stopped:
                return
            except (MuxerError, OSError) as error:
                log.warning("the audit failed; it goes on in %d minutes: %s", RETRY_SECONDS // 60, format_error(error))
                pause = RETRY_SECONDS
            except Exception:
                log.exception("the audit failed with an unexpected error; it goes on in %d minutes", RETRY_SECONDS // 60)
                pause = RETRY_SECONDS
            self._services.stop.wait(pause)

    def is_due(self) -> bool:
        """Whether an audit is to be run now, or to be continued."""
        last = read_last_audit(self._services.workspace.path)
        # A time in the future is that of a clock that was wrong.
        return bool(last.planned_end) or not self._now() - self._interval < last.at <= self._now()

    def run_audit(self) -> LastAudit:
        """Audit the calls since the last audit, and write the result. Raises MuxerError, OSError; then it can go on."""
        folder, processing = self._services.workspace.path, self._config.processing
        last = read_last_audit(folder)
        end = last.planned_end or self._now() - self._settle
        start = last.end if 0 < last.end <= end else end - self._interval
        ledger_path = folder / LEDGER_FILE
        if not last.planned_end:
            ledger_path.unlink(missing_ok=True)
            write_last_audit(folder, replace(last, planned_end=end))
        span = Span(round(start * 1000), round(end * 1000))
        scope = AuditScope(span, "", self._config.is_sharded, PastEncryption.from_options(self._config.audit))
        request = {
            "from": span.start,
            "until": span.end,
            "query": None,
            "shard": f"{processing.muxer_id}/{processing.total_muxers}" if self._config.is_sharded else None,
            **site_facts(self._config),
            **scope.encryption.facts,
        }
        ledger = _open_ledger(ledger_path, request)
        try:
            self._audit_scope(ledger, scope)
            done = LastAudit(
                at=self._now(),
                start=start,
                end=end,
                calls=ledger.read_fact("calls", 0),
                files=ledger.read_fact("files", 0),
                findings={kind.value: count for kind, count in ledger.count_findings().items()},
            )
            _log_result(ledger, done)
        finally:
            ledger.close()
        write_last_audit(folder, done)
        return done

    def _audit_scope(self, ledger: AuditLedger, scope: AuditScope) -> None:
        options = self._config.audit
        pace = Pace(options.rate, options.hours, self._services.stop)
        for _ in Auditor(self._config, self._services, ledger, scope, pace).audit_calls():
            pass


def _open_ledger(path: Path, request: Mapping[str, Any]) -> AuditLedger:
    """Open the ledger of an audit; one of another audit is replaced. Raises LocalResourceError."""
    try:
        return AuditLedger(path, request)
    except ConfigError:
        path.unlink(missing_ok=True)
        return AuditLedger(path, request)


def _log_result(ledger: AuditLedger, done: LastAudit) -> None:
    span = f"calls from {format_epoch(done.start)} to {format_epoch(done.end)}"
    fields = {"calls": done.calls, "files": done.files, "findings": done.finding_count}
    if not done.findings:
        log.info("audit done, complete: %s", span, extra={"fields": fields})
        return
    kinds = "; ".join(f"{count} x {TEXTS[kind].title}" for kind, count in ledger.count_findings().items())
    command = f"recording-muxer audit --from {format_epoch(done.start)} --to {format_epoch(done.end)}"
    log.warning("the audit is not complete: %s: %s. `%s` shows them", span, kinds, command, extra={"fields": fields})
