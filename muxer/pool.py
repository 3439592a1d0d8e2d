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

from muxer.errors import Stopped
from muxer.selection import MuxTarget

log = logging.getLogger(__name__)

QUEUED_PER_WORKER = 4
LOOK_SECONDS = 0.2


class Pool:
    """Runs ``work`` on targets in threads of its own, which do not keep the process alive."""

    def __init__(
        self,
        work: Callable[[MuxTarget], None],
        workers: int,
        stop: threading.Event,
        may_begin: Callable[[], bool] = lambda: True,
    ) -> None:
        """Given what to do with a target, the number of threads and the event that ends them; ``may_begin`` is asked before
        a target is taken, and again and again while it says no."""
        self._work = work
        self._may_begin = may_begin
        self._stop = stop
        self._queue: queue.Queue[MuxTarget | None] = queue.Queue(workers * QUEUED_PER_WORKER)
        self._lock = threading.Lock()
        self._released = threading.Condition(self._lock)
        self._taken: dict[str, str] = {}
        self._threads = [threading.Thread(target=self._run, name=f"worker-{n}", daemon=True) for n in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, target: MuxTarget) -> bool:
        """Given a target, queue it; wait while nothing may begin and while the queue is full. Return False when it is queued
        or running already.

        Raise :class:`Stopped` when the process stops.
        """
        if not self._wait_until_it_may_begin():
            raise Stopped("stopped before the recording was begun")
        with self._lock:
            if target.name in self._taken:
                return False
            self._taken[target.name] = target.recording_id
        while not self._stop.is_set():
            try:
                self._queue.put(target, timeout=LOOK_SECONDS)
                return True
            except queue.Full:
                continue
        raise Stopped("stopped before the recording was begun")

    def holds(self, target: MuxTarget) -> bool:
        """Whether a target is queued or running."""
        with self._lock:
            return target.name in self._taken

    @property
    def idle(self) -> bool:
        """Whether nothing is queued or running."""
        with self._lock:
            return not self._taken

    @property
    def files(self) -> int:
        """How many targets are queued or running."""
        with self._lock:
            return len(self._taken)

    @property
    def recordings(self) -> int:
        """How many recordings have a target that is queued or running."""
        with self._lock:
            return len(set(self._taken.values()))

    def join(self) -> None:
        """Wait until all that was submitted is finished, or the process stops."""
        with self._released:
            while self._taken and not self._stop.is_set():
                self._released.wait(LOOK_SECONDS)

    def drain(self, seconds: float) -> bool:
        """Wait that long for the workers to end after the stop event was set; return whether all of them have."""
        deadline = time.monotonic() + seconds
        for _ in self._threads:
            with suppress(queue.Full):
                self._queue.put_nowait(None)  # wakes one that waits for work
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _wait_until_it_may_begin(self) -> bool:
        """Return True as soon as new work may begin, False when the process stops."""
        while not self._stop.is_set():
            if self._may_begin():
                return True
            self._stop.wait(LOOK_SECONDS)
        return False

    def _run(self) -> None:
        while self._wait_until_it_may_begin():
            try:
                target = self._queue.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            if target is None:
                continue
            try:
                self._work(target)
            except Stopped:
                continue  # what a stop has cut off is still open
            except Exception:
                log.exception("a worker met an error that nobody expected; it goes on with the next recording")
            self._release(target)

    def _release(self, target: MuxTarget) -> None:
        with self._released:
            self._taken.pop(target.name, None)
            self._released.notify_all()
