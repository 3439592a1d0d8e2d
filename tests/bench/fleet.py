"""A fleet on a real RabbitMQ: throughput with workers, cost of the broker, and static shards on a skewed load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from lab.cases import CallPlan
from muxer.polling.sharding import shard_of
from tests.bench import inputs, operations
from tests.bench.broker import RabbitNode
from tests.bench.inputs import Call
from tests.bench.lab import BenchLab, running_lab
from tests.bench.measure import BenchSetting, Figure, ratio_figure
from tests.bench.muxer_processes import MUXER, WORKER, Effort, MuxerProcesses, run_processes
from tests.support.daemon import wait_until

# A site: RWS responds after 100 ms, and the storage takes about three seconds for a recording. So a waiting worker uses a
# processor for a twentieth of its time, and eight workers leave most of two cores free.
DELAYS = {"rws": 0.1, "dav": 0.05, "dav GET": 1.2, "dav PUT": 1.5}
SECONDS = 10
# The factor by which transfers of a long call take longer.
SLOW_FACTOR = 6.0
SHARDS = 4
START_SECONDS = 60.0
# Connections of a worker: one for its tasks, one for all else.
PER_WORKER = 2


@dataclass
class FleetBench:
    """A broker, a call, and the number of fleets so far: each has separate queues."""

    setting: BenchSetting
    node: RabbitNode
    call: Call
    fleets: Iterator[int] = field(default_factory=count)

    @contextmanager
    def prepare_lab(
        self, calls: Mapping[int, float], delays: Mapping[str, float]
    ) -> Iterator[tuple[BenchLab, MuxerProcesses]]:
        """Yield a new lab with `calls` (serial number, transfer factor), before any worker starts."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(dir=self.setting.folder)))
            lab = stack.enter_context(running_lab(folder, delays=delays, encryption_group="empty"))
            for serial, slow in calls.items():
                lab.add_recent(self.call, serial, slow)
            yield lab, stack.enter_context(run_processes(lab, self.node.process_id))

    def run_fleet(self, workers: int, calls: Mapping[int, float], delays: Mapping[str, float]) -> Effort:
        """Run a poller and workers with a thread each."""
        with self.prepare_lab(calls, delays) as (lab, team):
            queue = f"bench-{next(self.fleets)}"
            config = lab.write_config(advanced__worker_threads=1, fleet__mode="broker", fleet__queue=queue)
            for _ in range(workers):
                team.start(WORKER, config, FLEET_BROKER_URL=self.node.node_url())
            wait_until(lambda: self._count_connections() >= PER_WORKER * workers, START_SECONDS, f"{workers} workers")
            team.start(MUXER, config, FLEET_BROKER_URL=self.node.node_url())
            return team.wait_for_published(len(calls))

    def _count_connections(self) -> int:
        return int(self.node.evaluate_erlang("length(rabbit_networking:connections())"))

    def run_shards(self, shards: int, calls: Mapping[int, float], delays: Mapping[str, float]) -> Effort:
        """Run `shards` static instances with a thread each."""
        with self.prepare_lab(calls, delays) as (lab, team):
            for number in range(shards):
                own = lab.folder / f"shard-{number}"
                config = lab.write_config(f"{number}.cfg", advanced__worker_threads=1, processing__temp_dir=own)
                total = [f"--muxer-id={number}", f"--total-muxers={shards}"] if shards > 1 else []
                team.start(MUXER, config, *total)
            return team.wait_for_published(len(calls))


def measure(setting: BenchSetting) -> Iterator[Figure]:
    """Measure the throughput with latency, the cost without, and a load with one shard full of long calls."""
    call = inputs.create_call(setting.folder, setting.pick_size(SECONDS, 2))
    with RabbitNode(setting.folder / "rabbitmq") as node:
        bench = FleetBench(setting, node, call)
        yield from _measure_throughput(bench)
        yield from operations.measure(setting, node, setting.pick_size(500, 20))
        yield from _measure_cost(bench)
        yield from _measure_skewed(bench)


def _measure_throughput(bench: FleetBench) -> Iterator[Figure]:
    """Measure twelve recordings for each worker."""
    pick = bench.setting.pick_size
    each, delays = pick(12, 3), pick(DELAYS, {})
    single: list[Effort] = []
    for workers in pick((1, 2, 4, 8), (1, 2)):
        load = dict.fromkeys(range(each * workers), 1.0)
        done = [bench.run_fleet(workers, load, delays) for _ in range(pick(2, 1))]
        single = single or done
        rates = [one.steady_rate(workers) for one in done]
        yield Figure(f"recordings a minute, workers: {workers}", median(rates), "", min(rates), max(rates))
        yield Figure(
            f"cores that all of it keeps busy, workers: {workers}", median(one.cores_used for one in done), at_most=1.4
        )
        if workers > 1:
            gains = [many.whole_rate / one.whole_rate for many, one in zip(done, single, strict=True)]
            what = f"throughput, {workers} workers / 1"
            yield Figure(what, median(gains), "x", min(gains), max(gains), at_least=0.9 * workers)
            gains = [many.steady_rate(workers) / one.steady_rate(1) for many, one in zip(done, single, strict=True)]
            yield Figure(f"{what}, while all are at work", median(gains), "x", min(gains), max(gains))


def _measure_cost(bench: FleetBench) -> Iterator[Figure]:
    """Measure the same load without latency, in turns by a local pool with one thread and by a fleet with one worker."""
    load = dict.fromkeys(range(bench.setting.pick_size(40, 2)), 1.0)
    rounds = range(bench.setting.pick_size(5, 1))
    pairs = [(bench.run_shards(1, load, {}), bench.run_fleet(1, load, {})) for _ in rounds]
    times = [1000 * (fleet.seconds - local.seconds) / len(load) for local, fleet in pairs]
    yield Figure("more time for a recording in a fleet", median(times), "ms", min(times), max(times))
    for name in ("muxers", "broker"):
        used = [1000 * (fleet.cpu[name] - local.cpu[name] * (name == "muxers")) / len(load) for local, fleet in pairs]
        yield Figure(f"more processor time for a recording: {name}", median(used), "ms", min(used), max(used))


def _measure_skewed(bench: FleetBench) -> Iterator[Figure]:
    """Measure a shard with long calls only: static instances, and the same number of fleet workers."""
    pick = bench.setting.pick_size
    shards, each = pick(SHARDS, 2), pick(6, 1)
    load = {
        serial: SLOW_FACTOR if number == 0 else 1.0
        for number in range(shards)
        for serial in _serials_of_shard(number, shards, each)
    }
    load = dict(sorted(load.items()))
    delays = pick(DELAYS, {})
    pairs = [(bench.run_shards(shards, load, delays), bench.run_fleet(shards, load, delays)) for _ in range(pick(2, 1))]
    static, fleet = ([one.seconds for one in several] for several in zip(*pairs, strict=True))
    yield Figure(f"skewed load, {shards} static shards", median(static), "s", min(static), max(static))
    yield Figure(f"skewed load, {shards} workers of a fleet", median(fleet), "s", min(fleet), max(fleet))
    yield ratio_figure("skewed load, static shards / fleet", static, fleet)


def _serials_of_shard(number: int, shards: int, amount: int) -> list[int]:
    """Return the first serial numbers whose recordings fall on a shard."""
    plan = CallPlan("bench", 0)
    return list(islice((one for one in count() if shard_of(plan.recording_id(one), shards) == number), amount))
