"""Dead letters: tasks that no worker could finish. Each sets its target aside once, and stays at most a week."""

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

# Letters read in one scan; the other work of the control connection waits for it.
SCAN_BATCH_SIZE = 200


class Disposition(Enum):
    """The handling of a dead letter: set its target aside and keep it, keep it, or drop it."""

    SET_ASIDE = "set aside"
    LEFT = "left"
    DROPPED = "dropped"


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter: the id of its message, its target as far as it is readable, and the reason."""

    message: str
    key: TargetKey
    error: OrderFailed


def parse_dead_letter(body: bytes, headers: dict[str, Any]) -> DeadLetter:
    """Return the dead letter of a message."""
    try:
        plain = json.loads(body)
        message, order = str(plain["message_id"]), plain["kwargs"]
        key = TargetKey(to_storable_text(order.get("file", "")), to_storable_text(order.get("recording", "")))
    except MALFORMED_ERRORS:
        message, key = "", TargetKey("", "")
    if str(headers.get("x-first-death-reason", "")) == "delivery_limit":
        reason = f"{MAX_DELIVERIES + 1} workers received this task and none of them finished it"
        return DeadLetter(message, key, OrderFailed(reason, code=Code.NEVER_FINISHED))
    return DeadLetter(message, key, OrderFailed("a worker could not read this task", code=Code.UNKNOWN_ORDER))


def choose_disposition(letter: DeadLetter, held: OutstandingOrder | None, state: str) -> Disposition:
    """Return the handling of a letter. Only the letter of the outstanding task `held` is new."""
    if held is not None:
        return Disposition.SET_ASIDE if held.message in (letter.message, "") else Disposition.DROPPED
    return Disposition.DROPPED if state == DONE else Disposition.LEFT


class DeadLetterScanner:
    """Scans the `count` dead letters in batches, whenever there are more than the last scan left or on request."""

    def __init__(self) -> None:
        self.count = 0
        self._targets: set[str] = set()
        # The letters that the last scan left, that this one kept, and that it has not read yet.
        self._left = self._kept = self._ahead = 0

    def request_full_scan(self, target: str | None = None) -> None:
        """Start a new scan; with `target`, only if one of the letters is of that target."""
        if target is None or target in self._targets:
            self._targets.discard(target or "")
            self._left = -1

    def scan_next(self, connection: Any, queue: str, count: int, settle: Callable[[DeadLetter], Disposition]) -> None:
        """Scan the next batch. `count` is the number of letters; `settle` handles one. Raises the errors of pika."""
        self.count = count
        if self._ahead or count != self._left:
            # While another poller scans, the count is not exact.
            with _exclusive_channel(connection, queue) as channel:
                if channel is not None:
                    self._continue_scan(channel, dead_letter_queue(queue), settle)

    def _continue_scan(self, channel: Any, name: str, settle: Callable[[DeadLetter], Disposition]) -> None:
        self.count = count = count_waiting(channel, name)
        if not self._ahead:
            if count <= self._left:
                self._left = count  # Some have expired or were removed.
                return
            self._left, self._kept, self._ahead = count, 0, count
            self._targets.clear()
        scanned = min(SCAN_BATCH_SIZE, self._ahead)
        kept = _scan_letters(channel, name, scanned, lambda letter: self._settle_letter(letter, settle))
        self._ahead -= scanned
        self._kept += kept
        self.count -= scanned - kept
        if not self._ahead and self._left >= 0:
            self._left = self._kept

    def _settle_letter(self, letter: DeadLetter, settle: Callable[[DeadLetter], Disposition]) -> bool:
        """Handle a letter; return whether it stays."""
        if settle(letter) is Disposition.DROPPED:
            return False
        self._targets.add(letter.key.name)
        return True


@contextmanager
def _exclusive_channel(connection: Any, queue: str) -> Iterator[Any]:
    """Hold the lock of the scan within this block; yield a channel, None when another poller scans."""
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
    """Scan at most `number` letters; return the number that stay: those are published again at the end of the queue."""
    channel.confirm_delivery()
    kept = 0
    for _ in range(number):
        method, properties, body = channel.basic_get(name)
        if method is None:
            break
        log_unreadable(properties, name)
        headers = storable_headers(properties.headers or {})
        if stays(parse_dead_letter(body, headers)):
            fresh = pika.BasicProperties(delivery_mode=2, headers=headers, expiration=remaining_ttl(headers, time.time()))
            channel.basic_publish("", name, body, fresh, mandatory=True)
            kept += 1
        channel.basic_ack(method.delivery_tag)
    return kept


def remaining_ttl(headers: dict[str, Any], now: float) -> str | None:
    """Return the milliseconds until a week after the death, as text for AMQP. None when its time is unknown."""
    try:
        died = headers["x-death"][0]["time"].replace(tzinfo=UTC).timestamp()
    except (*MALFORMED_ERRORS, IndexError):
        return None
    return str(round(min(max(1.0, WEEK_MILLISECONDS - (now - died) * 1000), WEEK_MILLISECONDS)))
