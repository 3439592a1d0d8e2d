"""Message properties that pika cannot decode: the message is read without them, and the connection lives on.

A member of the virtual host may give a message any headers: a time after the year 9999, thousands of nested
tables, a field of an unknown type. pika raises while it reads the frame, which ends the connection before the
message can be rejected; so it would be delivered again without end.
"""

from __future__ import annotations

import logging
from typing import Any

from pika import data, spec

log = logging.getLogger(__name__)


class TolerantProperties(spec.BasicProperties):  # type: ignore[misc]
    """The properties of a message. ``unreadable``: why they could not be decoded, empty when they were."""

    unreadable = ""

    def decode(self, encoded: bytes, offset: int = 0) -> Any:
        """Read them from `encoded`; those that cannot be read are left out."""
        try:
            return super().decode(encoded, offset)
        except Exception as error:  # pika raises what its parts raise: ValueError, OverflowError, RecursionError, its own
            self.__dict__ = vars(spec.BasicProperties())
            self.unreadable = f"{type(error).__name__}: {error}"[:200]
            return self


def install_tolerant_properties() -> None:
    """Make pika read properties in this way, in the whole process."""
    spec.props[TolerantProperties.INDEX] = TolerantProperties


def storable_headers(headers: dict[str, Any]) -> dict[str, Any]:
    """Return those of the `headers` that can be written again: what is read need not be."""
    return {name: value for name, value in headers.items() if _is_storable(name, value)}


def _is_storable(name: str, value: object) -> bool:
    try:
        data.encode_table([], {name: value})
    except Exception:  # as above
        return False
    return True


def log_unreadable(properties: Any, queue: str) -> None:
    """Log that the properties of a message from a `queue` could not be decoded, if so."""
    if why := getattr(properties, "unreadable", ""):
        log.warning("a message in the queue %s has headers that cannot be decoded (%s); it is read without them", queue, why)
