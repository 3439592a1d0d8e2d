"""What becomes of the targets that are out, as workers and other pollers tell it; the books of this poller note it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from muxer.activity import Activity
from muxer.books import Books
from muxer.failures import failure_of
from muxer.fleet import events
from muxer.fleet.dead import DeadLetters, Fate, Letter, fate
from muxer.fleet.events import Event
from muxer.fleet.held import Held, Holdings
from muxer.fleet.workers import Workers
from muxer.journal import DONE, Journal, Key, now
from muxer.remembered import Remembered
from muxer.work import ALREADY_DONE, FAILED

log = logging.getLogger(__name__)

# So many targets are remembered that were done during a poll; what is ordered again for nothing costs a look into RWS.
REMEMBERED = 100_000
# So many orders are remembered that have had an outcome; who ordered one may tell it some seconds after that.
OVER = 10_000


class Outcomes:
    """The targets that are out (``holdings``), the ``workers`` and the dead ``letters``, by what is told of them.

    ``only_ours``: what other pollers have ordered is none of our business. So it is in a migration, which ends when its own
    targets are done.
    """

    def __init__(self, name: str, only_ours: bool, journal: Journal, books: Books, activity: Activity) -> None:
        """Given the name by which this poller tells, and where it notes what it is told, know what was out when the journal
        was opened."""
        self._name, self._only_ours = name, only_ours
        self._journal, self._books, self._activity = journal, books, activity
        self.holdings, self.workers, self.letters = Holdings(), Workers(), DeadLetters()
        for key, at, message in journal.out():
            self.holdings.put(Held(key, message, at))
        self._ended = Remembered(REMEMBERED)
        # The targets whose end was told by others than their worker: the next poll reads in RWS what is true.
        self._unsure: dict[str, Key] = {}
        # The ids of their messages.
        self._over = Remembered(OVER)

    def begin_poll(self) -> None:
        """What is read from now on is newer than all that was told."""
        self._ended = Remembered(REMEMBERED)

    def is_taken(self, name: str) -> bool:
        """Whether a target is out, or done since this poll began."""
        return name in self.holdings or name in self._ended

    def ordered(self, key: Key, message: str) -> None:
        """An order for a target goes out, in a message with this id."""
        self.holdings.put(Held(key, message, now()))
        self._journal.queued(key, now(), message)
        self.letters.look_again(key.name)

    def release(self, key: Key) -> None:
        """A target is not out any more, and wanted still."""
        self.holdings.drop(key.name)
        self._journal.wanted(key, now())

    def lost(self, empty_since: float | None) -> list[Held]:
        """Given since when all lanes have been empty, None when they are not, return what is out no more, although nobody
        has told its end."""
        return self.holdings.lost(now(), empty_since, self.workers.held(now()))

    def settle(self, letter: Letter) -> Fate:
        """Given a dead letter, set its target aside if it tells something new; return what becomes of the letter."""
        held, key = self.holdings.get(letter.key.name), letter.key
        found = fate(letter, held, self._journal.state_of(key.name))
        if found is Fate.SET_ASIDE and held is not None:
            self.holdings.drop(key.name)
            self._books.failed(held.key, failure_of(letter.error), logging.ERROR, None)
        return found

    def heard(self, event: Event) -> None:
        """Note what a worker or another poller has told."""
        if event.what == events.WORKER:
            self._activity.absorb(self.workers.heard(event, now()))
        elif event.what == events.GONE:
            self.workers.gone(event.sender)
        elif event.what in _OF_TARGETS and event.sender != self._name and self._concerns(event):
            if event.what in _OF_OPEN_TARGETS and self._is_finished(event.file):
                log.debug("%s tells of a finished file; the next poll asks RWS", event.sender)
                return
            held = self.holdings.get(event.file)
            if held is not None and event.what in _ENDS and _claims_work_of_another(event, held):
                self._check_in_rws(event, held)
                return
            _OF_TARGETS[event.what](self, event, events.key_of(event))
            if event.what in _ENDS and not event.details.get("more") and (message := event.details.get("message")):
                self._over.add(str(message))

    def _concerns(self, event: Event) -> bool:
        """Whether an event is heeded. For a migration, another poller's order for one of its targets tells only that it is
        done, if it is: its own order is still out."""
        if not self._only_ours:
            return True
        held = self.holdings.get(event.file)
        return held is not None and (event.what == events.DONE or _is_of(event, held))

    def _is_finished(self, file: str) -> bool:
        """Whether nothing is left to do for a target, and no order for it is out: what is told of it then is late, or false,
        and sets nothing aside. RWS tells the next poll if it is wanted again."""
        return file not in self.holdings and self._journal.state_of(file) == DONE

    def _check_in_rws(self, event: Event, held: Held) -> None:
        """Ignore what an event says about the end of a target: it is wanted again, and the next reader asks RWS first."""
        fields = {"file": event.file, "worker": held.worker}
        log.warning("%s tells the end of what another has begun; RWS is asked", event.sender, extra={"fields": fields})
        if self._only_ours:
            # A migration has no later poll: the order is given again.
            self.holdings.put(replace(held, dropped=0.0))
        else:
            self.release(held.key)
            if len(self._unsure) < REMEMBERED:
                self._unsure[event.file] = held.key

    def finished(self, name: str) -> None:
        """A poll has read that nothing is left to do for a target."""
        if (key := self._unsure.pop(name, None)) is not None and name not in self.holdings:
            self._books.done(key, ALREADY_DONE, {})

    def _queued_elsewhere(self, event: Event, key: Key) -> None:
        # What is told late, when it is over already, is not out.
        message = str(event.details.get("message", ""))
        if key.name in self.holdings or message in self._over:
            return
        self.holdings.put(Held(key, message, now()))
        self._journal.queued(key, now(), message)
        self.letters.look_again(key.name)

    def _begun(self, event: Event, key: Key) -> None:
        held = self.holdings.begun(key, now(), event.sender, self.workers.held(now()))
        self._journal.running(held.key, now(), held.message)

    def _postponed(self, event: Event, key: Key) -> None:
        held = self.holdings.drop(key.name)
        self._journal.wanted(held.key if held else key, now())

    def _dropped(self, event: Event, key: Key) -> None:
        held = self.holdings.get(key.name)
        if held is not None and _is_of(event, held):
            self.holdings.put(replace(held, dropped=now()))

    def _done(self, event: Event, key: Key) -> None:
        # First what may be malformed: then nothing is changed.
        outcome, facts = str(event.details["outcome"]), dict(event.details["facts"])
        held = self.holdings.drop(key.name)
        agent = key.agent or (held.key.agent if held else "")
        self._ended.add(key.name)
        self._books.done(Key(key.name, key.recording, agent), outcome, facts)
        self.letters.look_again(key.name)
        self._activity.finished(outcome, facts)
        self.workers.finished(event.sender, outcome, now())

    def _failed(self, event: Event, key: Key) -> None:
        held = self.holdings.get(key.name)
        failure, is_last = events.failure_of(event.details), not event.details["more"]
        known = held.key if held and not key.agent else key
        self._books.failed(known, failure, int(event.details["level"]), None, worker=event.sender)
        if is_last:
            self.holdings.drop(key.name)
            self._activity.finished(FAILED, {})
            self.workers.finished(event.sender, FAILED, now())

    def _refused(self, event: Event, key: Key) -> None:
        fields = {"worker": event.sender, "file": key.name}
        reason = events.text(event.details.get("reason", ""))[: events.LONGEST_NAME]
        log.error("a worker refuses an order: %s", reason, extra={"fields": fields})
        self.letters.look_again()


def _claims_work_of_another(event: Event, held: Held) -> bool:
    """Whether an event reports the end of what another worker is known to have begun."""
    return bool(held.worker) and (held.contested or event.sender != held.worker)


def _is_of(event: Event, held: Held) -> bool:
    """Whether what is told is told of the order that is out, as far as that is known."""
    return str(event.details.get("message", "")) in ("", held.message)


_ENDS = (events.POSTPONED, events.DONE, events.FAILED)
_OF_OPEN_TARGETS = (events.QUEUED, events.BEGUN, events.POSTPONED, events.FAILED)
_OF_TARGETS: dict[str, Callable[[Outcomes, Event, Key], None]] = {
    events.QUEUED: Outcomes._queued_elsewhere,
    events.BEGUN: Outcomes._begun,
    events.POSTPONED: Outcomes._postponed,
    events.DROPPED: Outcomes._dropped,
    events.DONE: Outcomes._done,
    events.FAILED: Outcomes._failed,
    events.REFUSED: Outcomes._refused,
}
