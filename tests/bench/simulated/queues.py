"""The broker's queues and the workers that empty them."""

from __future__ import annotations

from array import array
from bisect import bisect
from collections import deque
from collections.abc import Callable

from muxer.fleet.priority_queues import PRIORITY_QUEUES
from tests.bench.simulated.events import EventLoop

QUEUE_AGES = [queue.age for queue in PRIORITY_QUEUES]


class SimulatedWorkers:
    """Queues with a common limit, and threads that take the first message of the newest queue when they are free.

    `job_seconds`: the duration of a job by recording and number of running jobs. `begun`, `done`: called with the
    recording at the start and the end of its job. ``waits``: seconds in the queue of each started job.
    """

    def __init__(
        self,
        events: EventLoop,
        threads: int,
        max_queue: float,
        job_seconds: Callable[[int, int], float],
        begun: Callable[[int], None] = lambda _: None,
        done: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._events, self._threads, self._max_queue = events, threads, max_queue
        self._job_seconds, self._begun, self._done = job_seconds, begun, done
        self._lanes: tuple[deque[tuple[int, float]], ...] = tuple(deque() for _ in PRIORITY_QUEUES)
        self.queued = self.busy = self.deepest = 0
        self.waits = array("d")
        self.worked = 0.0

    def has_room(self, queue: int) -> bool:
        """Return whether a queue has capacity for one more message."""
        return self.queued < PRIORITY_QUEUES[queue].share * self._max_queue

    def queue_recording(self, recording: int, queue: int) -> None:
        """Put a recording into a queue; a free thread takes it at once."""
        self._lanes[queue].append((recording, self._events.now))
        self.queued += 1
        self.deepest = max(self.deepest, self.queued)
        if self.busy < self._threads:
            self._take_next()

    def _take_next(self) -> None:
        queue = next(queue for queue in self._lanes if queue)
        recording, since = queue.popleft()
        self.queued -= 1
        self.busy += 1
        now = self._events.now
        self.waits.append(now - since)
        seconds = self._job_seconds(recording, self.busy)
        self.worked += seconds
        self._begun(recording)
        self._events.schedule_action(now + seconds, self._finish_job, recording)

    def _finish_job(self, recording: int) -> None:
        self.busy -= 1
        self._done(recording)
        if self.queued:
            self._take_next()


def queue_of_age(age: float) -> int:
    """Return the number of the queue for a call of `age` seconds."""
    return min(bisect(QUEUE_AGES, age), len(QUEUE_AGES) - 1)
