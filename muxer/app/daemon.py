"""The loop: polls at a fixed cadence in a thread of its own, so that a request that hangs never delays a stop."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from muxer.app.migration_report import MigrationStatus, QueryAttempts, progress_bar, progress_text, summary_text
from muxer.config.schema import Config
from muxer.errors import AccessDenied, MuxerError, QueryIncomplete, ServiceUnavailable, Stopped, Transient, format_error
from muxer.gir.targets import MuxTarget
from muxer.journal.journal import JOURNAL_FILE, QUEUED, WANTED, BacklogSample, Journal, epoch_now
from muxer.journal.retry_policy import MAX_POLL_DELAY_SECONDS, poll_delay
from muxer.log import terminal
from muxer.log.setup import escape_control
from muxer.pipeline.job import Job
from muxer.pipeline.services import Services
from muxer.pipeline.shared_temp import recover_abandoned
from muxer.pipeline.workspace import TempFolderCleaner
from muxer.polling.poller import Poller
from muxer.scheduling.attempts import MIGRATION_ATTEMPTS, TargetProcessor, target_key
from muxer.scheduling.executor import TargetExecutor, TargetSink, ThreadExecutor
from muxer.scheduling.outcome_recorder import OutcomeRecorder
from muxer.status.fleet_status import FleetStatus, fleet_to_dict
from muxer.status.heartbeat import Heartbeat
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
STATE_SECONDS, SAMPLE_SECONDS = 2.0, 60.0
# No poll follows another faster than this, whatever min_poll_interval says.
MIN_POLL_GAP = 0.2
# Nor does one that an operator has asked for by putting something back.
MIN_MANUAL_GAP = 5.0


class Daemon:
    """The running muxer."""

    def __init__(self, config: Config, services: Services, job: Job, runner: Runner) -> None:
        self._config = config
        self._services = services
        self._runner = runner
        self._stop = services.stop
        self._outages = services.outages
        self._activity = services.activity
        self._state = StateFile(services.workspace.path / STATE_FILE, config.instance_name, Mask(config.secret_values))
        self._pulse = Heartbeat()
        self._migration = bool(config.advanced.call_recording_query_string)
        # A migration is to try everything that its query finds, whatever became of it before.
        self._journal_path = None if self._migration else services.workspace.path / JOURNAL_FILE
        self._journal = Journal(self._journal_path, Mask(config.secret_values), QUEUED if config.is_fleet else WANTED)
        self._books = OutcomeRecorder(self._journal, self._migration)
        self._fleet, self._pool = self._create_executor(job)
        sink = _HeartbeatPausingSink(self._pool, self._pulse)
        self._poller = Poller(config, services.rws, self._journal, self._outages, sink)
        self._cleaning = TempFolderCleaner.from_config(config.processing, services.workspace)
        self._ended = False
        self._keep_due = time.monotonic() + TOUCH_INTERVAL
        self._state_due = self._sample_due = time.monotonic()
        self._exit_code = EXIT_OK
        self._put_back = threading.Event()
        self._begun, self._read_whole = time.monotonic(), False

    def _create_executor(self, job: Job) -> tuple[FleetPool | None, TargetExecutor]:
        config, services = self._config, self._services
        attempts = MIGRATION_ATTEMPTS if self._migration else 1
        if config.is_fleet:
            from muxer.fleet.executor import FleetPool

            told = (self._journal, self._books, services.activity, services.outages)
            fleet = FleetPool(config.fleet, services.workspace.instance_mark, attempts, *told, self._stop)
            return fleet, fleet
        work = TargetProcessor(job, services.outages, services.activity, self._stop, self._books)
        threads, has_room = config.advanced.worker_threads, services.workspace.disk.has_room
        return None, ThreadExecutor(
            lambda one: work.process_target(one, attempts), threads, self._stop, has_room, self._record_wanted
        )

    def create_view_sources(self, warnings: tuple[str, ...]) -> ViewSources:
        """Given what is odd about the configuration, return where an operator's view of this muxer comes from."""
        from muxer.monitoring.view import ViewSources  # here: most sites do not need it

        return ViewSources(
            config=self._config,
            activity=self._activity,
            outages=self._outages,
            disk=self._services.workspace.disk,
            pulse=self._pulse,
            journal=self._journal_path,
            is_journal_kept=lambda: self._journal.is_persistent,
            held=lambda: self._pool.target_count,
            recipients=self._services.rws.known_certificates,
            deviations=self._services.rws.deviations,
            warnings=warnings,
            fleet=self._fleet_view,
        )

    def _fleet_view(self) -> FleetStatus | None:
        return None if self._fleet is None else self._fleet.fleet_status()

    def run(self) -> int:
        """Run until a signal stops it, or the migration is done; return the exit code."""
        # Before the first poll: a process that was killed has left media in clear.
        self._clean_temp_folder()
        body = self._run_migration if self._migration else self._poll_forever
        thread = threading.Thread(target=self._run_poll_thread, args=(body,), name="poller", daemon=True)
        thread.start()
        due = time.monotonic() + PROGRESS_INTERVAL
        while not self._stop.wait(TICK_INTERVAL):
            self._pulse.record_tick()
            self._clean_temp_folder()
            self._write_state()
            if self._migration:
                due = self._report_progress(due)
        self._shut_down()
        return self._exit_code

    def _run_poll_thread(self, body: Callable[[], None]) -> None:
        """Run the body of the poll thread; its unexpected end is the end of the process, said in the log."""
        self._pulse.bind_thread()
        try:
            body()
        except Exception:
            log.critical("the poll thread died", exc_info=True)
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
            pause = started + interval - time.monotonic() if error is None else poll_delay(error, failures, interval)
            self._activity.schedule_next_poll(max(pause, MIN_POLL_GAP))
            with self._pulse.pause_while_waiting():
                self._wait_for_next_poll(max(pause, MIN_POLL_GAP))

    def _wait_for_next_poll(self, seconds: float) -> None:
        """Wait `seconds` for the next poll, less when an operator requeues something or the fleet can take more."""
        begun = time.monotonic()
        while (left := begun + seconds - time.monotonic()) > 0 and not self._stop.wait(min(left, TICK_INTERVAL)):
            if (self._put_back.is_set() or self._pool.has_capacity_again) and time.monotonic() - begun >= MIN_MANUAL_GAP:
                break
        self._put_back.clear()

    def _poll_once(self) -> Exception | None:
        """Poll; return the error that it met. Nothing that a poll may meet ends the loop."""
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
        log.info("poll done", extra={"fields": {**result.summary_counts, "seconds": round(seconds, 3)}})
        return None

    def _record_poll_failure(self, error: Exception) -> None:
        self._activity.record_poll_failure(format_error(error))
        self._activity.count_error(getattr(error, "service", ""), type(error).__name__)
        if isinstance(error, ServiceUnavailable | AccessDenied):
            level = logging.DEBUG if self._outages.is_open(error.service) else logging.ERROR
            log.log(level, "the poll failed and is tried again: %s", format_error(error))
            # Where requests fail at random, a failed poll counts as any other failure, unless RWS asks for a delay.
            if error.retry_after is not None or not self._outages.is_flaky(error.service):
                self._outages.trip(error)
        elif isinstance(error, MuxerError):
            log.error("the poll failed and is tried again: %s", format_error(error))
        else:
            log.error("the poll failed in a way that nobody expected; it is tried again", exc_info=error)

    def _recover(self) -> None:
        """Finish what a dead process has left in RWS and the storages, and adopt what an operator has requeued."""
        self._outages.allow_trial()
        self._journal.reload_changes(epoch_now())
        recover_abandoned(self._services.workspace, self._services.workspace.path)
        self._services.recover_leftovers()

    def _run_migration(self) -> None:
        log.info("migration: %s", self._config.advanced.call_recording_query_string)
        problem = self._read_query()
        self._read_whole = problem is None
        with self._pulse.pause_while_waiting(for_workers=True):
            self._pool.wait_for_all()
        if self._stop.is_set():
            return
        self._ended = True
        if problem is not None:
            log.error("the query failed: %s", problem)
            self._report_summary(f"migration not complete, [advanced] call_recording_query_string failed: {problem}")
            self._exit_code = EXIT_SOME_FAILED
        else:
            failed = self._report_summary("migration done")
            self._exit_code = EXIT_SOME_FAILED if failed else EXIT_OK

    def _read_query(self) -> MuxerError | None:
        """Read the migration's query to its end, from the beginning again when RWS fails; return what forbids that."""
        readings = QueryAttempts()
        while not self._stop.is_set():
            try:
                self._recover()
                self._poller.poll()
                return None
            except Stopped:
                return None
            except Transient as error:
                if readings.record_failure(self._poller.result.found):
                    return QueryIncomplete(
                        f"{readings.failures} attempts to read it failed; at the last one {format_error(error)}"
                    )
                log.error("the query failed and is begun again: %s", format_error(error))
                with self._pulse.pause_while_waiting():
                    self._stop.wait(poll_delay(error, readings.failures, MAX_POLL_DELAY_SECONDS))
            except MuxerError as error:
                return error
        return None

    def _report_summary(self, what: str) -> int:
        """Say what became of everything, in the log and on stdout; return how many recordings failed."""
        standing = self._migration_progress()
        terminal.show_progress_line(progress_bar(standing), "\n")
        for recording_id, reason in (*self._books.failures.values(), *self._poller.skipped.items()):
            log.error("failed: %s: %s", recording_id, reason)
        failed = f": {', '.join(map(escape_control, standing.failed))}" if standing.failed else ""
        self._print_result(f"{what}: {summary_text(standing)}", failed)
        return len(standing.failed)

    def _print_result(self, text: str, failed: str = "") -> None:
        log.info("%s", text)
        sys.stdout.write(f"{text}{failed}\n")
        sys.stdout.flush()

    def _migration_progress(self) -> MigrationStatus:
        """Return the progress. Done already is what this run has neither muxed, failed nor left open."""
        result, muxed, failed = self._poller.result, self._books.muxed, dict(self._books.failures)
        skipped = self._poller.skipped
        return MigrationStatus(
            found=result.found,
            ours=result.ours,
            finished=max(0, result.ours - self._poller.pending - self._pool.recording_count),
            without_screen=result.without_screen,
            muxed=muxed,
            already_done=max(0, result.target_count - muxed - len(failed) - self._pool.target_count),
            failed=tuple(dict.fromkeys((*(recording_id for recording_id, _ in failed.values()), *skipped))),
            sharded=self._config.is_sharded,
            seconds=time.monotonic() - self._begun,
            complete=self._read_whole,
        )

    def _report_progress(self, due: float) -> float:
        """Show the progress, and log it when `due`. Returns when the next line is due."""
        terminal.show_progress_line(progress_bar(self._migration_progress()))
        if time.monotonic() < due:
            return due
        line = progress_text(self._migration_progress())
        log.info("migration goes on: %s", line)
        if not sys.stderr.isatty():
            sys.stderr.write(f"migration goes on: {line}\n")
            sys.stderr.flush()
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
        removed = self._cleaning.clean_if_due(self._pool.is_idle)
        if removed:
            log.info("%d left-over folders removed from the temporary folder", removed)

    def _write_state(self) -> None:
        if time.monotonic() < self._state_due:
            return
        self._state_due = time.monotonic() + STATE_SECONDS
        snapshot = self._activity.take_snapshot()
        if self._journal.has_external_changes():
            self._put_back.set()
        fleet = self._fleet_view()
        running = len(snapshot.running) if fleet is None else fleet.running
        queued = max(0, self._pool.target_count - running)
        told = None if fleet is None else fleet_to_dict(fleet)
        has_room = self._services.workspace.disk.has_room()
        self._state.write_state(snapshot, queued, self._outages.open_circuits(), has_room, told)
        if time.monotonic() >= self._sample_due:
            self._sample_due = time.monotonic() + SAMPLE_SECONDS
            waiting = snapshot.polls.result.get("waiting", 0)
            oldest = snapshot.polls.oldest_open
            self._journal.record_sample(BacklogSample(int(epoch_now()), running, queued, waiting, oldest))

    def _shut_down(self) -> None:
        """Give running jobs a moment, then end them; nothing that is left undone is lost."""
        log.info("stopping")
        self._stop.set()
        if not self._pool.wait_for_running(GRACE_SECONDS):
            log.warning("%s", self._pool.stop_warning)
            self._runner.cancel_all()
            self._pool.wait_for_running(CANCEL_SECONDS)
        self._runner.cancel_all()
        self._services.helpers.close()
        if self._migration and not self._ended:
            self._print_result(
                f"migration stopped before its end, start it again for the rest: {progress_text(self._migration_progress())}"
            )
        self._state.remove_file()
        self._services.workspace.remove_job_folders()
        self._journal.close()
        log.info("stopped")


class _HeartbeatPausingSink(TargetSink):
    """An engine as the poll sees it: while it waits for the engine, that is no sign of trouble."""

    def __init__(self, engine: TargetExecutor, pulse: Heartbeat) -> None:
        self._engine, self._pulse = engine, pulse

    def begin_poll(self) -> None:
        self._engine.begin_poll()

    def submit(self, target: MuxTarget) -> bool:
        with self._pulse.pause_while_waiting(for_workers=True):
            return self._engine.submit(target)

    def mark_finished(self, target: MuxTarget) -> None:
        self._engine.mark_finished(target)

    def flush(self) -> int:
        with self._pulse.pause_while_waiting(for_workers=True):
            return self._engine.flush()

    @property
    def needs_targets_now(self) -> bool:
        return self._engine.needs_targets_now

    def rejects_older_than(self, minutes: float) -> bool:
        return self._engine.rejects_older_than(minutes)
