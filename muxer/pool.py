"""The worker threads, and the seam behind which another engine can stand: ``submit``, ``join``, ``drain``.

Model: the worker of dramatiq. The queue is short, so that memory does not grow with the backlog; a target that is queued
or running is not taken twice.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from muxer.selection import MuxTarget

log = logging.getLogger(__name__)

QUEUED_PER_WORKER = 4
LOOK_SECONDS = 0.2


class Pool:
    """Runs ``work`` on targets in threads of its own, which do not keep the process alive."""

    def __init__(self, work: Callable[[MuxTarget], None], workers: int, stop: threading.Event) -> None:
        self._work = work
        self._stop = stop
        self._queue: queue.Queue[MuxTarget | None] = queue.Queue(workers * QUEUED_PER_WORKER)
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        self._threads = [threading.Thread(target=self._run, name=f"worker-{n}", daemon=True) for n in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, target: MuxTarget) -> bool:
        """Given a target, queue it; wait while the queue is full. Return False when it is queued or running already, or
        the process stops."""
        with self._lock:
            if target.name in self._taken:
                return False
            self._taken.add(target.name)
        while not self._stop.is_set():
            try:
                self._queue.put(target, timeout=LOOK_SECONDS)
                return True
            except queue.Full:
                continue
        self._release(target)
        return False

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or running."""
        with self._lock:
            return not self._taken

    def join(self) -> None:
        """Wait until all that was submitted is finished, or the process stops."""
        while not self.idle and not self._stop.is_set():
            time.sleep(LOOK_SECONDS / 4)

    def drain(self, seconds: float) -> bool:
        """Wait that long for the workers to end after the stop event was set; return whether all of them have."""
        deadline = time.monotonic() + seconds
        for _ in self._threads:
            with suppress(queue.Full):
                self._queue.put_nowait(None)  # wakes one that waits for work
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                target = self._queue.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            if target is None:
                continue
            try:
                self._work(target)
            except Exception:
                log.exception("a worker met an error that nobody expected; it goes on with the next recording")
            finally:
                self._release(target)

    def _release(self, target: MuxTarget) -> None:
        with self._lock:
            self._taken.discard(target.name)
