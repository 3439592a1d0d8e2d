"""The main loop: polls at a fixed interval, passes targets to the executor and stops within seconds; or runs a migration.

Signals only set an event. Polls run in a separate thread, so a hanging request never delays a stop.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from muxer.app.heartbeat_sink import HeartbeatPausingSink
from muxer.app.migration_report import MigrationStatus, QueryAttempts, progress_bar, progress_text, summary_text
from muxer.config.schema import Config
from muxer.errors import (
    AccessDenied,
    MuxerError,
    QueryIncomplete,
    ServiceUnavailable,
    Stopped,
    Transient,
    UnknownContactCenter,
    format_error,
)
from muxer.gir.targets import MuxTarget
from muxer.journal.journal import JOURNAL_FILE, QUEUED, WANTED, BacklogSample, Journal, epoch_now
from muxer.journal.retry_policy import MAX_POLL_DELAY_SECONDS, poll_delay
from muxer.log import terminal
from muxer.log.outputs import describe_output, is_on_stderr
from muxer.log.setup import escape_control
from muxer.net.circuit_breaker import RWS
from muxer.pipeline.job import Job
from muxer.pipeline.services import Services
from muxer.pipeline.shared_temp import recover_abandoned
from muxer.pipeline.workspace import TempFolderCleaner
from muxer.polling.poller import Poller
from muxer.scheduling.attempts import MIGRATION_ATTEMPTS, TargetProcessor, target_key
from muxer.scheduling.executor import TargetExecutor, ThreadExecutor
from muxer.scheduling.outcome_recorder import OutcomeRecorder
from muxer.status.fleet_status import FleetStatus, fleet_to_dict
from muxer.status.heartbeat import Heartbeat
from muxer.status.last_audit import read_last_audit
from muxer.status.poll_age import poll_progress
from muxer.status.state_file import STATE_FILE, StateFile
from muxer.system.exit_codes import EXIT_FAILED, EXIT_OK, EXIT_SOME_FAILED
from muxer.system.masking import Mask
from muxer.system.process import Runner

if TYPE_CHECKING:
    from muxer.fleet.executor import FleetPool
    from muxer.monitoring.view import ViewSources

log = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
CANCEL_SECONDS = 2.0
PROGRESS_INTERVAL = 60.0
TICK_INTERVAL = 0.5
TOUCH_INTERVAL = 3600.0
UNFINISHED_TEXT = "RWS has lost entries of its screen recording at a publication, and does not show them again yet"
STATE_SECONDS, SAMPLE_SECONDS = 2.0, 60.0
# No poll follows another faster than this, whatever min_poll_interval says.
MIN_POLL_GAP = 0.2
# The same for a poll that an operator requested by requeuing a recording.
MIN_MANUAL_GAP = 5.0


class Daemon:
    """The running muxer."""

    def __init__(self, config: Config, services: Services, job: Job, runner: Runner) -> None:
        self._config = config
        self._services = services
        self._runner = runner
        self._stop = services.stop
        self._circuit_breaker = services.circuit_breaker
        self._activity = services.activity
        self._state = StateFile(
            services.workspace.path / STATE_FILE,
            config.instance_name,
            Mask(config.secret_values),
            describe_output(config.logfile, config.instance_name),
            config.monitoring.http_port,
        )
        self._heartbeat = Heartbeat()
        self._migration = bool(config.advanced.call_recording_query_string)
        # A migration tries everything that its query finds, also what failed before.
        self._journal_path = None if self._migration else services.workspace.path / JOURNAL_FILE
        self._journal = Journal(self._journal_path, Mask(config.secret_values), QUEUED if config.is_fleet else WANTED)
        self.outcomes = OutcomeRecorder(self._journal, self._migration)
        self._fleet, self._executor = self._create_executor(job)
        self._poller = Poller(
            config,
            services.rws,
            self._journal,
            self._circuit_breaker,
            HeartbeatPausingSink(self._executor, self._heartbeat),
        )
        self._cleaner = TempFolderCleaner.from_config(config.processing, services.workspace)
        self.has_ended = False  # a migration, by itself
        self._keep_due = time.monotonic() + TOUCH_INTERVAL
        self._state_due = self._sample_due = time.monotonic()
        self._exit_code = EXIT_OK
        self._is_requeued = threading.Event()
        self._started, self._read_whole = time.monotonic(), False

    def _create_executor(self, job: Job) -> tuple[FleetPool | None, TargetExecutor]:
        """Return the fleet, if there is one, and the executor of the targets."""
        config, services = self._config, self._services
        attempts = MIGRATION_ATTEMPTS if self._migration else 1
        if config.is_fleet:
            from muxer.fleet.executor import FleetPool

            sinks = (self._journal, self.outcomes, services.activity, services.circuit_breaker)
            fleet = FleetPool(config.fleet, services.workspace.instance_mark, attempts, *sinks, self._stop)
            return fleet, fleet
        processor = TargetProcessor(job, services.circuit_breaker, services.activity, self._stop, self.outcomes)
        threads, has_room = config.advanced.worker_threads, services.workspace.disk.has_room
        return None, ThreadExecutor(
            lambda target: processor.process_target(target, attempts), threads, self._stop, has_room, self._record_wanted
        )

    def create_view_sources(self, warnings: tuple[str, ...]) -> ViewSources:
        """Return the sources of the status page and the metrics. `warnings` are those of the configuration."""
        from muxer.monitoring.view import ViewSources  # imported here: most sites do not need it

        return ViewSources(
            config=self._config,
            activity=self._activity,
            circuit_breaker=self._circuit_breaker,
            disk=self._services.workspace.disk,
            heartbeat=self._heartbeat,
            journal=self._journal_path,
            is_journal_kept=lambda: self._journal.is_persistent,
            held=lambda: self._executor.target_count,
            recipients=self._services.rws.known_certificates,
            deviations=self._services.rws.deviations,
            warnings=warnings,
            fleet=self._fleet_view,
            audit=lambda: read_last_audit(self._services.workspace.path),
        )

    def _fleet_view(self) -> FleetStatus | None:
        return None if self._fleet is None else self._fleet.fleet_status()

    def run(self) -> int:
        """Run until a signal, or until the migration ends. Returns the exit code."""
        # Before the first poll: a killed process leaves media in clear, and `status` finds this one at once.
        self._clean_temp_folder()
        self._write_state()
        body = self._run_migration if self._migration else self._poll_forever
        thread = threading.Thread(target=self._run_poll_thread, args=(body,), name="poller", daemon=True)
        thread.start()
        self._write_state()
        due = time.monotonic() + PROGRESS_INTERVAL
        while not self._stop.wait(TICK_INTERVAL):
            self._heartbeat.record_tick()
            self._clean_temp_folder()
            self._write_state()
            if self._migration:
                due = self._report_progress(due)
        self._shut_down()
        return self._exit_code

    def _run_poll_thread(self, body: Callable[[], None]) -> None:
        """Run the body of the poll thread. An unexpected error in it ends the process."""
        self._heartbeat.bind_thread()
        try:
            body()
        except Exception:
            log.critical("the poll thread ended with an unexpected error", exc_info=True)
            self._exit_code = EXIT_FAILED
        finally:
            self._stop.set()

    def _poll_forever(self) -> None:
        interval = self._config.processing.min_poll_interval * 60
        failures = 0
        while not self._stop.is_set():
            started = time.monotonic()
            error = self._poll_once()
            failures = 0 if error is None else failures + 1
            pause = started + interval - time.monotonic()
            if error is not None:
                # Each poll is an attempt: none is due while RWS is not asked because it refused the credentials.
                pause = max(poll_delay(error, failures, interval), self._circuit_breaker.login_pause(RWS))
                self._report_poll_failure(error, pause)
            pause = max(pause, MIN_POLL_GAP)
            self._activity.schedule_next_poll(pause)
            with self._heartbeat.pause_while_waiting():
                self._wait_for_next_poll(pause)

    def _wait_for_next_poll(self, seconds: float) -> None:
        """Wait `seconds`, or until an operator requeues a recording or the fleet has capacity again."""
        started = time.monotonic()
        while (left := started + seconds - time.monotonic()) > 0 and not self._stop.wait(min(left, TICK_INTERVAL)):
            is_wanted = self._is_requeued.is_set() or self._executor.has_capacity_again
            if is_wanted and time.monotonic() - started >= MIN_MANUAL_GAP:
                break
        self._is_requeued.clear()

    def _poll_once(self) -> Exception | None:
        """Poll once. Returns the error of the poll, if any: no error ends the loop."""
        started = time.monotonic()
        self._activity.record_poll_start()
        try:
            self._recover()
            result = self._poller.poll()
        except Stopped:
            return None
        except Exception as error:
            self._record_poll_failure(error)
            return error
        seconds = time.monotonic() - started
        self._activity.record_poll_success(result.summary_counts, seconds, result.oldest_open)
        whole_in = self._poller.seconds_to_whole()
        self._activity.record_reach(result.reach, is_whole=result.is_whole, seconds_to_whole=whole_in)
        fields = {**result.summary_counts, "reach_minutes": round(result.reach / 60, 1), "seconds": round(seconds, 3)}
        log.info("poll done", extra={"fields": fields})
        return None

    def _record_poll_failure(self, error: Exception) -> None:
        self._activity.record_poll_failure(format_error(error))
        self._activity.count_error(getattr(error, "service", ""), type(error).__name__)
        # Where requests fail at random, a failed poll counts as any other failure, unless RWS asks for a delay.
        if isinstance(error, ServiceUnavailable | AccessDenied) and (
            error.retry_after is not None or not self._circuit_breaker.is_flaky(error.service)
        ):
            self._circuit_breaker.trip(error)

    def _report_poll_failure(self, error: Exception, pause: float) -> None:
        """Log a failed poll, and that the next one follows after `pause` seconds. An outage has its own line already."""
        service = getattr(error, "service", "")
        if service and self._circuit_breaker.is_open(service):
            log.info("the poll failed, because %s is unavailable; the next attempt follows in %.0f s", service, pause)
        elif isinstance(error, MuxerError):
            log.error("the poll failed; the next attempt follows in %.0f s: %s", pause, format_error(error))
        else:
            log.error("the poll failed with an unexpected error; the next attempt follows in %.0f s", pause, exc_info=error)

    def _recover(self) -> None:
        """Finish what a dead process left unfinished in RWS and the storages, and read what an operator requeued."""
        self._circuit_breaker.allow_trial()
        self._journal.reload_changes(epoch_now())
        recover_abandoned(self._services.workspace, self._services.workspace.path)
        self._services.recover_leftovers()

    def _run_migration(self) -> None:
        """Process everything that the query of the migration finds, and report the result."""
        log.info("migration: %s", self._config.advanced.call_recording_query_string)
        problem = self._read_query()
        self._read_whole = problem is None
        with self._heartbeat.pause_while_waiting(for_workers=True):
            self._executor.wait_for_all()
        if self._stop.is_set():
            return
        # No later poll finishes what failed in between.
        self._services.recover_leftovers()
        for recording in self._services.publisher.unfinished_recordings():
            self._poller.skipped.setdefault(recording, UNFINISHED_TEXT)
        self.has_ended = True
        if problem is not None:
            log.error("the query failed: %s", reason := format_error(problem))
            self._report_summary(f"migration not complete, [advanced] call_recording_query_string failed: {reason}")
            self._exit_code = EXIT_SOME_FAILED
        else:
            failed = self._report_summary("migration done")
            self._exit_code = EXIT_SOME_FAILED if failed else EXIT_OK

    def _read_query(self) -> MuxerError | None:
        """Read the whole query, from the start again when RWS fails. Returns the error that prevents it, or None."""
        query_attempts = QueryAttempts()
        while not self._stop.is_set():
            try:
                self._recover()
                self._poller.poll()
                self._poller.retry_skipped()
                return None
            except Stopped:
                return None
            except UnknownContactCenter as error:
                return error
            except Transient as error:
                if query_attempts.record_failure(self._poller.result.found):
                    return QueryIncomplete(
                        f"{query_attempts.failures} attempts to read it failed; at the last one {format_error(error)}"
                    )
                delay = poll_delay(error, query_attempts.failures, MAX_POLL_DELAY_SECONDS)
                pause = max(delay, self._circuit_breaker.login_pause(RWS))
                level = logging.INFO if self._circuit_breaker.is_open(error.service) else logging.ERROR
                log.log(level, "the query failed; reading it again in %.0f s: %s", pause, format_error(error))
                with self._heartbeat.pause_while_waiting():
                    self._stop.wait(pause)
            except MuxerError as error:
                return error
        return None

    def _report_summary(self, what: str) -> int:
        """Report the result of the migration in the log and on stdout. Returns the number of failed recordings."""
        status = self._migration_progress()
        terminal.show_progress_line(progress_bar(status), "\n")
        for recording_id, reason in (*self.outcomes.failures.values(), *self._poller.skipped.items()):
            log.error("failed: %s: %s", recording_id, reason)
        failed = f": {', '.join(map(escape_control, status.failed))}" if status.failed else ""
        self._print_result(f"{what}: {summary_text(status)}", failed)
        return len(status.failed)

    def _print_result(self, text: str, failed: str = "") -> None:
        log.info("%s", text)
        terminal.write_text(sys.stdout, f"{text}{failed}\n")

    def _migration_progress(self) -> MigrationStatus:
        """Return the progress. Targets that this run neither muxed nor failed, and that are not open, were done already: a
        query that is read again finds the files of this run."""
        result, muxed, failed = self._poller.result, self.outcomes.muxed, dict(self.outcomes.failures)
        skipped = self._poller.skipped
        return MigrationStatus(
            found=result.found,
            ours=result.ours,
            finished=max(0, result.ours - self._poller.pending - self._executor.recording_count),
            without_screen=result.without_screen,
            muxed=muxed,
            already_done=max(0, result.target_count - muxed - len(failed) - self._executor.target_count),
            failed=tuple(dict.fromkeys((*(recording_id for recording_id, _ in failed.values()), *skipped))),
            sharded=self._config.is_sharded,
            seconds=time.monotonic() - self._started,
            complete=self._read_whole,
        )

    def _report_progress(self, due: float) -> float:
        """Show the progress of the migration on a terminal, and log it when `due`. Returns when the next line is due."""
        terminal.show_progress_line(progress_bar(self._migration_progress()))
        if time.monotonic() < due:
            return due
        line = progress_text(self._migration_progress())
        log.info("migration in progress: %s", line)
        if not sys.stderr.isatty() and not is_on_stderr():
            terminal.write_text(sys.stderr, f"migration in progress: {line}\n")
        return due + PROGRESS_INTERVAL

    def _record_wanted(self, target: MuxTarget) -> None:
        self._journal.record_wanted(target_key(target), epoch_now())

    def _clean_temp_folder(self) -> None:
        if self._services.workspace.restore_folder():
            self._journal.reopen_database()
        if time.monotonic() >= self._keep_due:
            self._keep_due = time.monotonic() + TOUCH_INTERVAL
            try:
                self._services.workspace.touch_files()
            except OSError as error:
                log.error("the temporary folder cannot be used: %s", error)
        removed = self._cleaner.clean_if_due(self._executor.is_idle)
        if removed:
            log.info("%d leftover folders removed from the temporary folder", removed)

    def _write_state(self) -> None:
        """Write the state file for other processes, and record a sample for the charts."""
        if time.monotonic() < self._state_due:
            return
        self._state_due = time.monotonic() + STATE_SECONDS
        snapshot = self._activity.take_snapshot()
        if self._journal.has_external_changes():
            self._is_requeued.set()
        fleet = self._fleet_view()
        running = len(snapshot.running) if fleet is None else fleet.running
        queued = max(0, self._executor.target_count - running)
        fleet_state = None if fleet is None else fleet_to_dict(fleet)
        out, has_room = self._circuit_breaker.service_states(), self._services.workspace.disk.has_room()
        progress = poll_progress(snapshot.polls, self._heartbeat)
        self._state.write_state(snapshot, queued, out, has_room, progress=progress, fleet=fleet_state)
        if time.monotonic() >= self._sample_due:
            self._sample_due = time.monotonic() + SAMPLE_SECONDS
            waiting = snapshot.polls.result.get("waiting", 0)
            self._journal.record_sample(
                BacklogSample(int(epoch_now()), running, queued, waiting, snapshot.polls.oldest_open)
            )

    def _shut_down(self) -> None:
        """Let running jobs finish for a few seconds, then end them. Unfinished work is repeated after the next start."""
        log.info("stopping")
        self._stop.set()
        if not self._executor.wait_for_running(GRACE_SECONDS):
            log.warning("%s", self._executor.stop_warning)
            self._runner.cancel_all()
            self._executor.wait_for_running(CANCEL_SECONDS)
        self._runner.cancel_all()
        self._services.helpers.close()
        self._poller.close()
        if self._migration and not self.has_ended:
            self._print_result(
                f"migration stopped before its end, start it again for the rest: {progress_text(self._migration_progress())}"
            )
        self._state.remove_file()
        self._services.workspace.remove_job_folders()
        self._journal.close()
        log.info("stopped")
