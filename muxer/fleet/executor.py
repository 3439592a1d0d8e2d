"""The fleet behind the seam of the pool (:class:`muxer.scheduling.executor.Engine`): targets become orders, and events tell what became of
them, which the books of this poller note.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import socket
import threading
import uuid
from typing import Any

from muxer.config.schema import FleetOptions
from muxer.errors import MuxerError, ServiceUnavailable, Stopped
from muxer.fleet import events
from muxer.fleet.broker import FleetBroker
from muxer.fleet.connection import (
    HOUR_MILLISECONDS,
    WEEK_MILLISECONDS,
    broker_call,
    count_waiting,
    declare_event_queue,
    declare_heartbeat_queue,
    silence_library_logging,
)
from muxer.fleet.control_connection import ControlConnection
from muxer.fleet.event_handler import EventHandler
from muxer.fleet.events import Event
from muxer.fleet.message_properties import log_unreadable
from muxer.fleet.orders import Order
from muxer.fleet.outstanding_orders import IdleTimer, OutstandingOrder
from muxer.fleet.priority_queues import (
    EVENTS_SUFFIX,
    MINUTE,
    PRIORITY_QUEUES,
    choose_queue,
    dead_letter_queue,
    free_capacity,
    has_room_everywhere,
    needs_work_soon,
    queue_names,
)
from muxer.gir.targets import MuxTarget
from muxer.journal.journal import Journal, TargetKey, epoch_now
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.scheduling.attempts import target_key
from muxer.scheduling.executor import TargetExecutor
from muxer.scheduling.outcome_recorder import OutcomeRecorder
from muxer.status.activity import Activity
from muxer.status.fleet_status import FleetStatus
from muxer.system.json_codec import MALFORMED_ERRORS

log = logging.getLogger(__name__)

QUEUE_POLL_INTERVAL = 2.0
ROOM_POLL_INTERVAL = 0.2
# So many events are handed to the poller at a time; what it has not noted when it dies is handed to it again.
EVENT_PREFETCH_COUNT = 200


class FleetPool(TargetExecutor):
    """Hands targets to the workers of a fleet. In a migration it waits for room in the lanes, heeds only its own targets,
    and orders again what has vanished; else the next poll does that."""

    stop_warning = "the connection to RabbitMQ does not close; it is left"

    def __init__(
        self,
        fleet: FleetOptions,
        mark: str,
        attempts: int,
        journal: Journal,
        books: OutcomeRecorder,
        activity: Activity,
        outages: CircuitBreaker,
        stop: threading.Event,
    ) -> None:
        """Given the options of the fleet, the mark by which RabbitMQ knows this poller again after a restart, how often a
        worker is to try a target at once (more than once: a migration), and what is told of the targets, connect."""
        silence_library_logging()
        self._migrates = attempts > 1
        # A migration listens on its own: what was told to the poller waits for the poller.
        self._mark = f"{mark}.migration-{uuid.uuid4().hex[:8]}" if self._migrates else mark
        self._name = f"{socket.gethostname()}/poller/{self._mark}"
        self._fleet, self._attempts, self._outages, self._stop = fleet, attempts, outages, stop
        self._outcomes = EventHandler(self._name, self._migrates, journal, books, activity)
        self._broker = FleetBroker(fleet, self._name, outages)
        self._chosen: list[tuple[float, int, TargetKey]] = []
        self._numbers = itertools.count()
        # How many messages wait in each lane, with those that were sent since the last look, and all that were ever sent.
        self._depths, self._sent, self._emptiness = [0] * len(PRIORITY_QUEUES), 0, IdleTimer()
        self._counting = threading.Lock()
        self._is_starved = False
        self._line = ControlConnection(
            fleet, self._name, outages, self._subscribe_events, self._on_tick, QUEUE_POLL_INTERVAL
        )
        self._line.start()

    def submit(self, target: MuxTarget) -> bool:
        """Given a target, choose it for the end of this pass, when the newest of the chosen are ordered, and return False;
        in a migration, order it at once, wait for room, and return whether it was not out yet.

        Raise :class:`Stopped` when the process stops, :class:`~muxer.errors.ServiceUnavailable` when the broker is out.
        """
        if self._outcomes.is_taken(target.file_name):
            return False
        began = None if target.audio.start is None else target.audio.start.timestamp()
        if self._migrates:
            return self._order_when_room(target_key(target), began)
        entry = (began or 0.0, next(self._numbers), target_key(target))
        if len(self._chosen) < self._fleet.max_queue:
            heapq.heappush(self._chosen, entry)
        else:
            heapq.heappushpop(self._chosen, entry)
            self._is_starved = True
        return False

    def mark_finished(self, target: MuxTarget) -> None:
        """Note that a poll has found nothing left to do for a target."""
        self._outcomes.record_finished(target.file_name)

    def begin_poll(self) -> None:
        """A poll begins: nothing is chosen. In a migration, raise the errors of :func:`talking` without a broker:
        what becomes of its orders is told to whoever listens then."""
        self._chosen, self._is_starved = [], False
        self._outcomes.begin_poll()
        if self._migrates:
            self._poll_depths_now()

    def flush(self) -> int:
        """Order the targets that were chosen, those of the newest calls first, as far as there is room; return how many."""
        chosen, self._chosen = sorted(self._chosen, reverse=True), []
        if not chosen:
            return 0
        ordered = 0
        try:
            self._poll_depths_now()
            for began, _, key in chosen:
                ordered += self._order_target(key, began or None)
        finally:
            self._broker.close_idle()
        self._is_starved |= ordered < len(chosen)
        return ordered

    def rejects_older_than(self, minutes: float) -> bool:
        """Given an age, return whether there is no room for calls that are older. They are left unread then, and wanted as
        soon as there is."""
        lane = choose_queue(epoch_now() - minutes * MINUTE, epoch_now())
        is_closed = free_capacity(lane, self._depths, self._fleet.max_queue) == 0
        self._is_starved |= is_closed
        return is_closed

    @property
    def has_capacity_again(self) -> bool:
        """Whether there is room again for what the last poll found and could not order."""
        return self._is_starved and has_room_everywhere(self._depths, self._fleet.max_queue)

    @property
    def needs_targets_now(self) -> bool:
        """Whether there is work that waits for the end of the pass, and some workers will soon have none."""
        return bool(self._chosen) and needs_work_soon(self._depths, self._outcomes.workers.count_threads(epoch_now()))

    @property
    def target_count(self) -> int:
        """How many targets are out."""
        return len(self._outcomes.holdings)

    @property
    def recording_count(self) -> int:
        """How many recordings have a target that is out."""
        return len({held.key.recording for held in self._outcomes.holdings.all_orders})

    def wait_for_all(self) -> None:
        """Wait until all that was submitted is finished, or the process stops; order again what has vanished."""
        while self.target_count and not self._stop.wait(ROOM_POLL_INTERVAL):
            for held in self._outcomes.find_lost(self._emptiness.since):
                self._order_again(held)

    def wait_for_running(self, seconds: float) -> bool:
        """Close the line to the broker; return whether that was done in so many seconds. The workers go on."""
        return self._line.close(seconds)

    def fleet_status(self) -> FleetStatus:
        """Return how the fleet stands."""
        held, at_workers = self._outcomes.holdings.all_orders, self._outcomes.workers.held_targets(epoch_now())
        waiting = [one for one in held if not one.is_worked_on(epoch_now(), at_workers)]
        return FleetStatus(
            at=epoch_now(),
            connected=self._line.is_connected,
            lanes=dict(zip(queue_names(self._fleet.queue), self._depths, strict=True)),
            dead=self._outcomes.letters.count,
            queued=len(waiting),
            running=len(held) - len(waiting),
            oldest=min((one.queued for one in waiting), default=None),
            workers=self._outcomes.workers.worker_statuses(epoch_now()),
        )

    def _order_when_room(self, key: TargetKey, began: float | None) -> bool:
        """Order a target as soon as there is room."""
        while not self._order_target(key, began):
            if self._stop.wait(ROOM_POLL_INTERVAL):
                raise Stopped("stopped before the recording was begun")
            self._poll_depths_now()
        return True

    def _order_again(self, held: OutstandingOrder) -> None:
        """Order a target of a migration whose order has vanished, as one of the oldest calls; without a broker, later."""
        _log_vanished(held)
        self._outcomes.release_target(held.key)
        try:
            self._order_when_room(held.key, None)
        except MuxerError as error:
            log.debug("not ordered again yet: %s", error)
            self._outcomes.holdings.put(held)

    def _order_target(self, key: TargetKey, began: float | None) -> bool:
        """Put the order for a target into its lane; return False when there is no room."""
        if self._stop.is_set():
            raise Stopped("stopped before the recording was begun")
        if self._outcomes.is_taken(key.name):
            return True
        lane = choose_queue(began, epoch_now())
        with self._counting:
            if not free_capacity(lane, self._depths, self._fleet.max_queue):
                return False
            self._depths[lane] += 1
            self._sent += 1
            self._emptiness.since = None
        self._send_order(key, lane)
        return True

    def _send_order(self, key: TargetKey, lane: int) -> None:
        message = self._broker.create_message(Order(key.recording, key.name, self._attempts), lane)
        # Before it is sent: a worker may be done with it at once.
        self._outcomes.record_order(key, message.message_id)
        try:
            self._broker.send_message(message)
        except MuxerError:
            self._outcomes.release_target(key)
            raise
        self._line.send_event(Event(events.QUEUED, self._name, key.recording, key.name, {"message": message.message_id}))

    def _subscribe_events(self, connection: Any) -> None:
        """The line has a new connection: listen to the events."""
        channel, queue = connection.channel(), self._fleet.queue
        channel.basic_qos(prefetch_count=EVENT_PREFETCH_COUNT)
        channel.add_on_cancel_callback(_raise_cancelled)
        kept = HOUR_MILLISECONDS if self._migrates else WEEK_MILLISECONDS
        for name in (declare_event_queue(channel, queue, self._mark, kept), declare_heartbeat_queue(channel, queue)):
            channel.basic_consume(name, self._receive_event)

    def _receive_event(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        queue, event = f"{self._fleet.queue}{EVENTS_SUFFIX}", None
        log_unreadable(properties, queue)
        try:
            if (event := events.decode_event(body)) is not None:
                self._outcomes.handle(event)
        except MALFORMED_ERRORS as error:
            told = f"{event.what[:20]!r} of {event.sender[:100]!r}" if event else "what"
            log.warning("an event in %s cannot be read, it is passed over: %s, %r", queue, told, error)
        except Exception:
            log.exception("an event of the fleet cannot be used; it is passed over")
        channel.basic_ack(method.delivery_tag)

    def _poll_depths_now(self) -> None:
        """Look how much waits in the lanes, now."""
        with broker_call(self._outages):
            self._line.run_task(self._poll_queue_depths)

    def _poll_queue_depths(self, connection: Any) -> None:
        """Look how much waits in the lanes, and at new dead letters."""
        channel, sent = connection.channel(), self._sent
        *depths, letters = [
            count_waiting(channel, one) for one in (*queue_names(self._fleet.queue), dead_letter_queue(self._fleet.queue))
        ]
        channel.close()
        with self._counting:
            # What was sent during the look may be counted or not; the next look tells.
            if sent == self._sent:
                self._depths = depths
                self._emptiness.record_check(not any(depths), epoch_now())
        self._outcomes.letters.scan_next(connection, self._fleet.queue, letters, self._outcomes.settle_letter)

    def _on_tick(self, connection: Any) -> None:
        """Look at the queues; what has vanished from them is wanted again."""
        # RabbitMQ tells only those who publish that it takes nothing, because it lacks memory.
        self._line.send_event(Event(events.POLLER, self._name))
        self._poll_queue_depths(connection)
        if not self._migrates:
            for held in self._outcomes.find_lost(self._emptiness.since):
                _log_vanished(held)
                self._outcomes.release_target(held.key)


def _raise_cancelled(_frame: Any) -> None:
    """Somebody has deleted a queue that we listen to. Only a new connection of the line makes it again."""
    raise ServiceUnavailable("RabbitMQ has a queue of events no more; it is made again")


def _log_vanished(held: OutstandingOrder) -> None:
    fields = {"file": held.key.name}
    log.warning("the order for a file has vanished from RabbitMQ; it is given again", extra={"fields": fields})
