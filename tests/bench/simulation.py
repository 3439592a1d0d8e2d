"""Event simulation of a day of a large site, without media, for fleets of 1 to 500 workers. See docs/scaling.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache, partial

from muxer.fleet.consumer import MAX_POLL_INTERVAL
from muxer.fleet.priority_queues import PRIORITY_QUEUES
from tests.bench.measure import BenchSetting, Figure
from tests.bench.simulated.costs import RWS_REQUESTS, Costs
from tests.bench.simulated.day import DAY, HOUR, Day, generate_day
from tests.bench.simulated.fleet import PERIOD_SECONDS, SimulatedFleet, Simulation
from tests.bench.simulated.polling import PollWindow

RECORDINGS = 1_000_000
WORKERS = (1, 10, 25, 50, 100, 200, 500)
ENOUGH_WORKERS = 50
# The number of times per second that an idle worker checks every queue.
CHECKS_PER_SECOND = 1 / MAX_POLL_INTERVAL
WHOLE_WINDOW = 12 * HOUR
# The options of the polls: pagination and concurrent_queries.
ONE_POLLER = PollWindow(page=1000, queries=4)
SPLIT_WINDOWS = (replace(ONE_POLLER, past=HOUR), replace(ONE_POLLER, older_than=HOUR))
FOUR_WINDOWS = tuple(
    replace(ONE_POLLER, past=past * HOUR, older_than=older * HOUR) for older, past in ((0, 0.5), (0.5, 2), (2, 6), (6, 12))
)
SHARDS = tuple(replace(ONE_POLLER, shards=4, shard=one) for one in range(4))
FLEETS = {f"{count} workers": SimulatedFleet(count, (ONE_POLLER,)) for count in WORKERS} | {
    "max_queue 50,000": SimulatedFleet(ENOUGH_WORKERS, (ONE_POLLER,), max_queue=50_000),
    "pagination 100": SimulatedFleet(ENOUGH_WORKERS, (replace(ONE_POLLER, page=100),)),
    "poll_whole_window 1": SimulatedFleet(ENOUGH_WORKERS, (replace(ONE_POLLER, whole=True),)),
    "pagination 100, one query at a time": SimulatedFleet(ENOUGH_WORKERS, (PollWindow(),)),
    "two pollers, 0-1-12 h": SimulatedFleet(ENOUGH_WORKERS, SPLIT_WINDOWS),
    "four pollers, 0-0.5-2-6-12 h": SimulatedFleet(ENOUGH_WORKERS, FOUR_WINDOWS),
    "four pollers, a shard each": SimulatedFleet(ENOUGH_WORKERS, SHARDS),
    "start at noon, two pollers": SimulatedFleet(ENOUGH_WORKERS, SPLIT_WINDOWS, begin=WHOLE_WINDOW),
    "start at noon, two pollers, 500 workers": SimulatedFleet(WORKERS[-1], SPLIT_WINDOWS, begin=WHOLE_WINDOW),
}
# With these, every recording must be muxed.
ALL_DONE = [name for name, fleet in FLEETS.items() if fleet.workers >= ENOUGH_WORKERS and not fleet.begin]


def measure(setting: BenchSetting) -> Iterator[Figure]:
    """Simulate a million recordings: one poller with 1 to 500 workers; other pollers; a start at noon with the backlog."""
    count = setting.pick_size(RECORDINGS, 3000)
    names = setting.pick_size(list(FLEETS), ["1 workers", "two pollers, 0-1-12 h"])
    with ProcessPoolExecutor() as processes:
        for figures in processes.map(partial(_simulate_fleet, count), names):
            yield from figures


def _simulate_fleet(count: int, name: str) -> list[Figure]:
    """Simulate a fleet and return its figures. Those over recordings are 99th percentiles, from median to maximum."""
    fleet, costs = FLEETS[name], Costs()
    done = Simulation(_cached_day(count), fleet, costs).run()
    seen, workers = done.seen, done.workers
    goal = {"at_least": count} if name in ALL_DONE else {}
    looks = CHECKS_PER_SECOND * len(PRIORITY_QUEUES) * fleet.workers
    used = workers.worked / (fleet.workers * costs.threads * (seen.finished - fleet.begin))
    return [
        Figure(f"{name}: recordings muxed", len(seen.delays), **goal),
        _percentile_figure(f"{name}: age of a message when it is taken", workers.waits, "s"),
        _percentile_figure(f"{name}: from screen file to muxed file", [one / 60 for one in seen.delays], "min"),
        Figure(f"{name}: all done, hours after midnight", (seen.finished - DAY) / HOUR, "h"),
        Figure(f"{name}: most messages that wait", workers.deepest),
        Figure(f"{name}: RWS requests of polls", sum(seen.rws.values()) - RWS_REQUESTS * len(seen.delays)),
        Figure(f"{name}: longest poll", max(max(poller.polls) for poller in done.pollers), "s"),
        Figure(f"{name}: RWS requests a second, busiest 10 min", max(seen.rws.values()) / PERIOD_SECONDS),
        Figure(f"{name}: storage, a second, busiest 10 min", max(seen.bytes.values()) / PERIOD_SECONDS / 1e6, "MB"),
        Figure(f"{name}: broker operations a second, busiest 10 min", max(seen.broker.values()) / PERIOD_SECONDS + looks),
        Figure(f"{name}: threads busy, share of the time", used),
    ]


@cache
def _cached_day(count: int) -> Day:
    return generate_day(count)


def _percentile_figure(what: str, values: Sequence[float], unit: str) -> Figure:
    """Return the 99th percentile; the spread is from the median to the maximum."""
    ordered = sorted(values)
    return Figure(what, ordered[int(0.99 * (len(ordered) - 1))], unit, ordered[len(ordered) // 2], ordered[-1])
