"""The fleet behind the seam of the pool (:class:`muxer.pool.Engine`): targets become orders, and events tell what became of
them, which the books of this poller note.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

from muxer.activity import Activity
from muxer.books import Books
from muxer.config.schema import Fleet
from muxer.errors import MuxerError, Stopped
from muxer.failures import failure_of
from muxer.fleet import events
from muxer.fleet.broker import FleetBroker
from muxer.fleet.connection import declare_events, quiet, talking, waiting_in
from muxer.fleet.dead import Fate, Letter, fate, look
from muxer.fleet.events import Event
from muxer.fleet.held import Held, Holdings
from muxer.fleet.lanes import LANES, MINUTE, dead, is_low, lane_of, names, room
from muxer.fleet.line import Line
from muxer.fleet.orders import Order
from muxer.fleet.view import FleetView
from muxer.fleet.workers import Workers
from muxer.journal import Journal, Key, now
from muxer.outages import Outages
from muxer.pool import Engine
from muxer.remembered import Remembered
from muxer.selection import MuxTarget
from muxer.work import FAILED, key_of

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
WAIT_SECONDS = 0.2
# So many events are handed to the poller at a time; what it has not noted when it dies is handed to it again.
EVENTS_AT_ONCE = 200
# So many targets are remembered that were done during a poll; what is ordered again for nothing costs a look into RWS.
REMEMBERED = 100_000


class FleetPool(Engine):
    """Hands targets to the workers of a fleet."""

    def __init__(
        self,
        fleet: Fleet,
        mark: str,
        attempts: int,
        journal: Journal,
        books: Books,
        activity: Activity,
        outages: Outages,
        stop: threading.Event,
    ) -> None:
        """Given the options of the fleet, the mark by which RabbitMQ knows this poller again after a restart, how often a
        worker is to try a target at once (more than once: a migration, which waits for room in the queues), and what is told
        of the targets, connect."""
        quiet()
        self._fleet, self._mark, self._attempts, self._name = fleet, mark, attempts, f"{socket.gethostname()}/poller/{mark}"
        self._journal, self._books, self._activity, self._outages, self._stop = journal, books, activity, outages, stop
        self._broker = FleetBroker(fleet, self._name, outages)
        self._holdings, self._workers = Holdings(), Workers()
        for key, at, message in journal.out():
            self._holdings.put(Held(key, message, at))
        self._chosen: list[tuple[float, int, Key]] = []
        self._numbers = itertools.count()
        self._depths, self._dead, self._dead_left = [0] * len(LANES), 0, 0
        # The targets of the letters that were left where they are.
        self._letters: set[str] = set()
        # The targets that were done since this poll began: what it has read of them is older.
        self._ended = Remembered(REMEMBERED)
        self._empty_since: float | None = None
        self._is_starved = False
        # Held while an order is sent, and while the lanes are looked at: what is sent in between would be missed.
        self._counting = threading.Lock()
        self._line = Line(fleet, self._name, outages, self._opened, self._tick, LOOK_SECONDS)
        self._line.start()

    def submit(self, target: MuxTarget) -> bool:
        """Given a target, choose it for the end of this pass, when the newest of the chosen are ordered, and return False;
        in a migration, order it at once, wait for room, and return whether it was not out yet.

        Raise :class:`Stopped` when the process stops, :class:`~muxer.errors.ServiceUnavailable` when the broker is out.
        """
        if self._is_taken(target.name):
            return False
        began = None if target.audio.start is None else target.audio.start.timestamp()
        if self._attempts > 1:
            return self._order_with_patience(key_of(target), began)
        entry = (began or 0.0, next(self._numbers), key_of(target))
        if len(self._chosen) < self._fleet.max_queue:
            heapq.heappush(self._chosen, entry)
        else:
            heapq.heappushpop(self._chosen, entry)
            self._is_starved = True
        return False

    def begin_poll(self) -> None:
        """A poll begins: nothing is chosen."""
        self._chosen, self._is_starved = [], False
        self._ended = Remembered(REMEMBERED)

    def end_pass(self) -> int:
        """Order the targets that were chosen, those of the newest calls first, as far as there is room; return how many."""
        chosen, self._chosen = sorted(self._chosen, reverse=True), []
        if not chosen:
            return 0
        ordered = 0
        try:
            self._look_now()
            for began, _, key in chosen:
                ordered += self._order(key, began or None)
        finally:
            self._broker.rest()
        self._is_starved |= ordered < len(chosen)
        return ordered

    def is_closed(self, minutes: float) -> bool:
        """Given an age, return whether there is no room for calls that are older."""
        lane = lane_of(now() - minutes * MINUTE, now())
        return room(lane, self._depths, self._fleet.max_queue) == 0

    @property
    def is_hungry(self) -> bool:
        """Whether there is room again for what the last poll found and could not order."""
        return self._is_starved and is_low(self._depths, self._fleet.max_queue)

    @property
    def files(self) -> int:
        """How many targets are out."""
        return len(self._holdings)

    @property
    def recordings(self) -> int:
        """How many recordings have a target that is out."""
        return len({held.key.recording for held in self._holdings.all})

    def join(self) -> None:
        """Wait until all that was submitted is finished, or the process stops."""
        while len(self._holdings) and not self._stop.wait(WAIT_SECONDS):
            pass

    def drain(self, seconds: float) -> bool:
        """Close the line to the broker; return whether that was done in so many seconds. The workers go on."""
        return self._line.close(seconds)

    def view(self) -> FleetView:
        """Return how the fleet stands."""
        held = self._holdings.all
        waiting = [one for one in held if one.begun is None]
        return FleetView(
            at=now(),
            connected=self._line.is_connected,
            lanes=dict(zip(names(self._fleet.queue), self._depths, strict=True)),
            dead=self._dead,
            queued=len(waiting),
            running=len(held) - len(waiting),
            oldest=min((one.queued for one in waiting), default=None),
            workers=self._workers.view(now()),
        )

    def _order_with_patience(self, key: Key, began: float | None) -> bool:
        """Order a target as soon as there is room."""
        while not self._order(key, began):
            if self._stop.wait(WAIT_SECONDS):
                raise Stopped("stopped before the recording was begun")
            self._look_now()
        return True

    def _order(self, key: Key, began: float | None) -> bool:
        """Put the order for a target into its lane; return False when there is no room."""
        if self._stop.is_set():
            raise Stopped("stopped before the recording was begun")
        if self._is_taken(key.name):
            return True
        lane = lane_of(began, now())
        with self._counting:
            if not room(lane, self._depths, self._fleet.max_queue):
                return False
            self._send(key, lane)
            self._depths[lane] += 1
        return True

    def _is_taken(self, name: str) -> bool:
        """Whether a target is out, or done since this poll began."""
        return name in self._holdings or name in self._ended

    def _send(self, key: Key, lane: int) -> None:
        message = self._broker.message(Order(key.recording, key.name, self._attempts), lane)
        # Before it is sent: a worker may be done with it at once.
        self._holdings.put(Held(key, message.message_id, now()))
        self._journal.queued(key, now(), message.message_id)
        self._empty_since = None
        try:
            self._broker.send(message)
        except MuxerError:
            self._release(key)
            raise
        self._look_at_letter_of(key)
        self._line.tell(Event(events.QUEUED, self._name, key.recording, key.name, {"message": message.message_id}))

    def _release(self, key: Key) -> None:
        """A target is not out any more, and wanted still."""
        self._holdings.drop(key.name)
        self._journal.wanted(key, now())

    def _opened(self, connection: Any) -> None:
        """The line has a new connection: listen to the events."""
        channel = connection.channel()
        channel.basic_qos(prefetch_count=EVENTS_AT_ONCE)
        channel.basic_consume(declare_events(channel, self._fleet.queue, self._mark), self._received)

    def _received(self, channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        try:
            if (event := events.decode(body)) is not None and event.sender != self._name:
                self._heard(event)
        except Exception:
            log.exception("an event of the fleet cannot be used; it is passed over")
        channel.basic_ack(method.delivery_tag)

    def _heard(self, event: Event) -> None:
        """Note what a worker or another poller has told."""
        if event.what == events.WORKER:
            self._activity.absorb(self._workers.heard(event, now()))
        elif event.what == events.GONE:
            self._workers.gone(event.sender)
        elif event.what in _TARGETS:
            _TARGETS[event.what](self, event, events.key_of(event))

    def _queued_elsewhere(self, event: Event, key: Key) -> None:
        if key.name not in self._holdings:
            message = str(event.details.get("message", ""))
            self._holdings.put(Held(key, message, now()))
            self._journal.queued(key, now(), message)

    def _begun(self, event: Event, key: Key) -> None:
        held = self._holdings.begun(key, now())
        self._journal.running(held.key, now(), held.message)

    def _postponed(self, event: Event, key: Key) -> None:
        held = self._holdings.drop(key.name)
        self._journal.wanted(held.key if held else key, now())

    def _done(self, event: Event, key: Key) -> None:
        held = self._holdings.drop(key.name)
        outcome, facts = str(event.details["outcome"]), dict(event.details["facts"])
        agent = key.agent or (held.key.agent if held else "")
        self._ended.add(key.name)
        self._books.done(Key(key.name, key.recording, agent), outcome, facts)
        self._look_at_letter_of(key)
        self._activity.finished(outcome, facts)
        self._workers.finished(event.sender, outcome, now())

    def _failed(self, event: Event, key: Key) -> None:
        held = self._holdings.get(key.name)
        failure = events.failure_of(event.details)
        known = held.key if held and not key.agent else key
        self._books.failed(known, failure, int(event.details["level"]), None, worker=event.sender)
        if not event.details["more"]:
            self._holdings.drop(key.name)
            self._activity.finished(FAILED, {})
            self._workers.finished(event.sender, FAILED, now())

    def _refused(self, event: Event, key: Key) -> None:
        fields = {"worker": event.sender, "file": key.name}
        log.error("a worker refuses an order: %s", event.details.get("reason", ""), extra={"fields": fields})
        self._dead_left = -1  # the letter is looked at now, whatever the number of letters

    def _look_at_letter_of(self, key: Key) -> None:
        """A target is ordered anew or done: its dead letter, if there is one, is looked at again."""
        if key.name in self._letters:
            self._dead_left = -1

    def _look_now(self) -> None:
        """Look how much waits in the lanes, now."""
        with talking(self._outages):
            self._line.ask(self._look)

    def _look(self, connection: Any) -> None:
        """Look how much waits in the lanes, and at new dead letters."""
        queues = (*names(self._fleet.queue), dead(self._fleet.queue))
        channel = connection.channel()
        with self._counting:
            *depths, letters = [waiting_in(channel, one) for one in queues]
            self._depths, self._empty_since = depths, None if any(depths) else self._empty_since or now()
        channel.close()
        self._dead = letters
        if letters != self._dead_left:
            self._letters.clear()
            self._dead = self._dead_left = look(connection, self._fleet.queue, self._settle)

    def _settle(self, letter: Letter) -> Fate:
        """Settle a dead letter."""
        held, key = self._holdings.get(letter.key.name), letter.key
        found = fate(letter, held, self._journal.state_of(key.name))
        if found is Fate.SET_ASIDE and held is not None:
            self._holdings.drop(key.name)
            self._books.failed(held.key, failure_of(letter.error), logging.ERROR, None)
        if found is not Fate.DROPPED:
            self._letters.add(key.name)
        return found

    def _tick(self, connection: Any) -> None:
        """Look at the queues; what has vanished from them is wanted again."""
        self._look(connection)
        for held in self._holdings.lost(now(), self._empty_since, self._workers.held(now())):
            fields = {"file": held.key.name}
            log.warning("the order for a file has vanished from RabbitMQ; it is given again", extra={"fields": fields})
            self._release(held.key)


_TARGETS: dict[str, Callable[[FleetPool, Event, Key], None]] = {
    events.QUEUED: FleetPool._queued_elsewhere,
    events.BEGUN: FleetPool._begun,
    events.POSTPONED: FleetPool._postponed,
    events.DONE: FleetPool._done,
    events.FAILED: FleetPool._failed,
    events.REFUSED: FleetPool._refused,
}
