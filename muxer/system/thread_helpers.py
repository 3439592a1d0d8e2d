"""Threads, with their own HTTP sessions: for tasks of one recording, which its worker runs too, and for single tasks."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from muxer.errors import Stopped

T = TypeVar("T")


class HelperThreads:
    """The helper threads. They do not keep the process alive."""

    def __init__(self, workers: int, for_each: int, stop: threading.Event) -> None:
        self._for_each = for_each
        self._stop = stop
        self._calls: queue.SimpleQueue[_Batch[Any] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run_batches, name=f"helper-{number}", daemon=True)
            for number in range(workers * for_each)
        ]
        for thread in self._threads:
            thread.start()

    def run_tasks(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Run tasks here and in helper threads; results are in order. Raises the first error when all have ended."""
        batch = _Batch(tasks, self._stop)
        for _ in tasks[1 : 1 + self._for_each]:
            self._calls.put(batch)
        batch.run_tasks()
        return batch.wait_for_results()

    def close(self) -> None:
        """Let the threads end after their current tasks."""
        for _ in self._threads:
            self._calls.put(None)

    def _run_batches(self) -> None:
        while (batch := self._calls.get()) is not None:
            batch.run_tasks()


class TaskThreads:
    """Up to `count` daemon threads that run one task each. They are started when they are first needed."""

    def __init__(self, name: str, count: int) -> None:
        self._name, self._count = name, count
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def start_task(self, task: Callable[[], T]) -> Future[T]:
        """Run a task in the context of the caller; the future has its result or its error."""
        future: Future[T] = Future()
        context = contextvars.copy_context()
        if len(self._threads) < self._count:
            thread = threading.Thread(target=self._run_tasks, name=f"{self._name}-{len(self._threads)}", daemon=True)
            thread.start()  # fails when the system has no more threads; nothing may wait for this one then
            self._threads.append(thread)
        self._tasks.put(lambda: _run_into(future, lambda: context.run(task)))
        return future

    def close(self) -> None:
        """Let the threads end after their current tasks."""
        for _ in self._threads:
            self._tasks.put(None)

    def _run_tasks(self) -> None:
        while (run_task := self._tasks.get()) is not None:
            run_task()


def _run_into(future: Future[T], task: Callable[[], T]) -> None:
    try:
        future.set_result(task())
    except BaseException as error:
        future.set_exception(error)


class _Batch(Generic[T]):
    """Tasks, the results of the finished ones, and the first error."""

    def __init__(self, tasks: Sequence[Callable[[], T]], stop: threading.Event) -> None:
        self._tasks = deque(enumerate(tasks))
        self._stop = stop
        # The recording that the log's lines are about.
        self._context = contextvars.copy_context()
        self._results: dict[int, T] = {}
        self._error: BaseException | None = None
        self._running = 0
        self._ended = threading.Condition()

    def run_tasks(self) -> None:
        while (task := self._next_task()) is not None:
            number, do = task
            try:
                result = self._context.copy().run(do)
            except BaseException as error:
                self._record_end(error=error)
            else:
                self._record_end({number: result})

    def wait_for_results(self) -> list[T]:
        with self._ended:
            self._ended.wait_for(lambda: not self._running)
        if self._error is not None:
            raise self._error
        return [result for _, result in sorted(self._results.items(), key=lambda one: one[0])]

    def _next_task(self) -> tuple[int, Callable[[], T]] | None:
        with self._ended:
            if self._tasks and self._stop.is_set():
                self._record_error(Stopped("stopped before all tasks were started"))
            if not self._tasks:
                return None
            self._running += 1
            return self._tasks.popleft()

    def _record_end(self, result: dict[int, T] | None = None, error: BaseException | None = None) -> None:
        with self._ended:
            self._results |= result or {}
            if error is not None:
                self._record_error(error)
            self._running -= 1
            self._ended.notify_all()

    def _record_error(self, error: BaseException) -> None:
        self._tasks.clear()
        self._error = self._error or error
