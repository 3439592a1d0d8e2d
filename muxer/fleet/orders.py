"""What a message to a worker says: which target to make. Ids only, no address and no secret: a worker reads the rest from
RWS, with the login of its own configuration. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard

from muxer.errors import Code, OrderFailed
from muxer.fleet.events import to_storable_text

# The form of a message. A worker refuses one of another form: it goes to the dead letters and is told to the pollers.
ORDER_VERSION = 1
# No name of a target is longer (``MuxTarget.name``); ids of recordings are far shorter.
MAX_FILE_LENGTH, MAX_RECORDING_LENGTH = 100, 1000
# The lock of a target bears its name, and AMQP allows such names 255 bytes.
_PRINTABLE_ASCII = re.compile(r"[ -~]+")


@dataclass(frozen=True)
class Order:
    """One target that a worker is to make: the id of its recording, its name (the ``file``), and how often it is tried."""

    recording: str
    file: str
    attempts: int = 1


def order_to_dict(order: Order) -> dict[str, Any]:
    """Given an order, return what its message holds."""
    return {"version": ORDER_VERSION, **asdict(order)}


def order_from_dict(plain: Mapping[str, Any]) -> Order:
    """Given what a message holds, return the order. Raise :class:`OrderFailed` when it has another form."""
    version = plain.get("version")
    if version != ORDER_VERSION or isinstance(version, bool):
        raise OrderFailed(
            f"an order of the form {version!r:.20}; this worker knows form {ORDER_VERSION}", code=Code.UNKNOWN_ORDER
        )
    recording, file, attempts = plain.get("recording"), plain.get("file"), plain.get("attempts")
    if not (
        _is_name(recording, MAX_RECORDING_LENGTH) and _is_name(file, MAX_FILE_LENGTH) and _PRINTABLE_ASCII.fullmatch(file)
    ):
        raise OrderFailed("an order without a recording or a file", code=Code.UNKNOWN_ORDER)
    if not isinstance(attempts, int) or isinstance(attempts, bool) or not 1 <= attempts <= 100:
        raise OrderFailed(f"an order with {attempts!r:.20} attempts", code=Code.UNKNOWN_ORDER)
    return Order(recording, file, attempts)


def _is_name(value: object, longest: int) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= longest and value == to_storable_text(value)
