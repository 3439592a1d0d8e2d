"""Reads messages with properties that pika cannot decode without losing the connection.

A member of the virtual host may give a message any headers. pika raises while it reads the frame, before the message can be
rejected, so that RabbitMQ would deliver it forever.
"""

from __future__ import annotations

import logging
from typing import Any

from pika import data, spec

log = logging.getLogger(__name__)


class TolerantProperties(spec.BasicProperties):  # type: ignore[misc]
    """The properties of a message. `unreadable` is the reason when they could not be decoded."""

    unreadable = ""

    def decode(self, encoded: bytes, offset: int = 0) -> Any:
        """Decode the properties; leave them empty when that fails."""
        try:
            return super().decode(encoded, offset)
        except Exception as error:  # ValueError, OverflowError, RecursionError and those of pika
            self.__dict__ = vars(spec.BasicProperties())
            self.unreadable = f"{type(error).__name__}: {error}"[:200]
            return self


def install_tolerant_properties() -> None:
    """Make pika use these properties in the whole process."""
    spec.props[TolerantProperties.INDEX] = TolerantProperties


def storable_headers(headers: dict[str, Any]) -> dict[str, Any]:
    """Return the `headers` that pika can encode again."""
    return {name: value for name, value in headers.items() if _is_storable(name, value)}


def _is_storable(name: str, value: object) -> bool:
    try:
        data.encode_table([], {name: value})
    except Exception:  # as above
        return False
    return True


def log_unreadable(properties: Any, queue: str) -> None:
    """Log a warning when the properties of a message could not be decoded."""
    if reason := getattr(properties, "unreadable", ""):
        log.warning("cannot decode the headers of a message in the queue %s (%s); they are ignored", queue, reason)
