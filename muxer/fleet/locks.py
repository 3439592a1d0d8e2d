"""Locks of targets: exclusive queues, which RabbitMQ removes with the connection of a worker that dies."""

from __future__ import annotations

import logging
import os
import socket
import threading
from contextlib import suppress
from typing import Any

from pika.exceptions import ChannelClosed

from muxer.errors import MuxerError
from muxer.fleet.connection import RESOURCE_LOCKED, take_lock
from muxer.fleet.control_connection import ControlConnection

log = logging.getLogger(__name__)


class TargetLocks:
    """The locks of this worker. Safe to use from any thread, except for what takes the connection."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._held: set[str] = set()
        # The locks that were taken again on the present connection.
        self._restored: set[str] = set()
        self._channel: Any = None

    @property
    def locked_targets(self) -> frozenset[str]:
        """The targets that this worker is processing."""
        with self._lock:
            return frozenset(self._held)

    def restore_locks(self, connection: Any) -> None:
        """Check on a new `connection` that it may create locks, and take the held ones again. Raises the errors of pika."""
        self._channel = None
        self._restored.clear()
        probe = f"{socket.gethostname()}.{os.getpid()}"
        self._take_lock(connection, probe)
        self._drop_lock(connection, probe)
        with self._lock:
            held = list(self._held)
        for file in held:
            if self._take_lock(connection, file):
                self._restored.add(file)
            else:
                log.warning(
                    "another worker or the previous connection of this one has the lock of %s; one result is kept", file
                )

    def drop_left_locks(self, connection: Any) -> None:
        """Release the locks of targets whose jobs have ended while their locks were taken again."""
        for file in self._restored - self.locked_targets:
            self._drop_lock(connection, file)
            self._restored.discard(file)

    def acquire_lock(self, control: ControlConnection, file: str) -> bool:
        """Take the lock of a target; return False when another worker has it. Raises Transient without a connection."""
        with self._lock:
            if file in self._held:
                return False
            self._held.add(file)
        locked = False
        try:
            locked = control.run_task(lambda connection: self._take_lock(connection, file))
        except MuxerError:
            with suppress(MuxerError):
                control.submit_task(lambda connection: self._drop_lock(connection, file))  # It may still be taken.
            raise
        finally:
            if not locked:
                with self._lock:
                    self._held.discard(file)
        return locked

    def release_lock(self, control: ControlConnection, file: str) -> None:
        """Release a lock. When this raises Transient, its connection is closed, or drop_left_locks releases it later."""
        with self._lock:
            self._held.discard(file)
        control.submit_task(lambda connection: self._drop_lock(connection, file))

    def _queue_name(self, file: str) -> str:
        return f"{self._queue}.running.{file}"

    def _take_lock(self, connection: Any, file: str) -> bool:
        return take_lock(self._open_channel(connection), self._queue_name(file))

    def _drop_lock(self, connection: Any, file: str) -> None:
        try:
            self._open_channel(connection).queue_delete(self._queue_name(file))
        except ChannelClosed as error:
            if error.reply_code != RESOURCE_LOCKED:  # Another worker has it by now.
                raise

    def _open_channel(self, connection: Any) -> Any:
        """Return the channel of the locks; RabbitMQ closes it after a refused lock."""
        if self._channel is None or not self._channel.is_open:
            self._channel = connection.channel()
        return self._channel
