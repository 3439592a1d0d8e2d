"""One poll: reads the call recordings of a query page by page, keeps ours, and submits what they want.

Never holds more than a page and a slice of recordings: memory does not grow with the window.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from muxer import window
from muxer.config.schema import Config
from muxer.errors import MuxerError
from muxer.gir.models import CallRecording
from muxer.gir.query import BUILT_IN_EXTRA_QUERY, BUILT_IN_EXTRA_QUERY_SINCE, DISABLED
from muxer.gir.rws import Rws, warn_of_skipped
from muxer.job import services_of
from muxer.journal import Journal, now
from muxer.observe.logs import about
from muxer.outages import Outages
from muxer.remembered import Remembered
from muxer.selection import MuxTarget, select
from muxer.sharding import takes

log = logging.getLogger(__name__)

# So many recordings are remembered whose metadata were complained of.
WARNED = 100_000


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
    def counts(self) -> dict[str, int]:
        """Everything but ``oldest_open``."""
        return {name: value for name, value in vars(self).items() if name != "oldest_open"}

    @property
    def targets(self) -> int:
        """All targets that the poll met."""
        return self.already_done + self.submitted + self.waiting


class Poller:
    """Reads what is to be done. ``submit`` is given each target that may run now, and says whether it took it.

    Of the poll that runs, or ran last: ``result``, recordings of the page that are still ``pending``, and the recordings
    that were ``skipped`` because RWS fails for them, with the reason.
    """

    def __init__(
        self, config: Config, rws: Rws, journal: Journal, outages: Outages, submit: Callable[[MuxTarget], bool]
    ) -> None:
        self._config = config
        self._rws = rws
        self._journal = journal
        self._outages = outages
        self._submit = submit
        self._warned = Remembered(WARNED)
        self._extra: str | None = None
        self.result = PollResult()
        self.pending = 0
        self.skipped: dict[str, str] = {}

    def poll(self) -> PollResult:
        """Go once through the window, or through the migration's query. Raise the errors of :class:`Rws`."""
        self.result = result = PollResult()
        self.pending, self.skipped = 0, {}
        for slice_ in _slices(self._ours(result), self._config.processing.query_slice_size):
            self._take(slice_, result)
        return result

    def _ours(self, result: PollResult) -> Iterator[CallRecording]:
        """Yield the call recordings of the query that belong to our shard, and count."""
        for page in self._rws.call_recordings(self.query()):
            result.found += len(page)
            ours = [call for call in page if takes(self._config.processing, call.id)]
            self.pending += len(ours)
            result.ours += len(ours)
            yield from ours

    def query(self) -> str:
        """Return the query of a poll that begins now, ready for a URL. Raise the errors of :meth:`Rws.version`."""
        processing, advanced = self._config.processing, self._config.advanced
        if advanced.call_recording_query_string:
            return window.migration_query(advanced.call_recording_query_string, advanced.pagination)
        past, older = processing.window_past, processing.window_past_older_than
        return window.window_query(datetime.now(UTC), past, older, advanced.pagination, self._extra_query())

    def _extra_query(self) -> str:
        """Return the further parameters (guide: call_recording_extra_query_string). RWS is asked its version until it
        tells one; an upgrade of RWS takes effect with the next start."""
        configured = self._config.advanced.call_recording_extra_query_string
        if configured:
            return "" if configured.lower() == DISABLED else configured
        if self._extra is None:
            version = self._rws.version()
            if version is None:
                return ""
            self._extra = BUILT_IN_EXTRA_QUERY if version >= BUILT_IN_EXTRA_QUERY_SINCE else ""
            log.info("RWS has version %s; extra query: %s", ".".join(map(str, version)), self._extra or "none")
        return self._extra

    def _take(self, calls: Sequence[CallRecording], result: PollResult) -> None:
        bulk = self._config.processing.batch_read_screen_recording_metadata
        screens = self._rws.screen_recordings([call.id for call in calls], bulk, self._skip)
        advanced = self._config.advanced
        for call in calls:
            selection = select(
                call,
                screens.get(call.id),
                delete_superseded=advanced.delete_superseded,
                label=advanced.mark_screen_recording_label and self._rws.wants_label(call.id),
            )
            with about(call.id):
                self._note(call.id, selection.problems)
            skipped = call.id in self.skipped
            result.skipped += skipped
            result.without_screen += not selection.targets and not skipped
            for target in selection.targets:
                self._hand_over(target, result)
            self.pending -= 1

    def _skip(self, recording_id: str, error: Exception) -> None:
        warn_of_skipped(recording_id, error)
        self.skipped[recording_id] = f"its screen recording cannot be read: {error}"

    def _note(self, recording_id: str, problems: Sequence[str]) -> None:
        """Warn of metadata that cannot be used, once for each recording."""
        if problems and self._warned.add(recording_id):
            log.warning("metadata that cannot be used: %s", "; ".join(problems))

    def _hand_over(self, target: MuxTarget, result: PollResult) -> None:
        if not target.needs_work:
            result.already_done += 1
            return
        if (start := target.audio.start) is not None:
            result.oldest_open = min(start.timestamp(), result.oldest_open or start.timestamp())
        if self._may_run(target) and self._submit(target):
            result.submitted += 1
        else:
            result.waiting += 1

    def _may_run(self, target: MuxTarget) -> bool:
        """Whether a target may be tried now. What waits for the end of an outage comes again with a later poll, which a
        migration does not have."""
        migration = bool(self._config.advanced.call_recording_query_string)
        blocked = not migration and self._outages.blocks(services_of(target))
        return self._journal.may_run(target.name, now()) and not blocked


def _slices(calls: Iterator[CallRecording], size: int) -> Iterator[Sequence[CallRecording]]:
    """Yield the calls in slices, across the borders of pages. When reading them fails, what was read comes first."""
    slice_: list[CallRecording] = []
    try:
        for call in calls:
            slice_.append(call)
            if len(slice_) == size:
                yield slice_
                slice_ = []
    except MuxerError:
        if slice_:
            yield slice_
        raise
    if slice_:
        yield slice_
