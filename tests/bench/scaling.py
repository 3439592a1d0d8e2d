"""Throughput by the number of workers, the length and the number of screen files."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from tests.bench import inputs
from tests.bench.engine import EngineBench
from tests.bench.measure import BenchSetting, Figure, run_alternately
from tests.bench.pipeline import pipeline_bench


def measure(setting: BenchSetting) -> Iterator[Figure]:
    """Measure complete runs with 1, 2 and 4 workers, and the mux step alone for lengths and numbers of screen files."""
    yield from _measure_workers(setting)
    yield from _measure_lengths(setting)
    yield from _measure_screens(setting)


def _measure_workers(setting: BenchSetting) -> Iterator[Figure]:
    count = setting.pick_size(8, 1)
    calls = [inputs.create_call(setting.folder, setting.pick_size(300, 2))] * count
    with pipeline_bench(setting.folder, calls, workers=1) as bench:

        def run_workers(workers: int) -> float:
            bench.workers = workers
            return bench.run_muxer() - bench.startups[-1]

        actions = {str(number): lambda n=number: run_workers(n) for number in setting.pick_size((1, 2, 4), (2,))}
        taken = run_alternately(setting.pick_size(3, 1), **actions)
    for number, each in taken.items():
        rates = [60 * count / one for one in each]
        yield Figure(f"calls a minute, workers: {number}", median(rates), "", min(rates), max(rates))


def _measure_lengths(setting: BenchSetting) -> Iterator[Figure]:
    for length in setting.pick_size((60, 600, 3600), (2,)):
        name = f"{length // 60} minutes" if length >= 60 else f"{length} seconds"
        yield _measure_speed(setting, f"length {name}: seconds of call in a second", length, [(0, length)])


def _measure_screens(setting: BenchSetting) -> Iterator[Figure]:
    length = setting.pick_size(600, 2)
    for number in setting.pick_size((1, 4, 16, 64), (2,)):
        each = length // number
        spans = [(one * each, (one + 1) * each) for one in range(number)]
        yield _measure_speed(setting, f"screen files {number}: seconds of call in a second", length, spans)


def _measure_speed(setting: BenchSetting, what: str, length: int, spans: list[tuple[int, int]]) -> Figure:
    bench = EngineBench(inputs.create_call(setting.folder, length, spans), setting.folder / "scaling")
    speeds = [length / one for one in run_alternately(setting.pick_size(3, 1), step=bench.mux_product)["step"]]
    return Figure(what, median(speeds), "", min(speeds), max(speeds))
