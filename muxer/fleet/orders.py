"""What a message to a worker says: which target to make. Ids only, no address and no secret: a worker reads the rest from
RWS, with the login of its own configuration. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard

from muxer.errors import Code, GivenUp
from muxer.fleet.events import text

# The form of a message. A worker refuses one of another form: it goes to the dead letters and is told to the pollers.
VERSION = 1
# No name of a target is longer (``MuxTarget.name``); ids of recordings are far shorter.
LONGEST_FILE, LONGEST_RECORDING = 100, 1000
# The lock of a target bears its name, and AMQP allows such names 255 bytes.
_PLAIN = re.compile(r"[ -~]+")


@dataclass(frozen=True)
class Order:
    """One target that a worker is to make: the id of its recording, its name (the ``file``), and how often it is tried."""

    recording: str
    file: str
    attempts: int = 1


def to_plain(order: Order) -> dict[str, Any]:
    """Given an order, return what its message holds."""
    return {"version": VERSION, **asdict(order)}


def from_plain(plain: Mapping[str, Any]) -> Order:
    """Given what a message holds, return the order. Raise :class:`GivenUp` when it has another form."""
    version = plain.get("version")
    if version != VERSION or isinstance(version, bool):
        raise GivenUp(f"an order of the form {version!r:.20}; this worker knows form {VERSION}", code=Code.UNKNOWN_ORDER)
    recording, file, attempts = plain.get("recording"), plain.get("file"), plain.get("attempts")
    if not (_is_name(recording, LONGEST_RECORDING) and _is_name(file, LONGEST_FILE) and _PLAIN.fullmatch(file)):
        raise GivenUp("an order without a recording or a file", code=Code.UNKNOWN_ORDER)
    if not isinstance(attempts, int) or isinstance(attempts, bool) or not 1 <= attempts <= 100:
        raise GivenUp(f"an order with {attempts!r:.20} attempts", code=Code.UNKNOWN_ORDER)
    return Order(recording, file, attempts)


def _is_name(value: object, longest: int) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= longest and value == text(value)
