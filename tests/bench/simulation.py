"""A day of a large site as events, without media: what a fleet of 1 to 500 workers would do. See docs/scaling.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial

from muxer.fleet.consumer import LONGEST_LOOK_SECONDS
from muxer.fleet.lanes import LANES
from tests.bench.measure import Figure, Setting
from tests.bench.simulated.costs import Costs
from tests.bench.simulated.day import DAY, HOUR, Day, day
from tests.bench.simulated.fleet import PERIOD, Fleet, Simulation
from tests.bench.simulated.polls import Window

RECORDINGS = 1_000_000
WORKERS = (1, 10, 25, 50, 100, 200, 500)
ENOUGH = 50
# A worker that waits for work looks into every lane so often in a second.
LOOKS = 1 / LONGEST_LOOK_SECONDS
WHOLE = 12 * HOUR
SPLIT = (Window(HOUR), Window(WHOLE, HOUR))
SPLIT_IN_FOUR = (Window(HOUR / 2), Window(2 * HOUR, HOUR / 2), Window(6 * HOUR, 2 * HOUR), Window(WHOLE, 6 * HOUR))
FLEETS = {f"{count} workers": Fleet(count) for count in WORKERS} | {
    "max_queue 50,000": Fleet(ENOUGH, max_queue=50_000),
    "two pollers, 0-1-12 h": Fleet(ENOUGH, SPLIT),
    "four pollers, 0-0.5-2-6-12 h": Fleet(ENOUGH, SPLIT_IN_FOUR),
    "four pollers, a shard each": Fleet(ENOUGH, tuple(Window(shards=4, shard=one) for one in range(4))),
    "start at noon, two pollers": Fleet(ENOUGH, SPLIT, begin=WHOLE),
    "start at noon, two pollers, 500 workers": Fleet(WORKERS[-1], SPLIT, begin=WHOLE),
}
# With these, every recording has to be muxed.
ALL_DONE = [name for name, fleet in FLEETS.items() if fleet.workers >= ENOUGH and not fleet.begin]


def measure(setting: Setting) -> Iterator[Figure]:
    """A million recordings: one poller with 1 to 500 workers; other pollers; a start at noon with all that waits then."""
    count = setting.pick(RECORDINGS, 3000)
    names = setting.pick(list(FLEETS), ["1 workers", "two pollers, 0-1-12 h"])
    with ProcessPoolExecutor() as processes:
        for figures in processes.map(partial(_figures, count), names):
            yield from figures


def _figures(count: int, name: str) -> list[Figure]:
    """Simulate and tell. What is measured over recordings shows its 99th percentile, with median and maximum as spread."""
    fleet, costs = FLEETS[name], Costs()
    done = Simulation(_day(count), fleet, costs).run()
    seen, workers = done.seen, done.workers
    goal = {"at_least": count} if name in ALL_DONE else {}
    looks = LOOKS * len(LANES) * fleet.workers
    used = workers.worked / (fleet.workers * costs.threads * (seen.finished - fleet.begin))
    return [
        Figure(f"{name}: recordings muxed", len(seen.delays), **goal),
        _percentile(f"{name}: age of a message when it is taken", workers.waits, "s"),
        _percentile(f"{name}: from screen file to muxed file", [one / 60 for one in seen.delays], "min"),
        Figure(f"{name}: all done, hours after midnight", (seen.finished - DAY) / HOUR, "h"),
        Figure(f"{name}: most messages that wait", workers.deepest),
        Figure(f"{name}: longest poll", max(max(poller.polls) for poller in done.pollers), "s"),
        Figure(f"{name}: RWS requests a second, busiest 10 min", max(seen.rws.values()) / PERIOD),
        Figure(f"{name}: storage, a second, busiest 10 min", max(seen.bytes.values()) / PERIOD / 1e6, "MB"),
        Figure(f"{name}: broker operations a second, busiest 10 min", max(seen.broker.values()) / PERIOD + looks),
        Figure(f"{name}: threads busy, share of the time", used),
    ]


@cache
def _day(count: int) -> Day:
    return day(count)


def _percentile(what: str, values: Sequence[float], unit: str) -> Figure:
    """Return the value that 99 of 100 are not above; the spread is from the median to the maximum."""
    ordered = sorted(values)
    return Figure(what, ordered[int(0.99 * (len(ordered) - 1))], unit, ordered[len(ordered) // 2], ordered[-1])
