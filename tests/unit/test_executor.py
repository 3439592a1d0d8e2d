"""The worker threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from muxer.errors import Stopped
from muxer.gir.models import MediaFile
from muxer.gir.targets import MuxTarget
from muxer.scheduling.executor import QUEUED_PER_WORKER, ThreadExecutor

TIMEOUT_SECONDS = 20.0


def create_target(name: str) -> MuxTarget:
    return MuxTarget(name, "r1", "agent", MediaFile.from_json({"mediaId": f"{name}.mp3"}), ())


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


class GatedWork:
    """Work that waits until the test releases it."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.started = threading.Semaphore(0)
        self.done: list[str] = []

    def __call__(self, one: MuxTarget) -> None:
        self.started.release()
        assert self.open.wait(TIMEOUT_SECONDS)
        self.done.append(one.recording_id)


def test_all_that_is_submitted_is_done(stop: threading.Event) -> None:
    done: list[str] = []
    pool = ThreadExecutor(lambda item: done.append(item.recording_id), 3, stop)
    assert all(pool.submit(create_target(f"C{number}")) for number in range(60))
    pool.wait_for_all()
    assert sorted(done) == sorted(f"C{number}" for number in range(60))
    assert pool.is_idle


def test_concurrent_targets_equal_the_number_of_workers(stop: threading.Event) -> None:
    gate = GatedWork()
    pool = ThreadExecutor(gate, 3, stop)
    for number in range(4):
        pool.submit(create_target(f"C{number}"))
    for _ in range(3):
        assert gate.started.acquire(timeout=TIMEOUT_SECONDS)
    assert not gate.started.acquire(blocking=False)
    gate.open.set()
    pool.wait_for_all()
    assert len(gate.done) == 4


def test_a_target_that_is_queued_or_running_is_not_taken_twice(stop: threading.Event) -> None:
    gate = GatedWork()
    pool = ThreadExecutor(gate, 1, stop)
    assert pool.submit(create_target("running"))
    assert gate.started.acquire(timeout=TIMEOUT_SECONDS)
    assert pool.submit(create_target("queued"))
    assert not pool.submit(create_target("running"))
    assert not pool.submit(create_target("queued"))
    assert not pool.is_idle
    gate.open.set()
    pool.wait_for_all()
    assert gate.done == ["running", "queued"]


def test_a_target_that_is_done_may_be_submitted_again(stop: threading.Event) -> None:
    done: list[str] = []
    pool = ThreadExecutor(lambda item: done.append(item.recording_id), 1, stop)
    for _ in range(2):
        assert pool.submit(create_target("C1"))
        pool.wait_for_all()
    assert done == ["C1", "C1"]


@pytest.mark.parametrize("error", [ValueError("x"), OSError("y"), MemoryError()])
def test_an_error_of_one_recording_does_not_stop_the_others(stop: threading.Event, error: Exception) -> None:
    done: list[str] = []

    def fail_for_bad(one: MuxTarget) -> None:
        if one.recording_id == "bad":
            raise error
        done.append(one.recording_id)

    pool = ThreadExecutor(fail_for_bad, 1, stop)
    for name in ("bad", "good"):
        pool.submit(create_target(name))
    pool.wait_for_all()
    assert done == ["good"]
    assert pool.is_idle
    assert pool.submit(create_target("bad"))


def test_the_queue_is_short_and_a_submit_waits_for_capacity(stop: threading.Event) -> None:
    gate = GatedWork()
    pool = ThreadExecutor(gate, 1, stop)
    for number in range(QUEUED_PER_WORKER + 1):
        pool.submit(create_target(f"C{number}"))
        if number == 0:
            assert gate.started.acquire(timeout=TIMEOUT_SECONDS)
    entered = threading.Event()
    accepted: list[bool] = []

    def submit_one_more() -> None:
        entered.set()
        accepted.append(pool.submit(create_target("one more")))

    thread = threading.Thread(target=submit_one_more, daemon=True)
    thread.start()
    assert entered.wait(TIMEOUT_SECONDS)
    assert accepted == []
    gate.open.set()
    thread.join(TIMEOUT_SECONDS)
    pool.wait_for_all()
    assert accepted == [True]
    assert gate.done[-1] == "one more"


def test_a_stop_ends_a_submit_that_waits_for_capacity(stop: threading.Event) -> None:
    gate = GatedWork()
    pool = ThreadExecutor(gate, 1, stop)
    for number in range(QUEUED_PER_WORKER + 1):
        pool.submit(create_target(f"C{number}"))
        if number == 0:
            assert gate.started.acquire(timeout=TIMEOUT_SECONDS)
    ended = threading.Event()

    def submit_one_more() -> None:
        with pytest.raises(Stopped):
            pool.submit(create_target("late"))
        ended.set()

    threading.Thread(target=submit_one_more, daemon=True).start()
    stop.set()
    assert ended.wait(TIMEOUT_SECONDS)
    gate.open.set()


