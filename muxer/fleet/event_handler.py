"""Handles the events of workers and other pollers: updates the outstanding targets and records the outcomes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from muxer.fleet import events
from muxer.fleet.dead_letters import DeadLetter, DeadLetterScanner, Disposition, choose_disposition
from muxer.fleet.events import Event
from muxer.fleet.heartbeats import WorkerRegistry
from muxer.fleet.outstanding_orders import OutstandingOrder, OutstandingOrders
from muxer.journal.journal import DONE, Journal, TargetKey, epoch_now
from muxer.journal.retry_policy import classify_error
from muxer.scheduling.attempts import ALREADY_DONE, FAILED
from muxer.scheduling.outcome_recorder import OutcomeRecorder
from muxer.status.activity import Activity
from muxer.system.bounded_set import BoundedSet

log = logging.getLogger(__name__)

# Targets done during a poll that are remembered. A task that is queued needlessly costs one read of RWS.
MAX_ENDED_TARGETS = 100_000
# Finished tasks that are remembered, because their ``queued`` event may arrive seconds later.
MAX_ENDED_ORDERS = 10_000


class EventHandler:
    """The outstanding targets (`outstanding`), `workers` and dead `letters`. `only_ours`: as in a migration."""

    def __init__(self, name: str, only_ours: bool, journal: Journal, outcomes: OutcomeRecorder, activity: Activity) -> None:
        """Create it with the outstanding targets in the journal. `name` is the sender of the events of this poller."""
        self._name, self._only_ours = name, only_ours
        self._journal, self._outcomes, self._activity = journal, outcomes, activity
        self.outstanding, self.workers, self.letters = OutstandingOrders(), WorkerRegistry(), DeadLetterScanner()
        for key, at, message in journal.outstanding():
            self.outstanding.put(OutstandingOrder(key, message, at))
        self._ended = BoundedSet(MAX_ENDED_TARGETS)
        # Targets whose end was reported by another worker: the next poll reads their state in RWS.
        self._unsure: dict[str, TargetKey] = {}
        # Ids of the messages of finished tasks.
        self._over = BoundedSet(MAX_ENDED_ORDERS)

    def begin_poll(self) -> None:
        """Forget the targets done so far: what is read from now on is newer."""
        self._ended = BoundedSet(MAX_ENDED_TARGETS)

    def is_taken(self, name: str) -> bool:
        """Whether a target is outstanding, or done since this poll started."""
        return name in self.outstanding or name in self._ended

    def record_order(self, key: TargetKey, message: str) -> None:
        """Record a task for a target. `message` is the id of its message."""
        self.outstanding.put(OutstandingOrder(key, message, epoch_now()))
        self._journal.record_queued(key, epoch_now(), message)
        self.letters.request_full_scan(key.name)

    def release_target(self, key: TargetKey) -> None:
        """Record that a target is no longer outstanding and still wanted."""
        self.outstanding.remove_order(key.name)
        self._journal.record_wanted(key, epoch_now())

    def find_lost(self, empty_since: float | None) -> list[OutstandingOrder]:
        """Return the targets whose task is lost. `empty_since` is as in :meth:`OutstandingOrders.find_lost`."""
        return self.outstanding.find_lost(epoch_now(), empty_since, self.workers.held_targets(epoch_now()))

    def settle_letter(self, letter: DeadLetter) -> Disposition:
        """Set the target of a new dead letter aside; return the handling of the letter."""
        held, key = self.outstanding.get(letter.key.name), letter.key
        disposition = choose_disposition(letter, held, self._journal.state_of(key.name))
        if disposition is Disposition.SET_ASIDE and held is not None:
            self.outstanding.remove_order(key.name)
            self._outcomes.record_failure(held.key, classify_error(letter.error), logging.ERROR, None)
        return disposition

    def handle(self, event: Event) -> None:
        """Handle an event of a worker or another poller."""
        if event.what == events.WORKER:
            self._activity.add_totals(self.workers.record_heartbeat(event, epoch_now()))
        elif event.what == events.GONE:
            self.workers.remove_worker(event.sender)
        elif event.what in _TARGET_HANDLERS and event.sender != self._name and self._is_relevant(event):
            if event.what in _OPEN_TARGET_EVENTS and self._is_finished(event.file):
                log.debug("%s reports a finished file; the next poll reads RWS", event.sender)
                return
            held = self.outstanding.get(event.file)
            if held is not None and event.what in _END_EVENTS and _claims_work_of_another(event, held):
                self._check_in_rws(event, held)
                return
            _TARGET_HANDLERS[event.what](self, event, events.event_key(event))
            if event.what in _END_EVENTS and not event.details.get("more") and (message := event.details.get("message")):
                self._over.add(str(message))

    def _is_relevant(self, event: Event) -> bool:
        """Whether to handle an event. For a migration, a task of another poller matters only when it is done."""
        if not self._only_ours:
            return True
        held = self.outstanding.get(event.file)
        return held is not None and (event.what == events.DONE or _is_about(event, held))

    def _is_finished(self, file: str) -> bool:
        """Whether a target is done and not outstanding. Events about it are late or wrong then and change nothing."""
        return file not in self.outstanding and self._journal.state_of(file) == DONE

    def _check_in_rws(self, event: Event, held: OutstandingOrder) -> None:
        """Ignore the end of a target that an event reports, and read RWS instead: the target is wanted again."""
        extra = {"fields": {"file": event.file, "worker": held.worker}}
        log.warning("%s reports the end of a target that another worker started; checking RWS", event.sender, extra=extra)
        if self._only_ours:
            # A migration has no later poll: the task is queued again.
            self.outstanding.put(replace(held, dropped=0.0))
        else:
            self.release_target(held.key)
            if len(self._unsure) < MAX_ENDED_TARGETS:
                self._unsure[event.file] = held.key

    def record_finished(self, name: str) -> None:
        """Record that a poll has found a target done."""
        if (key := self._unsure.pop(name, None)) is not None and name not in self.outstanding:
            self._outcomes.record_done(key, ALREADY_DONE, {})

    def _handle_queued(self, event: Event, key: TargetKey) -> None:
        # The event of a finished task may arrive late.
        message = str(event.details.get("message", ""))
        if key.name in self.outstanding or message in self._over:
            return
        self.outstanding.put(OutstandingOrder(key, message, epoch_now()))
        self._journal.record_queued(key, epoch_now(), message)
        self.letters.request_full_scan(key.name)

    def _handle_begun(self, event: Event, key: TargetKey) -> None:
        held = self.outstanding.record_start(key, epoch_now(), event.sender, self.workers.held_targets(epoch_now()))
        self._journal.record_running(held.key, epoch_now(), held.message)

    def _handle_postponed(self, event: Event, key: TargetKey) -> None:
        held = self.outstanding.remove_order(key.name)
        self._journal.record_wanted(held.key if held else key, epoch_now())

    def _handle_dropped(self, event: Event, key: TargetKey) -> None:
        held = self.outstanding.get(key.name)
        if held is not None and _is_about(event, held):
            self.outstanding.put(replace(held, dropped=epoch_now()))

    def _handle_done(self, event: Event, key: TargetKey) -> None:
        # First what may be malformed, so that an error changes nothing.
        outcome, facts = str(event.details["outcome"]), dict(event.details["facts"])
        held = self.outstanding.remove_order(key.name)
        agent = key.agent or (held.key.agent if held else "")
        self._ended.add(key.name)
        self._outcomes.record_done(TargetKey(key.name, key.recording, agent), outcome, facts)
        self.letters.request_full_scan(key.name)
        self._activity.count_outcome(outcome, facts)
        self.workers.record_finished(event.sender, outcome, epoch_now())

    def _handle_failed(self, event: Event, key: TargetKey) -> None:
        held = self.outstanding.get(key.name)
        failure, is_last = events.parse_failure(event.details), not event.details["more"]
        known = held.key if held and not key.agent else key
        self._outcomes.record_failure(known, failure, int(event.details["level"]), None, worker=event.sender)
        if is_last:
            self.outstanding.remove_order(key.name)
            self._activity.count_outcome(FAILED, {})
            self.workers.record_finished(event.sender, FAILED, epoch_now())

    def _handle_refused(self, event: Event, key: TargetKey) -> None:
        fields = {"worker": event.sender, "file": key.name}
        reason = events.to_storable_text(event.details.get("reason", ""))[: events.MAX_NAME_LENGTH]
        log.error("a worker rejected a task: %s", reason, extra={"fields": fields})
        self.letters.request_full_scan()


def _claims_work_of_another(event: Event, held: OutstandingOrder) -> bool:
    return bool(held.worker) and (held.contested or event.sender != held.worker)


def _is_about(event: Event, held: OutstandingOrder) -> bool:
    return str(event.details.get("message", "")) in ("", held.message)


_END_EVENTS = (events.POSTPONED, events.DONE, events.FAILED)
_OPEN_TARGET_EVENTS = (events.QUEUED, events.BEGUN, events.POSTPONED, events.FAILED)
_TARGET_HANDLERS: dict[str, Callable[[EventHandler, Event, TargetKey], None]] = {
    events.QUEUED: EventHandler._handle_queued,
    events.BEGUN: EventHandler._handle_begun,
    events.POSTPONED: EventHandler._handle_postponed,
    events.DROPPED: EventHandler._handle_dropped,
    events.DONE: EventHandler._handle_done,
    events.FAILED: EventHandler._handle_failed,
    events.REFUSED: EventHandler._handle_refused,
}
