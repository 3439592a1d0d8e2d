"""The seam between what finds targets and what does them (:class:`Engine`), and the engine that does them here, in threads.

Model: the worker of dramatiq. The queue is short, so that memory does not grow with the backlog; a target that is queued
or running is not taken twice.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress

from muxer.errors import Stopped
from muxer.gir.targets import MuxTarget

log = logging.getLogger(__name__)

QUEUED_PER_WORKER = 4
CAPACITY_CHECK_INTERVAL = 0.2


class TargetSink(ABC):
    """What a poll hands its targets to."""

    def begin_poll(self) -> None:
        """A poll begins, which goes through its targets in one pass or more."""
        return

    @abstractmethod
    def submit(self, target: MuxTarget) -> bool:
        """Given a target, take it; return False when it is queued or running already, or waits for the end of the pass.
        Raise :class:`Stopped` when the process stops, :class:`~muxer.errors.ServiceUnavailable`."""

    def mark_finished(self, target: MuxTarget) -> None:  # noqa: B027 - most have nothing to do
        """The poll has found nothing left to do for a `target`."""

    def flush(self) -> int:
        """A pass is over: return how many targets that waited for that are taken now."""
        return 0

    @property
    def needs_targets_now(self) -> bool:
        """Whether targets wait for the end of the pass, and what does the work will soon have none."""
        return False

    def rejects_older_than(self, minutes: float) -> bool:
        """Whether targets of calls that are older than so many minutes are not taken at the moment."""
        return False


class TargetExecutor(TargetSink):
    """What does targets: :class:`Pool` in this process, or a fleet (:class:`muxer.fleet.executor.FleetPool`). ``cut_off`` is
    what it means when it does not end in time."""

    stop_warning = "recordings that are still being worked on are given up; they are done after the next start"

    @property
    def has_capacity_again(self) -> bool:
        """Whether what the last poll has found and could not hand over would be taken now."""
        return False

    @property
    @abstractmethod
    def target_count(self) -> int:
        """How many targets are queued or running."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued or running."""
        return not self.target_count

    @property
    @abstractmethod
    def recording_count(self) -> int:
        """How many recordings have a target that is queued or running."""

    @abstractmethod
    def wait_for_all(self) -> None:
        """Wait until all that was submitted is finished, or the process stops."""

    @abstractmethod
    def wait_for_running(self, seconds: float) -> bool:
        """Wait that long for the end of what runs here, after the stop event was set; return whether all has ended."""


class ThreadExecutor(TargetExecutor):
    """Runs ``work`` on targets in threads of its own, which do not keep the process alive."""

    def __init__(
        self,
        work: Callable[[MuxTarget], None],
        workers: int,
        stop: threading.Event,
        may_begin: Callable[[], bool] = lambda: True,
        taken: Callable[[MuxTarget], None] = lambda _: None,
    ) -> None:
        """Given what to do with a target, the number of threads and the event that ends them; ``may_begin`` is asked before
        a target is taken, and again and again while it says no; ``taken`` is told of each before it is queued."""
        self._work = work
        self._told = taken
        self._may_begin = may_begin
        self._stop = stop
        self._queue: queue.Queue[MuxTarget | None] = queue.Queue(workers * QUEUED_PER_WORKER)
        self._lock = threading.Lock()
        self._released = threading.Condition(self._lock)
        self._taken: dict[str, str] = {}
        self._threads = [threading.Thread(target=self._run_worker, name=f"worker-{n}", daemon=True) for n in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, target: MuxTarget) -> bool:
        """Given a target, queue it; wait while nothing may begin and while the queue is full. Return False when it is queued
        or running already.

        Raise :class:`Stopped` when the process stops.
        """
        if self._is_known(target):
            return False
        if not self._wait_for_capacity():
            raise Stopped("stopped before the recording was begun")
        with self._lock:
            if target.file_name in self._taken:
                return False
            self._taken[target.file_name] = target.recording_id
        # Before it is queued: a worker may be done with it at once.
        self._told(target)
        while not self._stop.is_set():
            try:
                self._queue.put(target, timeout=CAPACITY_CHECK_INTERVAL)
                return True
            except queue.Full:
                continue
        raise Stopped("stopped before the recording was begun")

    @property
    def target_count(self) -> int:
        """How many targets are queued or running."""
        with self._lock:
            return len(self._taken)

    @property
    def recording_count(self) -> int:
        """How many recordings have a target that is queued or running."""
        with self._lock:
            return len(set(self._taken.values()))

    def wait_for_all(self) -> None:
        """Wait until all that was submitted is finished, or the process stops."""
        with self._released:
            while self._taken and not self._stop.is_set():
                self._released.wait(CAPACITY_CHECK_INTERVAL)

    def wait_for_running(self, seconds: float) -> bool:
        """Wait that long for the workers to end after the stop event was set; return whether all of them have."""
        deadline = time.monotonic() + seconds
        for _ in self._threads:
            with suppress(queue.Full):
                self._queue.put_nowait(None)  # wakes one that waits for work
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _is_known(self, target: MuxTarget) -> bool:
        with self._lock:
            return target.file_name in self._taken

    def _wait_for_capacity(self) -> bool:
        """Return True as soon as new work may begin, False when the process stops."""
        while not self._stop.is_set():
            if self._may_begin():
                return True
            self._stop.wait(CAPACITY_CHECK_INTERVAL)
        return False

    def _run_worker(self) -> None:
        while self._wait_for_capacity():
            try:
                target = self._queue.get(timeout=CAPACITY_CHECK_INTERVAL)
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
            self._forget_target(target)

    def _forget_target(self, target: MuxTarget) -> None:
        with self._released:
            self._taken.pop(target.file_name, None)
            self._released.notify_all()
