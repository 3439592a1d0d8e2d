"""The interface between polls and targets, and the executor of this process: threads with a short queue."""

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
    """Receives the targets that a poll finds."""

    def begin_poll(self) -> None:
        """Note that a poll starts; it goes through its targets in one or more passes."""
        return

    @abstractmethod
    def submit(self, target: MuxTarget) -> bool:
        """Accept `target`; False when it is queued, running or waits. Raises Stopped, and ServiceUnavailable."""

    def holds(self, name: str) -> bool:
        """Return whether the target with this file `name` is queued or running."""
        return False

    def mark_finished(self, target: MuxTarget) -> None:  # noqa: B027 - most have nothing to do
        """Note that the poll has found nothing left to do for `target`."""

    def flush(self) -> int:
        """End a pass. Returns how many of the targets that waited for its end are accepted now."""
        return 0

    @property
    def needs_targets_now(self) -> bool:
        """Whether targets wait for the end of the pass while workers are about to become idle."""
        return False

    def rejects_older_than(self, minutes: float) -> bool:
        """Return whether targets of calls older than `minutes` are currently rejected."""
        return False


class TargetExecutor(TargetSink):
    """Executes targets, here or in a fleet. `stop_warning` is logged when it does not end in time."""

    stop_warning = "recordings in progress are abandoned; they are processed after the next start"

    @property
    def has_capacity_again(self) -> bool:
        """Whether targets that the last poll could not submit would be accepted now."""
        return False

    @property
    @abstractmethod
    def target_count(self) -> int:
        """The number of targets that are queued or running."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued or running."""
        return not self.target_count

    @property
    @abstractmethod
    def recording_count(self) -> int:
        """The number of recordings with a target that is queued or running."""

    @abstractmethod
    def wait_for_all(self) -> None:
        """Wait until all submitted targets are finished, or the process stops."""

    @abstractmethod
    def wait_for_running(self, seconds: float) -> bool:
        """Wait up to `seconds` for running targets after the stop event was set. Returns whether all have ended."""


class ThreadExecutor(TargetExecutor):
    """Executes targets in daemon threads."""

    def __init__(
        self,
        work: Callable[[MuxTarget], None],
        workers: int,
        stop: threading.Event,
        may_begin: Callable[[], bool] = lambda: True,
        on_accepted: Callable[[MuxTarget], None] = lambda _: None,
    ) -> None:
        """Start the threads. `may_begin` is polled before each target, `on_accepted` called before it is queued."""
        self._work = work
        self._on_accepted = on_accepted
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
        """Queue `target`, once there is room; False when it is queued or running already. Raises Stopped."""
        if self.holds(target.file_name):
            return False
        if not self._wait_for_capacity():
            raise Stopped("stopped before the recording was started")
        with self._lock:
            if target.file_name in self._taken:
                return False
            self._taken[target.file_name] = target.recording_id
        # Before it is queued: a worker may finish it at once.
        self._on_accepted(target)
        while not self._stop.is_set():
            try:
                self._queue.put(target, timeout=CAPACITY_CHECK_INTERVAL)
                return True
            except queue.Full:
                continue
        raise Stopped("stopped before the recording was started")

    def holds(self, name: str) -> bool:
        """Return whether a target is queued or running."""
        with self._lock:
            return name in self._taken

    @property
    def target_count(self) -> int:
        """The number of targets that are queued or running."""
        with self._lock:
            return len(self._taken)

    @property
    def recording_count(self) -> int:
        """The number of recordings with a target that is queued or running."""
        with self._lock:
            return len(set(self._taken.values()))

    def wait_for_all(self) -> None:
        """Wait until all submitted targets are finished, or the process stops."""
        with self._released:
            while self._taken and not self._stop.is_set():
                self._released.wait(CAPACITY_CHECK_INTERVAL)

    def wait_for_running(self, seconds: float) -> bool:
        """Wait up to `seconds` for the threads after the stop event was set. Returns whether all have ended."""
        deadline = time.monotonic() + seconds
        for _ in self._threads:
            with suppress(queue.Full):
                self._queue.put_nowait(None)  # wakes an idle thread
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _wait_for_capacity(self) -> bool:
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
                continue  # it stays in progress
            except Exception:
                log.exception("unexpected error in a worker thread; it continues with the next recording")
            self._forget_target(target)

    def _forget_target(self, target: MuxTarget) -> None:
        with self._released:
            self._taken.pop(target.file_name, None)
            self._released.notify_all()
