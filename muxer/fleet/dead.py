"""The dead letters: orders that no worker could read, or finish. Each is told once, by setting its target aside; the letter
stays where it is, for whoever wants to read it, until its target is ordered anew or done, or for a week.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pika

from muxer.errors import Code, GivenUp
from muxer.fleet.connection import DELIVERIES, waiting_in
from muxer.fleet.events import MALFORMED, text
from muxer.fleet.held import Held
from muxer.fleet.lanes import dead
from muxer.journal import DONE, Key

log = logging.getLogger(__name__)

# So many are looked at in one go.
LOOKED_AT = 1000


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


def look(connection: Any, queue: str, settle: Callable[[Letter], Fate]) -> int:
    """Given a connection, the option ``queue`` and what settles a letter, look at all dead letters; return how many stay.

    A letter that stays is put at the end of the queue as a new message: RabbitMQ counts how often one was handed out, and
    drops it at some number. Raise the errors of pika.
    """
    channel, name = connection.channel(), dead(queue)
    channel.confirm_delivery()
    kept = 0
    try:
        for _ in range(min(LOOKED_AT, waiting_in(channel, name))):
            method, properties, body = channel.basic_get(name)
            if method is None:
                break
            if settle(read(body, properties.headers or {})) is not Fate.DROPPED:
                again = pika.BasicProperties(delivery_mode=2, headers=properties.headers)
                channel.basic_publish("", name, body, again, mandatory=True)
                kept += 1
            channel.basic_ack(method.delivery_tag)
    finally:
        if channel.is_open:
            channel.close()
    return kept
