"""The dead letters: orders that no worker could read, or finish. Each is told once, by setting its target aside; the letter
stays where it is, for whoever wants to read it, until its target is ordered anew or done, or for a week.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from enum import Enum
from typing import Any

import pika

from muxer.errors import Code, GivenUp
from muxer.fleet.connection import DELIVERIES, WEEK_MILLISECONDS, take_lock, waiting_in
from muxer.fleet.events import MALFORMED, text
from muxer.fleet.held import Held
from muxer.fleet.lanes import dead
from muxer.fleet.properties import storable, tell_unreadable
from muxer.journal import DONE, Key

# So many are looked at in one go: what else the poller does with its line waits for it.
LOOKED_AT = 200


class Fate(Enum):
    """What becomes of a dead letter: its target is set aside, and it stays; it stays; it is dropped."""

    SET_ASIDE = "set aside"
    LEFT = "left"
    DROPPED = "dropped"


@dataclass(frozen=True)
class Letter:
    """A dead letter: the id of its message, its target as far as that can be read, and why it is dead."""

    message: str
    key: Key
    error: GivenUp


def read(body: bytes, headers: dict[str, Any]) -> Letter:
    """Given a message and its headers, return the letter."""
    try:
        plain = json.loads(body)
        message, order = str(plain["message_id"]), plain["kwargs"]
        key = Key(text(order.get("file", "")), text(order.get("recording", "")))
    except MALFORMED:
        message, key = "", Key("", "")
    if str(headers.get("x-first-death-reason", "")) == "delivery_limit":
        why = f"{DELIVERIES + 1} workers were given this order, and none of them finished it"
        return Letter(message, key, GivenUp(why, code=Code.NEVER_FINISHED))
    return Letter(message, key, GivenUp("a worker could not read this order", code=Code.UNKNOWN_ORDER))


def fate(letter: Letter, held: Held | None, state: str) -> Fate:
    """Given a letter, what is known of its target if that is out, and the target's state in the journal, return what becomes
    of it. Only the letter of the order that is out tells something new."""
    if held is not None:
        return Fate.SET_ASIDE if held.message in (letter.message, "") else Fate.DROPPED
    return Fate.DROPPED if state == DONE else Fate.LEFT


class DeadLetters:
    """The queue of dead letters as a poller looks at it: all of them when there are more than it has left there, or it is
    asked to, some at a time. ``count`` = how many there are."""

    def __init__(self) -> None:
        self.count = 0
        self._targets: set[str] = set()
        # How many the last round has left, this one has, and how many it has not yet come to.
        self._left = self._kept = self._ahead = 0

    def look_again(self, target: str | None = None) -> None:
        """Look at all of them anew; given the name of a ``target``, only when one of them is that target's."""
        if target is None or target in self._targets:
            self._targets.discard(target or "")
            self._left = -1

    def look(self, connection: Any, queue: str, count: int, settle: Callable[[Letter], Fate]) -> None:
        """Given a connection, the option ``queue``, how many letters there are and what settles one, look at the next ones.
        Raise the errors of pika."""
        self.count = count
        if self._ahead or count != self._left:
            # While another poller looks, one is in its hands: the number is not the true one, and nothing of this is news.
            with _alone(connection, queue) as channel:
                if channel is not None:
                    self._go_on(channel, dead(queue), settle)

    def _go_on(self, channel: Any, name: str, settle: Callable[[Letter], Fate]) -> None:
        self.count = count = waiting_in(channel, name)
        if not self._ahead:
            if count <= self._left:
                self._left = count  # some have expired, or were taken out
                return
            self._left, self._kept, self._ahead = count, 0, count
            self._targets.clear()
        looked_at = min(LOOKED_AT, self._ahead)
        kept = _look(channel, name, looked_at, lambda letter: self._settled(letter, settle))
        self._ahead -= looked_at
        self._kept += kept
        self.count -= looked_at - kept
        if not self._ahead and self._left >= 0:
            self._left = self._kept

    def _settled(self, letter: Letter, settle: Callable[[Letter], Fate]) -> bool:
        """Settle a letter; return whether it stays."""
        if settle(letter) is Fate.DROPPED:
            return False
        self._targets.add(letter.key.name)
        return True


@contextmanager
def _alone(connection: Any, queue: str) -> Iterator[Any]:
    """Within this block no other poller looks at the letters; yield a channel, None when another one does."""
    channel, lock = connection.channel(), f"{dead(queue)}.looking"
    if not take_lock(channel, lock):
        yield None
        return
    try:
        yield channel
    finally:
        if channel.is_open:
            channel.queue_delete(lock)
            channel.close()


def _look(channel: Any, name: str, number: int, stays: Callable[[Letter], bool]) -> int:
    """Given a channel and the name of their queue, look at so many letters; return how many stay.

    One that stays is put at the end of the queue as a new message: RabbitMQ counts how often one was handed out, and drops
    it at some number.
    """
    channel.confirm_delivery()
    kept = 0
    for _ in range(number):
        method, properties, body = channel.basic_get(name)
        if method is None:
            break
        tell_unreadable(properties, name)
        headers = storable(properties.headers or {})
        if stays(read(body, headers)):
            again = pika.BasicProperties(delivery_mode=2, headers=headers, expiration=left_to_live(headers, time.time()))
            channel.basic_publish("", name, body, again, mandatory=True)
            kept += 1
        channel.basic_ack(method.delivery_tag)
    return kept


def left_to_live(headers: dict[str, Any], now: float) -> str | None:
    """Given the headers of a dead letter and the time, return for how many milliseconds it is still kept, as AMQP writes it:
    a week from its death, however often it is looked at. None when it does not say when that was."""
    try:
        died = headers["x-death"][0]["time"].replace(tzinfo=UTC).timestamp()
    except (*MALFORMED, IndexError):
        return None
    return str(round(min(max(1.0, WEEK_MILLISECONDS - (now - died) * 1000), WEEK_MILLISECONDS)))
