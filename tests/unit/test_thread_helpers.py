"""The helper threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from muxer.errors import ServiceUnavailable, Stopped
from muxer.log import setup
from muxer.system.thread_helpers import HelperThreads, TaskThreads

TIMEOUT_SECONDS = 20.0


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


Make = Callable[..., HelperThreads]


@pytest.fixture
def make(stop: threading.Event) -> Iterator[Make]:
    """Return a function that starts helpers; all of them end with the test."""
    pools: list[HelperThreads] = []

    def start_helpers(workers: int = 1, for_each: int = 2) -> HelperThreads:
        pools.append(HelperThreads(workers, for_each, stop))
        return pools[-1]

    yield start_helpers
    for pool in pools:
        pool.close()


def test_results_are_returned_in_the_order_of_the_tasks(make: Make) -> None:
    last_first = [threading.Event() for _ in range(4)]
    last_first[3].set()

    def wait_for_last(number: int) -> int:
        assert last_first[number].wait(TIMEOUT_SECONDS)
        last_first[max(number - 1, 0)].set()
        return number

    assert make(for_each=3).run_tasks([partial(wait_for_last, number) for number in range(4)]) == [0, 1, 2, 3]


def test_concurrent_tasks_are_one_more_than_the_helpers(make: Make) -> None:
    together, running, acquired = threading.Barrier(3), threading.Semaphore(3), []

    def run_together() -> None:
        acquired.append(running.acquire(blocking=False))
        together.wait(TIMEOUT_SECONDS)
        running.release()

    make(workers=2, for_each=2).run_tasks([run_together] * 6)
    assert acquired == [True] * 6


def test_a_worker_does_its_tasks_itself_when_all_helpers_are_busy(make: Make) -> None:
    helpers, busy, over = make(for_each=1), threading.Semaphore(0), threading.Event()

    def keep_busy() -> None:
        busy.release()
        assert over.wait(TIMEOUT_SECONDS)

    other = threading.Thread(target=lambda: helpers.run_tasks([keep_busy, keep_busy]), daemon=True)
    other.start()
    for _ in range(2):
        assert busy.acquire(timeout=TIMEOUT_SECONDS)
    here = threading.current_thread()
    assert helpers.run_tasks([threading.current_thread] * 5) == [here] * 5
    over.set()
    other.join(TIMEOUT_SECONDS)


def test_after_an_error_no_task_starts_and_running_tasks_are_awaited(make: Make) -> None:
    started, failed, ended, never = (threading.Event() for _ in range(4))

    def end_slowly() -> None:
        started.set()
        assert failed.wait(TIMEOUT_SECONDS)
        assert not never.wait(0.1)
        ended.set()

    def raise_first() -> None:
        assert started.wait(TIMEOUT_SECONDS)
        failed.set()
        raise ServiceUnavailable("the first error")

    with pytest.raises(ServiceUnavailable, match="the first error"):
        make(for_each=1).run_tasks([raise_first, end_slowly, never.set])
    assert ended.is_set() and not never.is_set()


def test_the_first_error_wins(make: Make) -> None:
    failed = threading.Event()

    def raise_first() -> None:
        failed.set()
        raise ServiceUnavailable("first")

    def raise_second() -> None:
        assert failed.wait(TIMEOUT_SECONDS)
        threading.Event().wait(0.05)
        raise ValueError("second")

    with pytest.raises(ServiceUnavailable, match="first"):
        make().run_tasks([raise_second, raise_first])


def test_log_lines_of_helpers_contain_the_recording_of_their_worker(make: Make) -> None:
    together = threading.Barrier(3)

    def logged_recording() -> str:
        together.wait(TIMEOUT_SECONDS)
        return setup._recording.get()

    helpers = make()
    for name in ("C1", "C2"):
        with setup.recording_context(name):
            assert helpers.run_tasks([logged_recording] * 3) == [name] * 3


def test_no_task_starts_after_a_stop(make: Make, stop: threading.Event) -> None:
    started: list[int] = []

    def stop_at_once(number: int) -> None:
        started.append(number)
        stop.set()

    with pytest.raises(Stopped):
        make(for_each=0).run_tasks([partial(stop_at_once, number) for number in range(3)])
    assert started == [0]


def test_helpers_end_when_they_are_closed(make: Make) -> None:
    """Other tests in this process may have left other helpers."""
    before = set(threading.enumerate())
    helpers = make(workers=2, for_each=3)
    ours = [thread for thread in threading.enumerate() if thread not in before]
    assert len(ours) == 6
    helpers.run_tasks([lambda: None] * 3)
    helpers.close()
    for thread in ours:
        thread.join(TIMEOUT_SECONDS)
    assert not any(thread.is_alive() for thread in ours)


def test_tasks_run_when_threads_can_be_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that the system refuses is not counted; else the tasks would wait for it without end."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = TaskThreads("query", 1)
    with monkeypatch.context() as refused:
        refused.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            threads.start_task(lambda: pytest.fail("the caller has given up"))
    assert threads.start_task(lambda: "done").result(TIMEOUT_SECONDS) == "done"
    threads.close()
