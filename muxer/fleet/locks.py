"""Which targets a worker works on, so that no other begins the same: an exclusive queue for each, which RabbitMQ removes
with the connection of a worker that dies.
"""

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
    """The targets of this worker. Safe to use from any thread, but for :meth:`opened`."""

    def __init__(self, queue: str) -> None:
        """Given the option ``queue``."""
        self._queue = queue
        self._lock = threading.Lock()
        self._held: set[str] = set()
        self._channel: Any = None

    @property
    def locked_targets(self) -> frozenset[str]:
        """The targets that this worker works on."""
        with self._lock:
            return frozenset(self._held)

    def restore_locks(self, connection: Any) -> None:
        """The line has a new connection: see that it may make locks, and take again what is held. Raise the
        errors of pika."""
        self._channel = None
        probe = f"{socket.gethostname()}.{os.getpid()}"
        self._take_lock(connection, probe)
        self._drop_lock(connection, probe)
        with self._lock:
            held = list(self._held)
        for file in held:
            if not self._take_lock(connection, file):
                log.warning("another worker, or our earlier connection, has the lock of %s; one result is kept", file)

    def acquire_lock(self, line: ControlConnection, file: str) -> bool:
        """Given the line and a target, take its lock; return False when it is taken. Raise
        :class:`~muxer.errors.Transient`."""
        with self._lock:
            if file in self._held:
                return False
            self._held.add(file)
        taken = False
        try:
            taken = line.run_task(lambda connection: self._take_lock(connection, file))
        except MuxerError:
            with suppress(MuxerError):
                line.submit_task(lambda connection: self._drop_lock(connection, file))  # it may be taken yet
            raise
        finally:
            if not taken:
                with self._lock:
                    self._held.discard(file)
        return taken

    def release_lock(self, line: ControlConnection, file: str) -> None:
        """Give a lock back. Raise :class:`~muxer.errors.Transient`, and then it is given back all the same: its connection
        is gone."""
        with self._lock:
            self._held.discard(file)
        line.submit_task(lambda connection: self._drop_lock(connection, file))

    def _queue_name(self, file: str) -> str:
        return f"{self._queue}.running.{file}"

    def _take_lock(self, connection: Any, file: str) -> bool:
        return take_lock(self._open_channel(connection), self._queue_name(file))

    def _drop_lock(self, connection: Any, file: str) -> None:
        try:
            self._open_channel(connection).queue_delete(self._queue_name(file))
        except ChannelClosed as error:
            if error.reply_code != RESOURCE_LOCKED:  # another worker's by now
                raise

    def _open_channel(self, connection: Any) -> Any:
        """Return the channel of the locks; a refusal closes one."""
        if self._channel is None or not self._channel.is_open:
            self._channel = connection.channel()
        return self._channel
