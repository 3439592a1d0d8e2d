"""One poll: reads the call recordings of a query page by page, selects those of this instance, and submits their targets.

Memory does not grow with the window. A fleet goes through it in several passes, newest calls first.
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

# Recordings whose metadata problems were logged.
MAX_WARNED_RECORDINGS = 100_000
# Recordings that a later pass of the same poll recognises; more are only read and counted twice.
MAX_SEEN_RECORDINGS = 1_000_000


@dataclass
class PollResult:
    """The counts of a poll. `oldest_open` is the start of the oldest call whose target needs work, in epoch seconds."""

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
        """Everything but `oldest_open`."""
        return {name: value for name, value in vars(self).items() if name != "oldest_open"}

    @property
    def target_count(self) -> int:
        """The number of targets that the poll found."""
        return self.already_done + self.submitted + self.waiting


class Poller:
    """Submits targets to `sink`. `pending` are recordings of the page, `skipped` those that RWS fails for."""

    def __init__(
        self, config: Config, rws: RwsClient, journal: Journal, circuit_breaker: CircuitBreaker, sink: TargetSink
    ) -> None:
        self._config = config
        self._rws = rws
        self._journal = journal
        self._circuit_breaker = circuit_breaker
        self._sink = sink
        self._warned = BoundedSet(MAX_WARNED_RECORDINGS)
        self._queries = PollQuery(config, rws)
        self._seen: BoundedSet | None = None
        # Recordings of the newest pass that have no screen recording yet.
        self._without_screen: set[str] = set()
        self._newest_at = 0.0
        self.result = PollResult()
        self.pending = 0
        self.skipped: dict[str, str] = {}

    def poll(self) -> PollResult:
        """Go once through the window or query. Raises the errors of RwsClient and the sink, QueryIncomplete at the end."""
        incomplete = None
        self.result, self.pending, self.skipped, self._without_screen = PollResult(), 0, {}, set()
        self._sink.begin_poll()
        reaches = self._pass_lengths()
        self._seen = BoundedSet(MAX_SEEN_RECORDINGS) if len(reaches) > 1 else None
        for number, reach in enumerate(reaches):
            try:
                self._run_pass(reach, reaches[0] if number else None)
            except QueryIncomplete as error:
                incomplete = error
            if number + 1 < len(reaches) and self._sink.rejects_older_than(reach):
                log.info("the queues are full; older calls are read by a later poll")
                break
        if incomplete is not None:
            raise incomplete
        return self.result

    def _run_pass(self, reach: float, newest: float | None) -> None:
        """Go once through the last `reach` minutes; the `newest` are read again in between (None: this is the first)."""
        interval = self._config.processing.min_poll_interval * 60
        try:
            for calls in _split_pages(self._read_own_calls(reach, newest is None), self._config.processing.query_slice_size):
                if calls:
                    self._process_slice(calls, newest is None)
                if self._sink.needs_targets_now:
                    self._flush_sink()
                if newest is not None and time.monotonic() - self._newest_at > interval:
                    self._run_pass(newest, None)
        finally:
            # Targets found before RWS failed are not requested again.
            self._flush_sink()
        if newest is None:
            self._newest_at = time.monotonic()

    def _flush_sink(self) -> None:
        accepted = self._sink.flush()
        self.result.submitted += accepted
        self.result.waiting -= accepted

    def _pass_lengths(self) -> list[float]:
        processing = self._config.processing
        if self._config.is_fleet and not self._config.advanced.call_recording_query_string:
            return plan_passes(processing.window_past, processing.window_past_older_than)
        return [processing.window_past]

    def _read_own_calls(self, reach: float, newest: bool) -> Iterator[list[CallRecording]]:
        """Yield the recordings of this instance by page, those without a screen again for the `newest` pass."""
        for page in self._rws.read_call_recordings(self._queries.build_query(reach)):
            new = page if self._seen is None else [call for call in page if self._seen.add(call.id)]
            ours = [call for call in new if is_mine(self._config.processing, call.id)]
            self.result.found += len(new)
            self.result.ours += len(ours)
            retried = [call for call in page if call.id in self._without_screen] if newest else []
            self.pending += len(ours) + len(retried)
            yield [*retried, *ours]

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
            lacks_screen = not selection.targets and not skipped
            result.skipped += skipped
            result.without_screen += lacks_screen - (call.id in self._without_screen)
            self._without_screen.discard(call.id)
            if lacks_screen and newest and self._seen is not None:
                self._without_screen.add(call.id)
            for target in selection.targets:
                self._submit_target(target, result)
            self.pending -= 1

    def _skip_recording(self, recording_id: str, error: Exception) -> None:
        warn_skipped(recording_id, error)
        self.skipped[recording_id] = f"its screen recording cannot be read: {error}"

    def _warn_of_problems(self, recording_id: str, problems: Sequence[str]) -> None:
        if problems and self._warned.add(recording_id):
            log.warning("unusable metadata: %s", "; ".join(problems))

    def _submit_target(self, target: MuxTarget, result: PollResult) -> None:
        if not target.needs_work:
            result.already_done += 1
            self._sink.mark_finished(target)
            return
        if (start := target.audio.start) is not None:
            result.oldest_open = min(start.timestamp(), result.oldest_open or start.timestamp())
        if self._may_run(target) and self._sink.submit(target):
            result.submitted += 1
        else:
            result.waiting += 1

    def _may_run(self, target: MuxTarget) -> bool:
        """Return whether a target may be tried now. During an outage it waits for a later poll; a migration has none."""
        migration = bool(self._config.advanced.call_recording_query_string)
        blocked = not migration and self._circuit_breaker.is_any_blocked(needed_services(target))
        return self._journal.may_run(target.file_name, epoch_now()) and not blocked


def _split_pages(pages: Iterator[list[CallRecording]], size: int) -> Iterator[Sequence[CallRecording]]:
    """Yield calls in slices across pages; empty ones too, so that the caller gets control."""
    rest: list[CallRecording] = []
    try:
        for page in pages:
            rest += page
            complete = len(rest) // size * size
            yield from (rest[begin : begin + size] for begin in range(0, complete, size))
            if not complete:
                yield []
            rest = rest[complete:]
    except MuxerError:
        if rest:
            yield rest
        raise
    if rest:
        yield rest
