"""How throughput changes with workers, with length and with the number of screen files."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from tests.bench import inputs
from tests.bench.engine import Bench
from tests.bench.measure import Figure, Setting, side_by_side
from tests.bench.pipeline import site


def measure(setting: Setting) -> Iterator[Figure]:
    """Whole runs with 1, 2 and 4 workers; the mux step alone for lengths and numbers of screen files."""
    yield from _workers(setting)
    yield from _lengths(setting)
    yield from _screens(setting)


def _workers(setting: Setting) -> Iterator[Figure]:
    count = setting.pick(8, 1)
    calls = [inputs.call(setting.folder, setting.pick(300, 2))] * count
    with site(setting.folder, calls, workers=1) as bench:

        def run(workers: int) -> float:
            bench.workers = workers
            return bench.muxer() - bench.startups[-1]

        actions = {str(number): lambda n=number: run(n) for number in setting.pick((1, 2, 4), (2,))}
        taken = side_by_side(setting.pick(3, 1), **actions)
    for number, each in taken.items():
        rates = [60 * count / one for one in each]
        yield Figure(f"calls a minute, workers: {number}", median(rates), "", min(rates), max(rates))


def _lengths(setting: Setting) -> Iterator[Figure]:
    for length in setting.pick((60, 600, 3600), (2,)):
        name = f"{length // 60} minutes" if length >= 60 else f"{length} seconds"
        yield _speed(setting, f"length {name}: seconds of call in a second", length, [(0, length)])


def _screens(setting: Setting) -> Iterator[Figure]:
    length = setting.pick(600, 2)
    for number in setting.pick((1, 4, 16, 64), (2,)):
        each = length // number
        spans = [(one * each, (one + 1) * each) for one in range(number)]
        yield _speed(setting, f"screen files {number}: seconds of call in a second", length, spans)


def _speed(setting: Setting, what: str, length: int, spans: list[tuple[int, int]]) -> Figure:
    bench = Bench(inputs.call(setting.folder, length, spans), setting.folder / "scaling")
    speeds = [length / one for one in side_by_side(setting.pick(3, 1), step=bench.step)["step"]]
    return Figure(what, median(speeds), "", min(speeds), max(speeds))