def test_after_a_stop_no_new_work_starts_and_the_workers_end(stop: threading.Event) -> None:
    gate = GatedWork()
    pool = ThreadExecutor(gate, 1, stop)
    for name in ("running", "queued"):
        pool.submit(create_target(name))
    assert gate.started.acquire(timeout=TIMEOUT_SECONDS)
    stop.set()
    with pytest.raises(Stopped):
        pool.submit(create_target("new"))
    gate.open.set()
    assert pool.wait_for_running(TIMEOUT_SECONDS)
    assert gate.done == ["running"]


@pytest.mark.parametrize(("cut_off", "open_"), [(True, 2), (False, 1)])
def test_targets_cut_off_by_a_stop_stay_open(stop: threading.Event, cut_off: bool, open_: int) -> None:
    gate = GatedWork()

    def work_until_stop(one: MuxTarget) -> None:
        gate(one)
        if cut_off:
            raise Stopped("in the middle")

    pool = ThreadExecutor(work_until_stop, 1, stop)
    for name in ("running", "queued"):
        pool.submit(create_target(name))
    assert gate.started.acquire(timeout=TIMEOUT_SECONDS)
    stop.set()
    gate.open.set()
    assert pool.wait_for_running(TIMEOUT_SECONDS)
    assert pool.target_count == open_


def test_the_open_work_is_counted_in_files_and_in_recordings(stop: threading.Event) -> None:
    gate = GatedWork()
    pool = ThreadExecutor(gate, 1, stop)
    for agent in ("one", "other"):
        pool.submit(replace(create_target("C1"), screens=(MediaFile.from_json({"mediaId": agent}),)))
    pool.submit(create_target("C2"))
    assert (pool.target_count, pool.recording_count) == (3, 2)
    gate.open.set()
    pool.wait_for_all()
    assert (pool.target_count, pool.recording_count) == (0, 0)


def test_a_drain_returns_whether_a_worker_still_runs(stop: threading.Event) -> None:
    gate = GatedWork()
    pool = ThreadExecutor(gate, 1, stop)
    pool.submit(create_target("running"))
    assert gate.started.acquire(timeout=TIMEOUT_SECONDS)
    stop.set()
    assert not pool.wait_for_running(0.0)
    gate.open.set()
    assert pool.wait_for_running(TIMEOUT_SECONDS)


def test_a_worker_that_hangs_does_not_keep_the_process_alive(stop: threading.Event) -> None:
    before = set(threading.enumerate())
    ThreadExecutor(lambda _: None, 2, stop)
    assert len(set(threading.enumerate()) - before) == 2
    assert all(thread.daemon for thread in set(threading.enumerate()) - before)


class FakeRoom:
    """Capacity that the test switches on and off; `asked` counts the calls."""

    def __init__(self) -> None:
        self.there = threading.Event()
        self.calls = threading.Semaphore(0)

    def __call__(self) -> bool:
        self.calls.release()
        return self.there.is_set()


def test_while_starting_is_blocked_no_target_is_taken_or_lost(stop: threading.Event) -> None:
    done: list[str] = []
    room = FakeRoom()
    pool = ThreadExecutor(lambda item: done.append(item.recording_id), 2, stop, room)
    accepted: list[bool] = []
    thread = threading.Thread(
        target=lambda: accepted.extend(pool.submit(create_target(f"C{n}")) for n in range(3)), daemon=True
    )
    thread.start()
    for _ in range(9):
        assert room.calls.acquire(timeout=TIMEOUT_SECONDS)
    assert pool.is_idle and not accepted and not done
    room.there.set()
    thread.join(TIMEOUT_SECONDS)
    pool.wait_for_all()
    assert accepted == [True] * 3 and sorted(done) == ["C0", "C1", "C2"]


def test_while_starting_is_blocked_queued_targets_wait_and_running_ones_continue(stop: threading.Event) -> None:
    gate, room = GatedWork(), FakeRoom()
    room.there.set()
    pool = ThreadExecutor(gate, 1, stop, room)
    for name in ("running", "queued"):
        assert pool.submit(create_target(name))
    assert gate.started.acquire(timeout=TIMEOUT_SECONDS)
    room.there.clear()
    gate.open.set()
    while room.calls.acquire(blocking=False):
        pass
    for _ in range(3):
        assert room.calls.acquire(timeout=TIMEOUT_SECONDS)
    assert gate.done == ["running"] and not pool.is_idle
    room.there.set()
    pool.wait_for_all()
    assert gate.done == ["running", "queued"]


def test_a_stop_ends_the_wait_for_capacity(stop: threading.Event) -> None:
    room = FakeRoom()
    pool = ThreadExecutor(lambda _: None, 1, stop, room)
    ended = threading.Event()

    def submit_one() -> None:
        with pytest.raises(Stopped):
            pool.submit(create_target("C1"))
        ended.set()

    threading.Thread(target=submit_one, daemon=True).start()
    stop.set()
    assert ended.wait(TIMEOUT_SECONDS) and pool.is_idle
    assert pool.wait_for_running(TIMEOUT_SECONDS)
