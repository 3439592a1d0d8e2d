"""One poll: reads the call recordings of a query page by page, selects those of this instance, and submits their targets.

Memory does not grow with the window. The schedule decides how far back a poll looks. A long poll goes through its reach in
several passes, newest calls first. Older calls whose targets are due for a retry are read by their ids.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from muxer.config.schema import Config
from muxer.errors import Forbidden, MetadataError, QueryIncomplete, RequestRejected, ServiceFailed, Transient
from muxer.gir.models import CallRecording, ScreenRecording
from muxer.gir.rws import MAX_BAD_IN_A_ROW, RwsClient, warn_skipped
from muxer.gir.targets import MuxTarget, TargetOptions
from muxer.journal.journal import Journal, epoch_now
from muxer.log.setup import recording_context
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.pipeline.job import needed_services
from muxer.polling.lookahead import LookAhead, split_pages
from muxer.polling.open_calls import UNREAD, OpenCall, OpenCalls, OpenTarget
from muxer.polling.poll_query import PollQuery
from muxer.polling.schedule import PollSchedule, next_newest_pass
from muxer.polling.sharding import is_mine
from muxer.scheduling.executor import TargetSink
from muxer.system.bounded_set import BoundedMap, BoundedSet

log = logging.getLogger(__name__)

# Recordings whose metadata problems were logged.
MAX_WARNED_RECORDINGS = 100_000
# Recordings that a later pass of the same poll recognises; more are only read and counted twice.
MAX_SEEN_RECORDINGS = 1_000_000
# Older calls that a poll reads by their ids; for more of them it looks back further. Of those that need a service that is
# unavailable, a few are enough to try it.
MAX_SINGLE_READS, MAX_TRIAL_READS = 500, 20
# Of more recordings at a time that RWS fails for, and no others between them, RwsClient concludes an outage.
SINGLE_READS_AT_A_TIME = 3
# When the clock is changed by more than this, calls seem older or younger than they are: the whole window is read.
MAX_CLOCK_CHANGE_SECONDS = 60.0
# When RWS fails for all screen recordings of a poll, and there are more of them, that is an outage.
MAX_BAD_RECORDINGS = 2
# What RWS refuses.
CALL, SCREEN = "call", "screen"


@dataclass
class PollResult:
    """The counts of a poll over the last `reach` seconds of the window, the whole one when `is_whole`.

    `waiting` includes the known targets of older calls. `oldest_open` is the start of the oldest call whose target needs
    work, in epoch seconds.
    """

    found: int = 0
    ours: int = 0
    without_screen: int = 0
    skipped: int = 0
    already_done: int = 0
    submitted: int = 0
    waiting: int = 0
    oldest_open: float | None = None
    reach: float = 0.0
    is_whole: bool = True

    @property
    def summary_counts(self) -> dict[str, int]:
        """The numbers of recordings and targets."""
        return {name: value for name, value in vars(self).items() if name not in ("oldest_open", "reach", "is_whole")}

    @property
    def target_count(self) -> int:
        """The number of targets that the poll found."""
        return self.already_done + self.submitted + self.waiting

    def include_oldest(self, start: float | None) -> None:
        """Note that a call that began at `start` needs work."""
        if start is not None:
            self.oldest_open = min(start, self.oldest_open or start)


class Poller:
    """Submits targets to `sink`. `pending` are recordings of the page, `skipped` those that RWS fails for."""

    def __init__(
        self, config: Config, rws: RwsClient, journal: Journal, circuit_breaker: CircuitBreaker, sink: TargetSink
    ) -> None:
        self._config = config
        self._options = TargetOptions.from_config(config.advanced)
        self._rws = rws
        self._journal = journal
        self._circuit_breaker = circuit_breaker
        self._sink = sink
        self._warned = BoundedSet(MAX_WARNED_RECORDINGS)
        # Why RWS refuses a call recording by its id, or its screen recording; a warning is logged when that changes.
        self._refusals = BoundedMap(MAX_WARNED_RECORDINGS)
        self._queries = PollQuery(config, rws)
        processing = config.processing
        self._migrates = bool(config.advanced.call_recording_query_string)
        self._older_than, self._interval = processing.window_past_older_than * 60, processing.min_poll_interval * 60
        self._schedule = PollSchedule.from_options(processing)
        self._open = OpenCalls()
        self._clock_offset: float | None = None
        self._seen: BoundedSet | None = None
        # Recordings of the newest calls that have no screen recording yet.
        self._without_screen: set[str] = set()
        self._newest_due = 0.0
        self._incomplete: QueryIncomplete | None = None
        self._ahead = LookAhead(config.advanced.concurrent_queries)
        # Counts of two threads: one reads recordings, another processes them.
        self._counting, self._read, self._processed = threading.Lock(), 0, 0
        self.result = PollResult()
        self.skipped: dict[str, str] = {}
        self._last_skip: Exception | None = None

    @property
    def pending(self) -> int:
        """The number of recordings that were read and are not processed yet."""
        return self._read - self._processed

    def close(self) -> None:
        """Let the threads of the queries end."""
        self._ahead.close()

    def poll(self) -> PollResult:
        """Go through the query, as far back as is due. Raises the errors of RwsClient and the sink, QueryIncomplete at the
        end."""
        try:
            result = self._read_query()
        except QueryIncomplete:
            if not self._has_missed_screens():
                raise
        else:
            if not self._has_missed_screens():
                return result
        log.info("the query is read again, and screen recordings one by one: bulk responses may have left some out")
        return self._read_query()

    def _has_missed_screens(self) -> bool:
        """Return whether calls were taken for calls without a screen that only another reading of the query would find.

        Other polls find these later; a migration has no other, also when its query is incomplete.
        """
        return self._migrates and self._rws.take_missed_screens()

    def _read_query(self) -> PollResult:
        """Go once through the query."""
        started = time.monotonic()
        reach, due = self._begin_poll(started)
        passes = [reach] if self._migrates else self._schedule.plan_passes(reach)
        self._seen = BoundedSet(MAX_SEEN_RECORDINGS) if len(passes) > 1 else None
        for number, length in enumerate(passes):
            self._run_pass(length, passes[0] if number else None)
            # Calls that are read by their ids may all be bad: that is why they are open.
            nothing_works = self.result.skipped == self.result.ours > MAX_BAD_RECORDINGS + len(due)
            self.result.reach, self.result.is_whole = length, length >= self._schedule.whole
            if due and not number:
                self._read_open_calls(due)
            if number + 1 < len(passes) and self._is_closed(length):
                log.info("the queues are full; older calls are read by a later poll")
                break
        self._include_older(due)
        self._schedule.record_duration(self.result.reach, time.monotonic() - started)
        if self._incomplete is not None:
            raise self._incomplete
        if nothing_works and isinstance(self._last_skip, Transient):
            raise self._last_skip
        if self.result.is_whole:
            self._open.end_whole()
        return self.result

    def retry_skipped(self) -> None:
        """Read once more, by its id, each recording that RWS has failed for: an outage may have ended since."""
        skipped, self.skipped = self.skipped, {}
        for known, calls, screens in self._read_by_ids([OpenCall(recording, 0.0, ()) for recording in skipped]):
            self.result.skipped -= len(calls)
            self._count_read(0, 0, len(calls))
            self._process_slice(calls, screens, newest=False)
            found = {call.id for call in calls}
            self.skipped.update((one.id, skipped[one.id]) for one in known if one.id not in found)

    def seconds_to_whole(self) -> float:
        """Return the time until a poll reads the whole window."""
        return self._schedule.seconds_to_whole(time.monotonic())

    def _begin_poll(self, started: float) -> tuple[float, list[OpenCall]]:
        """Return how far back the poll looks, and the older calls that it reads by their ids."""
        self.result, self.skipped, self._without_screen, self._last_skip = PollResult(), {}, set(), None
        self._read = self._processed = 0
        self._incomplete = None
        self._sink.begin_poll()
        if self._migrates:
            return self._schedule.whole, []
        offset = epoch_now() - started
        if self._clock_offset is not None and abs(offset - self._clock_offset) > MAX_CLOCK_CHANGE_SECONDS:
            log.warning("the clock was changed by %.0f s; the whole window is read", offset - self._clock_offset)
            self._schedule.reset()
        self._clock_offset = offset
        if self._open.is_full:
            self._schedule.reset()
        self._open.forget_older(epoch_now() - self._older_than - self._schedule.whole)
        reach = self._schedule.due_reach(started)
        if reach > self._schedule.shortest and self._is_closed(self._schedule.shortest):
            reach = self._schedule.shortest
        reach, due = self._plan_retries(reach)
        if reach >= self._schedule.whole:
            self._open.begin_whole()
        return reach, due

    def _plan_retries(self, reach: float) -> tuple[float, list[OpenCall]]:
        """Return the older calls with targets that may be tried now, and `reach`, longer when there are many of them."""
        if reach < self._schedule.whole and self._is_closed(self._schedule.shortest):
            return reach, []
        out = self._circuit_breaker.open_circuits().keys()
        due = self._open.find_older(self._oldest_start(reach), self._is_due)
        trials = [call.id for call in due if any(out & target.services for target in call.targets)]
        waiting = set(trials[MAX_TRIAL_READS:])
        due = [call for call in due if call.id not in waiting]
        if len(due) <= MAX_SINGLE_READS:
            return reach, due
        longer = (one.seconds for one in self._schedule.reaches if self._oldest_start(one.seconds) <= due[-1].start)
        return next(longer, self._schedule.whole), []

    def _is_due(self, target: OpenTarget) -> bool:
        return (
            not self._journal.is_done(target.name)
            and not self._sink.holds(target.name)
            and self._journal.may_run(target.name, epoch_now())
            and not self._circuit_breaker.is_any_blocked(target.services)
        )

    def _is_open(self, target: OpenTarget) -> bool:
        return target is not UNREAD and not self._journal.is_done(target.name)

    def _is_closed(self, reach: float) -> bool:
        """Whether targets of calls older than `reach` are currently rejected."""
        return self._sink.rejects_older_than((self._older_than + reach) / 60)

    def _oldest_start(self, reach: float) -> float:
        return epoch_now() - self._older_than - reach

    def _read_open_calls(self, due: Sequence[OpenCall]) -> None:
        """Read calls by their ids, and submit their targets."""
        for _, calls, screens in self._read_by_ids(due):
            self._count_read(len(calls), len(calls), len(calls))
            self._process_slice(calls, screens, newest=False)

    def _read_by_ids(
        self, known: Sequence[OpenCall]
    ) -> Iterator[tuple[Sequence[OpenCall], list[CallRecording], dict[str, ScreenRecording]]]:
        """Yield some of the `known` calls at a time, those of them that RWS returns, and their screen recordings."""
        slices = (known[begin : begin + SINGLE_READS_AT_A_TIME] for begin in range(0, len(known), SINGLE_READS_AT_A_TIME))
        try:
            for some, (calls, screens) in self._ahead.read_slices(slices, self._fetch_open_calls):
                yield some, calls, screens
        finally:
            self._flush_sink()

    def _fetch_open_calls(self, due: Sequence[OpenCall]) -> tuple[list[CallRecording], dict[str, ScreenRecording]]:
        calls = [call for one in due if (call := self._read_open_call(one)) is not None]
        return calls, self._fetch_screens(calls)

    def _read_open_call(self, known: OpenCall) -> CallRecording | None:
        try:
            call = self._rws.fetch_call_recording(known.id)
        except (RequestRejected, MetadataError, ServiceFailed, Forbidden) as error:
            if self._refusals.store((CALL, known.id), str(error)):
                log.warning("the call recording %s cannot be read: %s", known.id, error)
            return None
        self._refusals.remove((CALL, known.id))
        if call is None:
            self._open.forget_call(known.id)
        return call

    def _include_older(self, read: Sequence[OpenCall]) -> None:
        """Add the targets of older calls, which this poll has not looked at, to its result."""
        if not self.result.is_whole:
            waiting, oldest = self._open.count_targets(
                self._oldest_start(self.result.reach), self._is_open, {one.id for one in read}
            )
            self.result.waiting += waiting
            self.result.include_oldest(oldest)

    def _run_pass(self, reach: float, newest: float | None) -> None:
        """Go once through the last `reach` seconds; the `newest` are read again in between (None: this is the first)."""
        started, incomplete, bad = time.monotonic(), None, 0
        try:
            slices = split_pages(self._read_own_calls(reach, newest is None), self._config.processing.query_slice_size)
            for calls, screens in self._ahead.read_slices(slices, self._fetch_screens):
                self._process_slice(calls, screens, newest is None)
                # Small slices may all be bad while others are not; after more of them, they are not read one by one.
                bad = bad + len(calls) if all(call.id in self.skipped for call in calls) else 0
                if bad > MAX_BAD_IN_A_ROW and isinstance(self._last_skip, Transient):
                    raise self._last_skip
                if self._sink.needs_targets_now:
                    self._flush_sink()
                if newest is not None and time.monotonic() > self._newest_due:
                    self._run_pass(newest, None)
        except QueryIncomplete as error:
            # All that RWS returns was processed: older calls are read, too, and the poll fails at its end.
            self._incomplete = incomplete = error
        finally:
            # Targets found before RWS failed are not requested again.
            self._flush_sink()
        if incomplete is None:
            self._schedule.record_pass(reach, started)
        if newest is None:
            self._newest_due = next_newest_pass(started, time.monotonic(), self._interval)

    def _flush_sink(self) -> None:
        accepted = self._sink.flush()
        self.result.submitted += accepted
        self.result.waiting -= accepted

    def _read_own_calls(self, reach: float, newest: bool) -> Iterator[list[CallRecording]]:
        """Yield the recordings of this instance by page, those without a screen again for the `newest` pass."""
        for page in self._rws.read_call_recordings(self._queries.build_query((self._older_than + reach) / 60)):
            new = page if self._seen is None else [call for call in page if self._seen.add(call.id)]
            ours = [call for call in new if is_mine(self._config.processing, call.id)]
            retried = [call for call in page if call.id in self._without_screen] if newest else []
            self._count_read(len(new), len(ours), len(ours) + len(retried))
            yield [*retried, *ours]

    def _count_read(self, found: int, ours: int, read: int) -> None:
        with self._counting:
            self.result.found += found
            self.result.ours += ours
            self._read += read

    def _fetch_screens(self, calls: Sequence[CallRecording]) -> dict[str, ScreenRecording]:
        if not calls:
            return {}
        bulk = self._config.processing.batch_read_screen_recording_metadata
        # A bad recording may fail several times in a row. Whether it is an outage is decided by RwsClient.
        with self._circuit_breaker.ignore_quick_failures(Forbidden):
            return self._rws.fetch_screen_recordings([call.id for call in calls], bulk, self._skip_recording)

    def _process_slice(self, calls: Sequence[CallRecording], screens: Mapping[str, ScreenRecording], newest: bool) -> None:
        result = self.result
        for call in calls:
            may_label = self._rws.wants_label(call.id)
            selection = self._options.select_targets(call, screens.get(call.id), may_label=may_label)
            with recording_context(call.id):
                self._warn_of_problems(call.id, selection.problems)
            if not (skipped := call.id in self.skipped):
                self._refusals.remove((SCREEN, call.id))
            lacks_screen = not selection.targets and not skipped
            result.skipped += skipped
            result.without_screen += lacks_screen - (call.id in self._without_screen)
            self._without_screen.discard(call.id)
            if lacks_screen and self._seen is not None and self._may_read_again(call, newest):
                self._without_screen.add(call.id)
            if not self._migrates:
                self._record_open(call, selection.targets, is_read=not skipped)
            for target in selection.targets:
                self._submit_target(target, result)
            self._processed += 1

    def _may_read_again(self, call: CallRecording, newest: bool) -> bool:
        """Whether this poll may read a call again: it was in the newest pass, or will be in the next one."""
        return newest or _first_start(call) >= self._oldest_start(self._schedule.shortest)

    def _record_open(self, call: CallRecording, targets: Sequence[MuxTarget], *, is_read: bool) -> None:
        wanted = [OpenTarget(one.file_name, needed_services(one)) for one in targets if one.needs_work]
        self._open.record_call(OpenCall(call.id, _first_start(call), tuple(wanted) if is_read else (UNREAD,)))

    def _skip_recording(self, recording_id: str, error: Exception) -> None:
        if self._refusals.store((SCREEN, recording_id), str(error)):
            warn_skipped(recording_id, error)
        self._last_skip = error
        self.skipped[recording_id] = f"its screen recording cannot be read: {error}"

    def _warn_of_problems(self, recording_id: str, problems: Sequence[str]) -> None:
        if problems and self._warned.add(recording_id):
            log.warning("unusable metadata: %s", "; ".join(problems))

    def _submit_target(self, target: MuxTarget, result: PollResult) -> None:
        if not target.needs_work:
            result.already_done += 1
            self._sink.mark_finished(target)
            return
        result.include_oldest(None if target.audio.start is None else target.audio.start.timestamp())
        if self._may_run(target) and self._sink.submit(target):
            result.submitted += 1
        else:
            result.waiting += 1

    def _may_run(self, target: MuxTarget) -> bool:
        """Return whether a target may be tried now. During an outage it waits for a later poll; a migration has none."""
        blocked = not self._migrates and self._circuit_breaker.is_any_blocked(needed_services(target))
        return self._journal.may_run(target.file_name, epoch_now()) and not blocked


def _first_start(call: CallRecording) -> float:
    """Return when the first audio of a call began, in epoch seconds; now if that is unknown."""
    return min((media.start.timestamp() for media in call.audio if media.start is not None), default=epoch_now())
