"""The executor of a fleet: queues a task for each target and records the outcomes that events report."""

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
# Unacknowledged events at a time; RabbitMQ redelivers them when the poller dies.
EVENT_PREFETCH_COUNT = 200


class FleetPool(TargetExecutor):
    """Distributes targets to the workers of a fleet. A migration waits for room, and queues lost tasks again."""

    stop_warning = "the connection to RabbitMQ does not close in time; it is abandoned"

    def __init__(
        self,
        fleet: FleetOptions,
        mark: str,
        attempts: int,
        journal: Journal,
        outcomes: OutcomeRecorder,
        activity: Activity,
        circuit_breaker: CircuitBreaker,
        stop: threading.Event,
    ) -> None:
        """`mark` identifies the event queue of this poller after a restart; more than one of `attempts`: a migration."""
        silence_library_logging()
        self._migrates = attempts > 1
        # A migration has a separate event queue, so that events for the poller wait for the poller.
        self._mark = f"{mark}.migration-{uuid.uuid4().hex[:8]}" if self._migrates else mark
        self._name = f"{socket.gethostname()}/poller/{self._mark}"
        self._fleet, self._attempts, self._circuit_breaker, self._stop = fleet, attempts, circuit_breaker, stop
        self._events = EventHandler(self._name, self._migrates, journal, outcomes, activity)
        self._broker = FleetBroker(fleet, self._name, circuit_breaker)
        self._chosen: list[tuple[float, int, TargetKey]] = []
        self._numbers = itertools.count()
        # The tasks in each queue, including those sent since the last check, and the number of all sent tasks.
        self._depths, self._sent, self._emptiness = [0] * len(PRIORITY_QUEUES), 0, IdleTimer()
        self._counting = threading.Lock()
        self._is_starved = False
        self._control = ControlConnection(
            fleet, self._name, circuit_breaker, self._subscribe_events, self._on_tick, QUEUE_POLL_INTERVAL
        )
        self._control.start()

    def submit(self, target: MuxTarget) -> bool:
        """Collect a target for :meth:`flush` and return False. Raises Stopped, ServiceUnavailable.

        In a migration, wait for room, queue it and return whether it was not outstanding yet.
        """
        if self._events.is_taken(target.file_name):
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

    def holds(self, name: str) -> bool:
        """Return whether a target is outstanding, or done since this poll started."""
        return self._events.is_taken(name)

    def mark_finished(self, target: MuxTarget) -> None:
        """Record that a poll has found a target done."""
        self._events.record_finished(target.file_name)

    def begin_poll(self) -> None:
        """Start a poll. In a migration, raises the errors of :func:`broker_call` when the broker is unavailable."""
        self._chosen, self._is_starved = [], False
        self._events.begin_poll()
        if self._migrates:
            self._poll_depths_now()

    def flush(self) -> int:
        """Queue the collected targets, those of the newest calls first, while there is room; return their number."""
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
        """Whether there is no room for calls older than `minutes`. The poll does not read them then."""
        lane = choose_queue(epoch_now() - minutes * MINUTE, epoch_now())
        is_closed = free_capacity(lane, self._depths, self._fleet.max_queue) == 0
        self._is_starved |= is_closed
        return is_closed

    @property
    def has_capacity_again(self) -> bool:
        """Whether there is room again for targets that the last poll could not queue."""
        return self._is_starved and has_room_everywhere(self._depths, self._fleet.max_queue)

    @property
    def needs_targets_now(self) -> bool:
        """Whether some workers will soon be idle while targets wait for the end of the pass."""
        return bool(self._chosen) and needs_work_soon(self._depths, self._events.workers.count_threads(epoch_now()))

    @property
    def target_count(self) -> int:
        """The number of outstanding targets."""
        return len(self._events.outstanding)

    @property
    def recording_count(self) -> int:
        """The number of recordings with outstanding targets."""
        return len({held.key.recording for held in self._events.outstanding.all_orders})

    def wait_for_all(self) -> None:
        """Wait until all submitted targets are finished or the process stops; queue lost tasks again."""
        while self.target_count and not self._stop.wait(ROOM_POLL_INTERVAL):
            for held in self._events.find_lost(self._emptiness.since):
                self._order_again(held)

    def wait_for_running(self, seconds: float) -> bool:
        """Close the connection to the broker; return whether that took less than `seconds`. The workers continue."""
        return self._control.close(seconds)

    def fleet_status(self) -> FleetStatus:
        """Return the state of the fleet."""
        held, at_workers = self._events.outstanding.all_orders, self._events.workers.held_targets(epoch_now())
        waiting = [order for order in held if not order.is_worked_on(epoch_now(), at_workers)]
        return FleetStatus(
            at=epoch_now(),
            connected=self._control.is_connected,
            lanes=dict(zip(queue_names(self._fleet.queue), self._depths, strict=True)),
            dead=self._events.letters.count,
            queued=len(waiting),
            running=len(held) - len(waiting),
            oldest=min((order.queued for order in waiting), default=None),
            workers=self._events.workers.worker_statuses(epoch_now()),
        )

    def _order_when_room(self, key: TargetKey, began: float | None) -> bool:
        while not self._order_target(key, began):
            if self._stop.wait(ROOM_POLL_INTERVAL):
                raise Stopped("stopped before the recording was started")
            self._poll_depths_now()
        return True

    def _order_again(self, held: OutstandingOrder) -> None:
        """Queue the lost task of a migration again, with the oldest calls; retry later without a broker."""
        _log_lost(held)
        self._events.release_target(held.key)
        try:
            self._order_when_room(held.key, None)
        except MuxerError as error:
            log.debug("cannot queue the task again yet: %s", error)
            self._events.outstanding.put(held)

    def _order_target(self, key: TargetKey, began: float | None) -> bool:
        """Queue the task of a target; return False when there is no room."""
        if self._stop.is_set():
            raise Stopped("stopped before the recording was started")
        if self._events.is_taken(key.name):
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
        # Before it is sent, because a worker may finish it at once.
        self._events.record_order(key, message.message_id)
        try:
            self._broker.send_message(message)
        except MuxerError:
            self._events.release_target(key)
            raise
        self._control.send_event(Event(events.QUEUED, self._name, key.recording, key.name, {"message": message.message_id}))

    def _subscribe_events(self, connection: Any) -> None:
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
                self._events.handle(event)
        except MALFORMED_ERRORS as error:
            source = f"{event.what[:20]!r} of {event.sender[:100]!r}" if event else "unknown"
            log.warning("cannot read an event in %s, it is ignored: %s, %r", queue, source, error)
        except Exception:
            log.exception("an event of the fleet caused an unexpected error and is ignored")
        channel.basic_ack(method.delivery_tag)

    def _poll_depths_now(self) -> None:
        with broker_call(self._circuit_breaker):
            self._control.run_task(self._poll_queue_depths)

    def _poll_queue_depths(self, connection: Any) -> None:
        channel, sent = connection.channel(), self._sent
        names = (*queue_names(self._fleet.queue), dead_letter_queue(self._fleet.queue))
        *depths, letters = [count_waiting(channel, name) for name in names]
        channel.close()
        with self._counting:
            # Tasks sent meanwhile may be counted or not; the next check is exact.
            if sent == self._sent:
                self._depths = depths
                self._emptiness.record_check(not any(depths), epoch_now())
        self._events.letters.scan_next(connection, self._fleet.queue, letters, self._events.settle_letter)

    def _on_tick(self, connection: Any) -> None:
        # RabbitMQ reports a lack of memory only to publishers.
        self._control.send_event(Event(events.POLLER, self._name))
        self._poll_queue_depths(connection)
        if not self._migrates:
            for held in self._events.find_lost(self._emptiness.since):
                _log_lost(held)
                self._events.release_target(held.key)


def _raise_cancelled(_frame: Any) -> None:
    """Break the connection after the deletion of an event queue: a new connection creates it again."""
    raise ServiceUnavailable("the event queue was deleted in RabbitMQ; it is created again")


def _log_lost(held: OutstandingOrder) -> None:
    fields = {"file": held.key.name}
    log.warning("the task of a file is lost in RabbitMQ; it is queued again", extra={"fields": fields})
