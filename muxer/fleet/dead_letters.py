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

from muxer.errors import Code, OrderFailed
from muxer.fleet.connection import MAX_DELIVERIES, WEEK_MILLISECONDS, count_waiting, take_lock
from muxer.fleet.events import to_storable_text
from muxer.fleet.message_properties import log_unreadable, storable_headers
from muxer.fleet.outstanding_orders import OutstandingOrder
from muxer.fleet.priority_queues import dead_letter_queue
from muxer.journal.journal import DONE, TargetKey
from muxer.system.json_codec import MALFORMED_ERRORS

# So many are looked at in one go: what else the poller does with its line waits for it.
SCAN_BATCH_SIZE = 200


class Disposition(Enum):
    """What becomes of a dead letter: its target is set aside, and it stays; it stays; it is dropped."""

    SET_ASIDE = "set aside"
    LEFT = "left"
    DROPPED = "dropped"


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter: the id of its message, its target as far as that can be read, and why it is dead."""

    message: str
    key: TargetKey
    error: OrderFailed


def parse_dead_letter(body: bytes, headers: dict[str, Any]) -> DeadLetter:
    """Given a message and its headers, return the letter."""
    try:
        plain = json.loads(body)
        message, order = str(plain["message_id"]), plain["kwargs"]
        key = TargetKey(to_storable_text(order.get("file", "")), to_storable_text(order.get("recording", "")))
    except MALFORMED_ERRORS:
        message, key = "", TargetKey("", "")
    if str(headers.get("x-first-death-reason", "")) == "delivery_limit":
        why = f"{MAX_DELIVERIES + 1} workers were given this order, and none of them finished it"
        return DeadLetter(message, key, OrderFailed(why, code=Code.NEVER_FINISHED))
    return DeadLetter(message, key, OrderFailed("a worker could not read this order", code=Code.UNKNOWN_ORDER))


def choose_disposition(letter: DeadLetter, held: OutstandingOrder | None, state: str) -> Disposition:
    """Given a letter, what is known of its target if that is out, and the target's state in the journal, return what becomes
    of it. Only the letter of the order that is out tells something new."""
    if held is not None:
        return Disposition.SET_ASIDE if held.message in (letter.message, "") else Disposition.DROPPED
    return Disposition.DROPPED if state == DONE else Disposition.LEFT


class DeadLetterScanner:
    """The queue of dead letters as a poller looks at it: all of them when there are more than it has left there, or it is
    asked to, some at a time. ``count`` = how many there are."""

    def __init__(self) -> None:
        self.count = 0
        self._targets: set[str] = set()
        # How many the last round has left, this one has, and how many it has not yet come to.
        self._left = self._kept = self._ahead = 0

    def request_full_scan(self, target: str | None = None) -> None:
        """Look at all of them anew; given the name of a ``target``, only when one of them is that target's."""
        if target is None or target in self._targets:
            self._targets.discard(target or "")
            self._left = -1

    def scan_next(self, connection: Any, queue: str, count: int, settle: Callable[[DeadLetter], Disposition]) -> None:
        """Given a connection, the option ``queue``, how many letters there are and what settles one, look at the next ones.
        Raise the errors of pika."""
        self.count = count
        if self._ahead or count != self._left:
            # While another poller looks, one is in its hands: the number is not the true one, and nothing of this is news.
            with _exclusive_channel(connection, queue) as channel:
                if channel is not None:
                    self._continue_scan(channel, dead_letter_queue(queue), settle)

    def _continue_scan(self, channel: Any, name: str, settle: Callable[[DeadLetter], Disposition]) -> None:
        self.count = count = count_waiting(channel, name)
        if not self._ahead:
            if count <= self._left:
                self._left = count  # some have expired, or were taken out
                return
            self._left, self._kept, self._ahead = count, 0, count
            self._targets.clear()
        looked_at = min(SCAN_BATCH_SIZE, self._ahead)
        kept = _scan_letters(channel, name, looked_at, lambda letter: self._settle_letter(letter, settle))
        self._ahead -= looked_at
        self._kept += kept
        self.count -= looked_at - kept
        if not self._ahead and self._left >= 0:
            self._left = self._kept

    def _settle_letter(self, letter: DeadLetter, settle: Callable[[DeadLetter], Disposition]) -> bool:
        """Settle a letter; return whether it stays."""
        if settle(letter) is Disposition.DROPPED:
            return False
        self._targets.add(letter.key.name)
        return True


@contextmanager
def _exclusive_channel(connection: Any, queue: str) -> Iterator[Any]:
    """Within this block no other poller looks at the letters; yield a channel, None when another one does."""
    channel, lock = connection.channel(), f"{dead_letter_queue(queue)}.looking"
    if not take_lock(channel, lock):
        yield None
        return
    try:
        yield channel
    finally:
        if channel.is_open:
            channel.queue_delete(lock)
            channel.close()


def _scan_letters(channel: Any, name: str, number: int, stays: Callable[[DeadLetter], bool]) -> int:
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
        log_unreadable(properties, name)
        headers = storable_headers(properties.headers or {})
        if stays(parse_dead_letter(body, headers)):
            again = pika.BasicProperties(delivery_mode=2, headers=headers, expiration=remaining_ttl(headers, time.time()))
            channel.basic_publish("", name, body, again, mandatory=True)
            kept += 1
        channel.basic_ack(method.delivery_tag)
    return kept


def remaining_ttl(headers: dict[str, Any], now: float) -> str | None:
    """Given the headers of a dead letter and the time, return for how many milliseconds it is still kept, as AMQP writes it:
    a week from its death, however often it is looked at. None when it does not say when that was."""
    try:
        died = headers["x-death"][0]["time"].replace(tzinfo=UTC).timestamp()
    except (*MALFORMED_ERRORS, IndexError):
        return None
    return str(round(min(max(1.0, WEEK_MILLISECONDS - (now - died) * 1000), WEEK_MILLISECONDS)))
