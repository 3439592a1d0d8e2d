"""The model of the benchmark ``simulation``: it loses nothing and agrees with queueing theory."""

from __future__ import annotations

import random
from collections import Counter
from itertools import accumulate
from statistics import mean

import pytest

from tests.bench.simulated.costs import Costs, source_bytes
from tests.bench.simulated.day import DAY, HOUR, HOURLY_PROFILE, MEAN_SECONDS, Day, generate_day
from tests.bench.simulated.events import EventLoop
from tests.bench.simulated.fleet import DONE, LEFT, SimulatedFleet, Simulation
from tests.bench.simulated.polling import SLICE_SIZE, PollWindow, SimulatedPoller, pass_cost
from tests.bench.simulated.queues import SimulatedWorkers, queue_of_age


@pytest.fixture(scope="module")
def small() -> Day:
    return generate_day(3000)


def test_a_day_has_its_recordings_in_its_hours_and_is_the_same_each_time(small: Day) -> None:
    assert len(small) == 3000 and list(small.end) == sorted(small.end)
    assert all(begin < end < ready for begin, end, ready in zip(small.start, small.end, small.ready, strict=True))
    assert max(small.start) < DAY
    hours = Counter(int(item // HOUR) for item in small.start)
    assert hours[10] == pytest.approx(3000 * HOURLY_PROFILE[10] / sum(HOURLY_PROFILE), rel=0.15)
    assert mean(small.call_seconds(number) for number in range(3000)) == pytest.approx(MEAN_SECONDS, rel=0.1)
    assert list(generate_day(3000).start) == list(small.start)


@pytest.mark.parametrize(
    "pollers", [(PollWindow(),), (PollWindow(HOUR), PollWindow(12 * HOUR, HOUR)), (PollWindow(), PollWindow())]
)
def test_every_recording_is_finished_once(small: Day, pollers: tuple[PollWindow, ...]) -> None:
    finished: Counter[int] = Counter()

    class CountingSimulation(Simulation):
        def _on_job_done(self, recording: int) -> None:
            finished[recording] += 1
            super()._on_job_done(recording)

    done = CountingSimulation(small, SimulatedFleet(2, pollers, max_queue=20), Costs()).run()
    assert finished == Counter(range(3000)) and set(done.state) == {DONE}
    assert len(done.workers.waits) == len(done.seen.delays) == 3000 and min(done.seen.delays) > 0


def test_only_recordings_that_left_the_windows_are_not_done() -> None:
    slow = Costs(stream_bytes=1e5, threads=1)
    done = Simulation(generate_day(2000), SimulatedFleet(1, (PollWindow(2 * HOUR),), max_queue=50), slow).run()
    assert set(done.state) == {DONE, LEFT}
    assert 0 < len(done.seen.delays) == 2000 - done.seen.left
    assert done.workers.deepest <= 50


def test_a_short_queue_loses_nothing_during_a_long_pass() -> None:
    """An hour of recordings takes longer to read than the workers need for the longest queue."""
    slow = Costs(page_seconds=60.0)
    done = Simulation(generate_day(3000), SimulatedFleet(2, (PollWindow(2 * HOUR),), max_queue=10), slow).run()
    assert (set(done.state), done.seen.left) == ({DONE}, 0)
    assert done.workers.deepest <= 10


def test_requests_and_bytes_are_those_of_the_jobs_and_the_polls(small: Day) -> None:
    done = Simulation(small, SimulatedFleet(5), Costs()).run()
    requests, page = sum(done.seen.rws.values()) - 7 * 3000, Costs().page_seconds
    assert requests == pytest.approx(sum(done.pollers[0].polls) / page, rel=0.05)
    moved = sum(2 * source_bytes(small.call_seconds(number)) for number in range(3000))
    assert sum(done.seen.bytes.values()) == pytest.approx(moved, rel=0.001)


def _serve_arrivals(arrivals: list[float], threads: int, seconds: float) -> tuple[SimulatedWorkers, float]:
    """Let messages arrive at these times. Returns the workers, and the integral over time of the queue length."""
    events, area, since = EventLoop(), 0.0, 0.0

    def finish_one(_: int) -> None:
        nonlocal area, since
        area += (workers.queued + 1) * (events.now - since)
        since = events.now

    workers = SimulatedWorkers(events, threads, float("inf"), lambda *_: seconds, begun=finish_one)

    def arrive_one(number: int) -> None:
        nonlocal area, since
        area += workers.queued * (events.now - since)
        since = events.now
        workers.queue_recording(number, 0)

    for number, arrival_time in enumerate(arrivals):
        events.schedule_action(arrival_time, arrive_one, number)
    events.run()
    return workers, area


def _poisson_arrivals(count: int, rate: float) -> list[float]:
    generator = random.Random(7)
    return list(accumulate(generator.expovariate(rate) for _ in range(count)))


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_one_thread_with_equal_jobs_waits_as_queueing_theory_says(load: float) -> None:
    workers, _ = _serve_arrivals(_poisson_arrivals(100_000, load), threads=1, seconds=1.0)
    assert mean(workers.waits) == pytest.approx(load / (2 * (1 - load)), rel=0.04)  # M/D/1, Pollaczek and Khinchine


def test_the_queue_length_follows_littles_law() -> None:
    arrivals = _poisson_arrivals(20_000, 2.7)
    workers, area = _serve_arrivals(arrivals, threads=3, seconds=1.0)
    assert area / arrivals[-1] == pytest.approx(len(arrivals) / arrivals[-1] * mean(workers.waits), rel=0.001)  # Little


def test_the_newest_calls_go_first_and_keep_capacity() -> None:
    events, order = EventLoop(), list[int]()
    workers = SimulatedWorkers(events, 1, 8, lambda *_: 1.0, begun=order.append)
    offered = [(2 * DAY, 6), (2 * HOUR, 3), (60.0, 3)]
    numbers = iter(range(20))
    for age, count in offered:
        for number in [next(numbers) for _ in range(count)]:
            if workers.has_room(queue_of_age(age)):
                workers.queue_recording(number, queue_of_age(age))
    assert workers.queued == 8
    events.run()
    assert order == [0, 9, 10, 6, 7, 1, 2, 3, 4]  # the queue shares of 5, 8 and 11 were full


def test_a_job_lasts_as_long_as_its_steps_or_its_wait_for_shared_resources() -> None:
    costs = Costs(rws_seconds=0.1, dav_seconds=0.0, stream_bytes=1e7, rws_capacity=70.0, storage_capacity=1e12)
    alone = costs.job_seconds(300.0, 1)
    assert alone == pytest.approx(0.7 + 2 * source_bytes(300.0) / 1e7 + 0.1464)
    assert costs.job_seconds(300.0, 100) == pytest.approx(100 * 7 / 70)
    assert Costs(storage_capacity=1e7).job_seconds(300.0, 2) == pytest.approx(2 * 2 * source_bytes(300.0) / 1e7)


def test_a_pass_reads_its_window_and_shards_read_all_pages() -> None:
    assert pass_cost(PollWindow(), 1000, 0, 0.2).seconds == pytest.approx(20 * 0.2 + 0.16)
    assert (pass_cost(PollWindow(), 1000, 700, 0.2).pages, pass_cost(PollWindow(), 1000, 700, 0.2).slices) == (
        1000 / SLICE_SIZE,
        3,
    )
    assert (pass_cost(PollWindow(shards=4), 1000, 0, 0.2).pages, pass_cost(PollWindow(shards=4), 1000, 0, 0.2).slices) == (
        1000 / SLICE_SIZE,
        3,
    )


class FakePollSite:
    """The site of a poller, with capacity for `room` tasks, at a fixed start time."""

    def __init__(self, day: Day, now: float, room: int) -> None:
        self.day, self.now, self.room = day, now, room
        self.orders: list[list[int]] = []
        self.requests = 0

    def is_over(self) -> bool:
        return bool(self.orders) and self.now > 16 * HOUR

    def open_recordings(self) -> list[int]:
        ordered = {item for several in self.orders for item in several}
        return [number for number in range(len(self.day)) if self.day.end[number] <= self.now and number not in ordered]

    def order_recordings(self, found: list[int]) -> bool:
        newest = sorted(found, key=lambda item: self.day.start[item], reverse=True)
        self.orders.append(newest[: self.room])
        self.room -= len(self.orders[-1])
        return len(newest) == len(self.orders[-1])

    def is_closed(self, age: float) -> bool:
        return self.room == 0

    def has_capacity_again(self) -> bool:
        return False

    def needs_work(self) -> bool:
        return False

    def record_requests(self, requests: int, seconds: float) -> None:
        self.requests += requests


def _run_polls(day: Day, window: PollWindow, room: int, polls: int = 1, page_seconds: float = 0.2) -> FakePollSite:
    site = FakePollSite(day, 15 * HOUR, room)
    poller = SimulatedPoller(window, day, page_seconds, site)
    for wait in poller.run():
        site.now += wait
        if len(poller.polls) == polls:
            break
    return site


def test_a_poll_orders_the_ready_recordings_of_its_window_newest_first(small: Day) -> None:
    site = _run_polls(small, PollWindow(12 * HOUR, HOUR), 10_000)
    ordered = [item for several in site.orders for item in several]
    now = 15 * HOUR
    inside = {number for number in range(3000) if small.start[number] >= now - 12 * HOUR and small.end[number] <= now - HOUR}
    assert set(ordered) >= inside and len(ordered) == len(set(ordered)) < len(inside) + 20  # time passes during the poll
    assert max(small.start[order] for order in site.orders[1]) < max(small.start[one] for one in site.orders[0])
    assert all(small.ready[one] <= site.now for one in ordered)


def test_older_calls_are_not_read_while_the_queue_has_no_capacity(small: Day) -> None:
    few, all_ = _run_polls(small, PollWindow(), 20), _run_polls(small, PollWindow(), 10_000)
    assert len(few.orders) == 1 < len(all_.orders) and few.requests < all_.requests / 2
    newest = max(all_.orders[0], key=lambda order: small.start[order])
    assert newest in few.orders[0] and len(few.orders[0]) == 20


def test_a_long_pass_is_interrupted_for_the_newest_calls(small: Day) -> None:
    quick, slow = (
        _run_polls(small, PollWindow(), 10_000),
        _run_polls(small, PollWindow(interval=60.0), 10_000, page_seconds=10.0),
    )
    assert len(quick.orders) == 4 < len(slow.orders)  # 100, 200, 400 minutes, twelve hours
    began = [max((small.start[item] for item in several), default=0.0) for several in slow.orders]
    assert max(began[2:-1]) > began[0]  # a call that started after the first pass
