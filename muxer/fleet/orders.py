"""The message of a task: ids only, no address and no secret; the worker reads the rest from RWS. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard

from muxer.errors import Code, OrderFailed
from muxer.fleet.events import to_storable_text

# The version of the format. A worker rejects other versions: the message becomes a dead letter and the pollers are notified.
ORDER_VERSION = 1
# Names of targets (`MuxTarget.file_name`) are not longer; ids of recordings are much shorter.
MAX_FILE_LENGTH, MAX_RECORDING_LENGTH = 100, 1000
# The lock of a target has its name; AMQP limits such names to 255 bytes.
_PRINTABLE_ASCII = re.compile(r"[ -~]+")


@dataclass(frozen=True)
class Order:
    """A task: the id of the recording, the name of the target (`file`), and the number of attempts."""

    recording: str
    file: str
    attempts: int = 1


def order_to_dict(order: Order) -> dict[str, Any]:
    """Return the contents of the message."""
    return {"version": ORDER_VERSION, **asdict(order)}


def order_from_dict(plain: Mapping[str, Any]) -> Order:
    """Return the task for the contents of a message. Raises OrderFailed when they are malformed."""
    version = plain.get("version")
    if version != ORDER_VERSION or isinstance(version, bool):
        raise OrderFailed(
            f"task format {version!r:.20} is unknown; this worker reads format {ORDER_VERSION}", code=Code.UNKNOWN_ORDER
        )
    recording, file, attempts = plain.get("recording"), plain.get("file"), plain.get("attempts")
    if not (
        _is_name(recording, MAX_RECORDING_LENGTH) and _is_name(file, MAX_FILE_LENGTH) and _PRINTABLE_ASCII.fullmatch(file)
    ):
        raise OrderFailed("a task without a recording or a file", code=Code.UNKNOWN_ORDER)
    if not isinstance(attempts, int) or isinstance(attempts, bool) or not 1 <= attempts <= 100:
        raise OrderFailed(f"a task with {attempts!r:.20} attempts", code=Code.UNKNOWN_ORDER)
    return Order(recording, file, attempts)


def _is_name(value: object, max_length: int) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= max_length and value == to_storable_text(value)
