"""One poll: reads the call recordings of a query page by page, keeps ours, and submits what they want.

Never holds more than a page and a slice of recordings: memory does not grow with the window. For a fleet, it goes through
its window in several passes, the newest calls first, so that their targets are ordered first, and remembers the ids of what
it has met, some 130 bytes each.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from muxer.config.schema import Config
from muxer.errors import MuxerError, QueryIncomplete
from muxer.gir.models import CallRecording
from muxer.gir.rws import RwsClient, warn_skipped
from muxer.gir.targets import MuxTarget, select_targets
from muxer.journal.journal import Journal, epoch_now
from muxer.log.setup import recording_context
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.pipeline.job import needed_services
from muxer.polling.poll_query import PollQuery
from muxer.polling.sharding import is_mine
from muxer.polling.window import plan_passes
from muxer.scheduling.executor import TargetSink
from muxer.system.bounded_set import BoundedSet

log = logging.getLogger(__name__)

# So many recordings are remembered whose metadata were complained of.
MAX_WARNED_RECORDINGS = 100_000
# So many recordings of earlier passes are known again in a later one; more are only looked at and counted twice.
MAX_SEEN_RECORDINGS = 1_000_000


@dataclass
class PollResult:
    """What a poll met, in recordings (``found``, ``ours``, ``without_screen``, ``skipped``) and targets (the others).

    ``oldest_open`` is when the oldest call began whose target needs work, in epoch seconds; None when none does.
    """

    found: int = 0
    ours: int = 0
    without_screen: int = 0
    skipped: int = 0
    already_done: int = 0
    submitted: int = 0
    waiting: int = 0
    oldest_open: float | None = None

    @property
    def summary_counts(self) -> dict[str, int]:
        """Everything but ``oldest_open``."""
        return {name: value for name, value in vars(self).items() if name != "oldest_open"}

    @property
    def target_count(self) -> int:
        """All targets that the poll met."""
        return self.already_done + self.submitted + self.waiting


class Poller:
    """Reads what is to be done. ``engine`` is given each target that may run now, and says whether it took it.

    Of the poll that runs, or ran last: ``result``, recordings of the page that are still ``pending``, and the recordings
    that were ``skipped`` because RWS fails for them, with the reason.
    """

    def __init__(
        self, config: Config, rws: RwsClient, journal: Journal, outages: CircuitBreaker, engine: TargetSink
    ) -> None:
        self._config = config
        self._rws = rws
        self._journal = journal
        self._outages = outages
        self._engine = engine
        self._warned = BoundedSet(MAX_WARNED_RECORDINGS)
        self._queries = PollQuery(config, rws)
        self._seen: BoundedSet | None = None
        # Recordings among the newest calls whose screen is not there yet.
        self._bare: set[str] = set()
        self._newest_at = 0.0
        self.result = PollResult()
        self.pending = 0
        self.skipped: dict[str, str] = {}

    def poll(self) -> PollResult:
        """Go once through the window, or through the migration's query. Raise the errors of :class:`Rws`, and those of the
        engine; :class:`QueryIncomplete` only after the last pass."""
        incomplete = None
        self.result, self.pending, self.skipped, self._bare = PollResult(), 0, {}, set()
        self._engine.begin_poll()
        reaches = self._pass_lengths()
        self._seen = BoundedSet(MAX_SEEN_RECORDINGS) if len(reaches) > 1 else None
        for number, reach in enumerate(reaches):
            try:
                self._run_pass(reach, reaches[0] if number else None)
            except QueryIncomplete as error:
                incomplete = error
            if number + 1 < len(reaches) and self._engine.rejects_older_than(reach):
                log.info("the queues are full; older calls are read when there is room")
                break
        if incomplete is not None:
            raise incomplete
        return self.result

    def _run_pass(self, reach: float, newest: float | None) -> None:
        """Go once through the calls of so many minutes; in between, when that takes long, through the ``newest`` again; None
        when these are the newest."""
        interval = self._config.processing.min_poll_interval * 60
        try:
            for slice_ in _split_pages(
                self._read_own_calls(reach, newest is None), self._config.processing.query_slice_size
            ):
                if slice_:
                    self._process_slice(slice_, newest is None)
                if self._engine.needs_targets_now:
                    self._flush_sink()
                if newest is not None and time.monotonic() - self._newest_at > interval:
                    self._run_pass(newest, None)
        finally:
            # What was found before RWS failed is not asked for once more.
            self._flush_sink()
        if newest is None:
            self._newest_at = time.monotonic()

    def _flush_sink(self) -> None:
        taken = self._engine.flush()
        self.result.submitted += taken
        self.result.waiting -= taken

    def _pass_lengths(self) -> list[float]:
        """Return how far each pass goes back, in minutes."""
        processing = self._config.processing
        if self._config.is_fleet and not self._config.advanced.call_recording_query_string:
            return plan_passes(processing.window_past, processing.window_past_older_than)
        return [processing.window_past]

    def _read_own_calls(self, reach: float, newest: bool) -> Iterator[list[CallRecording]]:
        """Yield, page by page, the call recordings of a pass that belong to our shard and were not met by an earlier one,
        and count. Of the ``newest``, those come again whose screen was not there."""
        for page in self._rws.read_call_recordings(self._queries.build_query(reach)):
            new = page if self._seen is None else [call for call in page if self._seen.add(call.id)]
            ours = [call for call in new if is_mine(self._config.processing, call.id)]
            self.result.found += len(new)
            self.result.ours += len(ours)
            again = [call for call in page if call.id in self._bare] if newest else []
            self.pending += len(ours) + len(again)
            yield [*again, *ours]

    def _process_slice(self, calls: Sequence[CallRecording], newest: bool) -> None:
        result, bulk = self.result, self._config.processing.batch_read_screen_recording_metadata
        screens = self._rws.fetch_screen_recordings([call.id for call in calls], bulk, self._skip_recording)
        advanced = self._config.advanced
        for call in calls:
            selection = select_targets(
                call,
                screens.get(call.id),
                delete_superseded=advanced.delete_superseded,
                label=advanced.mark_screen_recording_label and self._rws.wants_label(call.id),
                blank_paused=advanced.blank_paused,
            )
            with recording_context(call.id):
                self._warn_of_problems(call.id, selection.problems)
            skipped = call.id in self.skipped
            is_bare = not selection.targets and not skipped
            result.skipped += skipped
            result.without_screen += is_bare - (call.id in self._bare)
            self._bare.discard(call.id)
            if is_bare and newest and self._seen is not None:
                self._bare.add(call.id)
            for target in selection.targets:
                self._submit_target(target, result)
            self.pending -= 1

    def _skip_recording(self, recording_id: str, error: Exception) -> None:
        warn_skipped(recording_id, error)
        self.skipped[recording_id] = f"its screen recording cannot be read: {error}"

    def _warn_of_problems(self, recording_id: str, problems: Sequence[str]) -> None:
        """Warn of metadata that cannot be used, once for each recording."""
        if problems and self._warned.add(recording_id):
            log.warning("metadata that cannot be used: %s", "; ".join(problems))

    def _submit_target(self, target: MuxTarget, result: PollResult) -> None:
        if not target.needs_work:
            result.already_done += 1
            self._engine.mark_finished(target)
            return
        if (start := target.audio.start) is not None:
            result.oldest_open = min(start.timestamp(), result.oldest_open or start.timestamp())
        if self._may_run(target) and self._engine.submit(target):
            result.submitted += 1
        else:
            result.waiting += 1

    def _may_run(self, target: MuxTarget) -> bool:
        """Whether a target may be tried now. What waits for the end of an outage comes again with a later poll, which a
        migration does not have."""
        migration = bool(self._config.advanced.call_recording_query_string)
        blocked = not migration and self._outages.is_any_blocked(needed_services(target))
        return self._journal.may_run(target.file_name, epoch_now()) and not blocked


def _split_pages(pages: Iterator[list[CallRecording]], size: int) -> Iterator[Sequence[CallRecording]]:
    """Yield the calls in slices, across the borders of pages; an empty one for a page that completes none, so that something
    is heard of a pass while it goes through pages of nothing new. When reading them fails, what was read comes first."""
    left: list[CallRecording] = []
    try:
        for page in pages:
            left += page
            whole = len(left) // size * size
            yield from (left[place : place + size] for place in range(0, whole, size))
            if not whole:
                yield []
            left = left[whole:]
    except MuxerError:
        if left:
            yield left
        raise
    if left:
        yield left
