"""The loop: polls at a fixed cadence, hands targets to the pool, stops within seconds; or runs a migration once.

Signals only set an event (model: the daemon of patroni). The polls run in a thread of their own, so that a request that
hangs never delays a stop.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from muxer.books import Books
from muxer.config.schema import Config
from muxer.errors import AccessDenied, MuxerError, QueryIncomplete, ServiceUnavailable, Stopped, Transient, told
from muxer.exits import EXIT_FAILED, EXIT_OK, EXIT_SOME_FAILED
from muxer.fleet.view import FleetView, to_plain
from muxer.guests import adopt
from muxer.job import Job, Services
from muxer.journal import JOURNAL, QUEUED, WANTED, Journal, Sample, now
from muxer.masking import Mask
from muxer.migration import Readings, Standing, bar, progress, summary
from muxer.observe import terminal
from muxer.observe.logs import plain
from muxer.pauses import LONGEST_BACK_OFF_SECONDS, pause_after
from muxer.poller import Poller
from muxer.pool import Engine, Intake, Pool
from muxer.process import Runner
from muxer.pulse import Pulse
from muxer.selection import MuxTarget
from muxer.services import cleaning_of
from muxer.state import STATE, StateFile
from muxer.work import MIGRATION_ATTEMPTS, Work, key_of

if TYPE_CHECKING:
    from muxer.fleet.pool import FleetPool
    from muxer.monitoring.view import Sources

log = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
CANCEL_SECONDS = 2.0
PROGRESS_SECONDS = 60.0
TICK_SECONDS = 0.5
KEEP_SECONDS = 3600.0
STATE_SECONDS, SAMPLE_SECONDS = 2.0, 60.0
# No poll follows another faster than this, whatever min_poll_interval says.
LEAST_PAUSE_SECONDS = 0.2
# Nor does one that an operator has asked for by putting something back.
LEAST_REST_SECONDS = 5.0


class Daemon:
    """The running muxer."""

    def __init__(self, config: Config, services: Services, job: Job, runner: Runner) -> None:
        self._config = config
        self._services = services
        self._runner = runner
        self._stop = services.stop
        self._outages = services.outages
        self._activity = services.activity
        self._state = StateFile(services.workspace.path / STATE, config.instance, Mask(config.secrets))
        self._pulse = Pulse()
        self._migration = bool(config.advanced.call_recording_query_string)
        # A migration is to try everything that its query finds, whatever became of it before.
        self._journal_path = None if self._migration else services.workspace.path / JOURNAL
        self._journal = Journal(self._journal_path, Mask(config.secrets), QUEUED if config.is_fleet else WANTED)
        self._books = Books(self._journal, self._migration)
        self._fleet, self._pool = self._engines(job)
        self._poller = Poller(config, services.rws, self._journal, self._outages, _Patient(self._pool, self._pulse))
        self._cleaning = cleaning_of(config, services.workspace)
        self._ended = False
        self._keep_due = time.monotonic() + KEEP_SECONDS
        self._state_due = self._sample_due = time.monotonic()
        self._exit_code = EXIT_OK
        self._put_back = threading.Event()
        self._begun, self._read_whole = time.monotonic(), False

    def _engines(self, job: Job) -> tuple[FleetPool | None, Engine]:
        """Return what does the targets, and the fleet if that does."""
        config, services = self._config, self._services
        attempts = MIGRATION_ATTEMPTS if self._migration else 1
        if config.is_fleet:
            from muxer.fleet.pool import FleetPool  # here: its packages are installed where there is a fleet

            told = (self._journal, self._books, services.activity, services.outages)
            fleet = FleetPool(config.fleet, services.workspace.mark, attempts, *told, self._stop)
            return fleet, fleet
        work = Work(job, services.outages, services.activity, self._stop, self._books)
        threads, has_room = config.advanced.worker_threads, services.workspace.disk.has_room
        return None, Pool(lambda one: work.do(one, attempts), threads, self._stop, has_room, self._wanted)

    def sources(self, warnings: tuple[str, ...]) -> Sources:
        """Given what is odd about the configuration, return where an operator's view of this muxer comes from."""
        from muxer.monitoring.view import Sources  # here: most sites do not need it

        return Sources(
            config=self._config,
            activity=self._activity,
            outages=self._outages,
            disk=self._services.workspace.disk,
            pulse=self._pulse,
            journal=self._journal_path,
            is_journal_kept=lambda: self._journal.is_kept,
            held=lambda: self._pool.files,
            recipients=self._services.rws.known_certificates,
            deviations=self._services.rws.deviations,
            warnings=warnings,
            fleet=self._standing_of_fleet,
        )

    def _standing_of_fleet(self) -> FleetView | None:
        return None if self._fleet is None else self._fleet.view()

    def run(self) -> int:
        """Run until a signal stops it, or the migration is done; return the exit code."""
        # Before the first poll: a process that was killed has left media in clear.
        self._clean()
        body = self._migrate if self._migration else self._poll_forever
        thread = threading.Thread(target=self._guarded, args=(body,), name="poller", daemon=True)
        thread.start()
        due = time.monotonic() + PROGRESS_SECONDS
        while not self._stop.wait(TICK_SECONDS):
            self._pulse.tick()
            self._clean()
            self._tell_state()
            if self._migration:
                due = self._tell_progress(due)
        self._shut_down()
        return self._exit_code

    def _guarded(self, body: Callable[[], None]) -> None:
        """Run the body of the poll thread; its unexpected end is the end of the process, said in the log."""
        self._pulse.adopt()
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
            pause = started + interval - time.monotonic() if error is None else pause_after(error, failures, interval)
            self._activity.poll_due(max(pause, LEAST_PAUSE_SECONDS))
            with self._pulse.waiting():
                self._rest(max(pause, LEAST_PAUSE_SECONDS))

    def _rest(self, seconds: float) -> None:
        """Wait until the next poll: so long, or until an operator has put something back, or the fleet can take more."""
        begun = time.monotonic()
        while (left := begun + seconds - time.monotonic()) > 0 and not self._stop.wait(min(left, TICK_SECONDS)):
            if (self._put_back.is_set() or self._pool.is_hungry) and time.monotonic() - begun >= LEAST_REST_SECONDS:
                break
        self._put_back.clear()

    def _poll_once(self) -> Exception | None:
        """Poll; return the error that it met. Nothing that a poll may meet ends the loop."""
        started = time.monotonic()
        self._activity.poll_begun()
        try:
            self._repair()
            result = self._poller.poll()
        except Stopped:
            return None
        except Exception as error:
            self._poll_failed(error)
            return error
        seconds = time.monotonic() - started
        self._activity.poll_done(result.counts, seconds, result.oldest_open)
        log.info("poll done", extra={"fields": {**result.counts, "seconds": round(seconds, 3)}})
        return None

    def _poll_failed(self, error: Exception) -> None:
        self._activity.poll_failed(told(error))
        self._activity.erred(getattr(error, "service", ""), type(error).__name__)
        if isinstance(error, ServiceUnavailable | AccessDenied):
            level = logging.DEBUG if self._outages.is_out(error.service) else logging.ERROR
            log.log(level, "the poll failed and is tried again: %s", told(error))
            # Where requests fail at random, a failed poll counts as any other failure, unless RWS asks for a delay.
            if error.retry_after is not None or not self._outages.is_flaky(error.service):
                self._outages.declare(error)
        elif isinstance(error, MuxerError):
            log.error("the poll failed and is tried again: %s", told(error))
        else:
            log.error("the poll failed in a way that nobody expected; it is tried again", exc_info=error)

    def _repair(self) -> None:
        """Finish what a process that died has left half done in RWS and in the storages, and take over what an operator has
        put back."""
        self._outages.new_poll()
        self._journal.refresh(now())
        adopt(self._services.workspace, self._services.workspace.path)
        self._services.finish_left_overs()

    def _migrate(self) -> None:
        """Process everything that the migration's query finds, then say what became of it."""
        log.info("migration: %s", self._config.advanced.call_recording_query_string)
        problem = self._read_query()
        self._read_whole = problem is None
        with self._pulse.waiting(for_workers=True):
            self._pool.join()
        if self._stop.is_set():
            return
        self._ended = True
        if problem is not None:
            log.error("the query failed: %s", problem)
            self._summarize(f"migration not complete, [advanced] call_recording_query_string failed: {problem}")
            self._exit_code = EXIT_SOME_FAILED
        else:
            failed = self._summarize("migration done")
            self._exit_code = EXIT_SOME_FAILED if failed else EXIT_OK

    def _read_query(self) -> MuxerError | None:
        """Read the migration's query to its end, from the beginning again when RWS fails; return what forbids that."""
        readings = Readings()
        while not self._stop.is_set():
            try:
                self._repair()
                self._poller.poll()
                return None
            except Stopped:
                return None
            except Transient as error:
                if readings.are_hopeless(self._poller.result.found):
                    return QueryIncomplete(f"{readings.failures} attempts to read it failed; at the last one {told(error)}")
                log.error("the query failed and is begun again: %s", told(error))
                with self._pulse.waiting():
                    self._stop.wait(pause_after(error, readings.failures, LONGEST_BACK_OFF_SECONDS))
            except MuxerError as error:
                return error
        return None

    def _summarize(self, what: str) -> int:
        """Say what became of everything, in the log and on stdout; return how many recordings failed."""
        standing = self._standing()
        terminal.show(bar(standing), "\n")
        for recording_id, reason in (*self._books.failures.values(), *self._poller.skipped.items()):
            log.error("failed: %s: %s", recording_id, reason)
        failed = f": {', '.join(map(plain, standing.failed))}" if standing.failed else ""
        self._say(f"{what}: {summary(standing)}", failed)
        return len(standing.failed)

    def _say(self, text: str, failed: str = "") -> None:
        log.info("%s", text)
        sys.stdout.write(f"{text}{failed}\n")
        sys.stdout.flush()

    def _standing(self) -> Standing:
        """Return how far the migration is. What is done already is what is neither muxed by this run, failed nor open: a
        query that is begun again meets the files that this run has made."""
        result, muxed, failed = self._poller.result, self._books.muxed, dict(self._books.failures)
        skipped = self._poller.skipped
        return Standing(
            found=result.found,
            ours=result.ours,
            finished=max(0, result.ours - self._poller.pending - self._pool.recordings),
            without_screen=result.without_screen,
            muxed=muxed,
            already_done=max(0, result.targets - muxed - len(failed) - self._pool.files),
            failed=tuple(dict.fromkeys((*(recording_id for recording_id, _ in failed.values()), *skipped))),
            sharded=self._config.sharded,
            seconds=time.monotonic() - self._begun,
            complete=self._read_whole,
        )

    def _tell_progress(self, due: float) -> float:
        """Show how far the migration is: on a terminal at every look, and as a log line when ``due``; return when the next
        line is due."""
        terminal.show(bar(self._standing()))
        if time.monotonic() < due:
            return due
        line = progress(self._standing())
        log.info("migration goes on: %s", line)
        if not sys.stderr.isatty():
            sys.stderr.write(f"migration goes on: {line}\n")
            sys.stderr.flush()
        return due + PROGRESS_SECONDS

    def _wanted(self, target: MuxTarget) -> None:
        self._journal.wanted(key_of(target), now())

    def _clean(self) -> None:
        if self._services.workspace.restore():
            self._journal.reopen()
        if time.monotonic() >= self._keep_due:
            self._keep_due = time.monotonic() + KEEP_SECONDS
            try:
                self._services.workspace.keep()
            except OSError as error:
                log.error("the temporary folder cannot be used: %s", error)
        removed = self._cleaning.tick(self._pool.idle)
        if removed:
            log.info("%d left-over folders removed from the temporary folder", removed)

    def _tell_state(self) -> None:
        """Tell other processes how things stand, and keep a sample of it for the charts."""
        if time.monotonic() < self._state_due:
            return
        self._state_due = time.monotonic() + STATE_SECONDS
        snapshot = self._activity.snapshot()
        if self._journal.is_changed():
            self._put_back.set()
        fleet = self._standing_of_fleet()
        running = len(snapshot.running) if fleet is None else fleet.running
        queued = max(0, self._pool.files - running)
        told = None if fleet is None else to_plain(fleet)
        self._state.write(snapshot, queued, self._outages.now_out(), self._services.workspace.disk.has_room(), told)
        if time.monotonic() >= self._sample_due:
            self._sample_due = time.monotonic() + SAMPLE_SECONDS
            waiting = snapshot.polls.result.get("waiting", 0)
            self._journal.sample(Sample(int(now()), running, queued, waiting, snapshot.polls.oldest_open))

    def _shut_down(self) -> None:
        """Give running jobs a moment, then end them; nothing that is left undone is lost."""
        log.info("stopping")
        self._stop.set()
        if not self._pool.drain(GRACE_SECONDS):
            log.warning("%s", self._pool.cut_off)
            self._runner.cancel()
            self._pool.drain(CANCEL_SECONDS)
        self._runner.cancel()
        self._services.helpers.close()
        if self._migration and not self._ended:
            self._say(f"migration stopped before its end, start it again for the rest: {progress(self._standing())}")
        self._state.remove()
        self._services.workspace.close()
        self._journal.close()
        log.info("stopped")


class _Patient(Intake):
    """An engine as the poll sees it: while it waits for the engine, that is no sign of trouble."""

    def __init__(self, engine: Engine, pulse: Pulse) -> None:
        self._engine, self._pulse = engine, pulse

    def begin_poll(self) -> None:
        self._engine.begin_poll()

    def submit(self, target: MuxTarget) -> bool:
        with self._pulse.waiting(for_workers=True):
            return self._engine.submit(target)

    def finished(self, target: MuxTarget) -> None:
        self._engine.finished(target)

    def end_pass(self) -> int:
        with self._pulse.waiting(for_workers=True):
            return self._engine.end_pass()

    @property
    def runs_dry(self) -> bool:
        return self._engine.runs_dry

    def is_closed(self, minutes: float) -> bool:
        return self._engine.is_closed(minutes)
