"""Whole runs of the muxer on Apache, against curl and ffmpeg with the same files, server and concurrency."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from lab.dav import ExternalDav
from tests.bench import inputs
from tests.bench.engine import run_bare_copy
from tests.bench.inputs import Call
from tests.bench.lab import AddedRecording, BenchLab, migration_query, running_lab
from tests.bench.measure import BenchSetting, Figure, ratio_figure, run_alternately, seconds_figure, time_action
from tests.bench.running_threads import MUXER, NONE, OTHER, sampled_threads
from tests.support.apache import run_apache
from tests.support.daemon import run_muxer

RUN_SECONDS = 1800.0


@dataclass
class PipelineBench:
    """A lab with Apache as its storage, and both ways to process its calls."""

    lab: BenchLab
    dav: ExternalDav
    calls: Sequence[Call]
    workers: int
    startups: list[float] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)
    lab_cpu: float = 0.0
    cpu: dict[str, list[float]] = field(default_factory=lambda: {"muxer": [], "bare": []})
    # The share of the time of all cores in which they had nothing to do.
    idle: dict[str, list[float]] = field(default_factory=lambda: {"muxer": [], "bare": []})

    def run_muxer(self) -> float:
        """Run a migration over new calls. Returns the seconds from the start of the process to its end."""
        added = self.lab.add_calls(self.calls)
        config = self.lab.write_config(
            advanced__worker_threads=self.workers, advanced__call_recording_query_string=migration_query(added)
        )
        self.lab.forget_requests()
        cpu, log = self.lab.fetch_cpu_seconds(), self.dav.root.parent / "access.log"
        before, started, used = _count_lines(log), time.time(), _children_cpu_seconds()
        with self._idle_share("muxer"):
            done = run_muxer(config, seconds=RUN_SECONDS)
        taken = time.time() - started
        self.cpu["muxer"].append(_children_cpu_seconds() - used)
        if done.process.returncode or f" {len(added)} files muxed" not in done.out:
            raise RuntimeError(f"the muxer did not mux everything: {done.out}{done.err}")
        seen = self.lab.fetch_requests()
        self.startups.append(seen[0].time - started)
        self.requests = {"RWS": len(seen), "WebDAV": _count_lines(log) - before}
        self.lab_cpu = self.lab.fetch_cpu_seconds() - cpu
        return taken

    def run_bare(self) -> float:
        """Run the same transfers and a copy with curl and ffmpeg."""
        added = self.lab.add_calls(self.calls)
        with TemporaryDirectory(dir=self.lab.folder) as folder, ThreadPoolExecutor(self.workers) as pool:
            used = _children_cpu_seconds()
            with self._idle_share("bare"):
                taken = time_action(lambda: list(pool.map(lambda one: self._transfer_bare(one, Path(folder)), added)))
            self.cpu["bare"].append(_children_cpu_seconds() - used)
            return taken

    def watch_muxer(self) -> Iterator[tuple[str, float]]:
        """Run the muxer once more, and yield what runs alone: a text, and its share of the time. Sampling slows it down."""
        started = time.time()
        with sampled_threads(self.lab.folder / "muxer.cfg") as samples:
            self.run_muxer()
        first_request = started + self.startups[-1]
        parts = (("start", started, first_request), ("from the first RWS request on", first_request, time.time()))
        for name, begin, end in parts:
            for kind, text in {NONE: "nothing", MUXER: "one thread of the muxer", OTHER: "one of another program"}.items():
                yield f"{name}: {text} runs", samples.share(kind, begin, end)

    @contextmanager
    def _idle_share(self, way: str) -> Iterator[None]:
        before = _core_seconds()
        yield
        total, idle = (after - earlier for after, earlier in zip(_core_seconds(), before, strict=True))
        self.idle[way].append(idle / max(total, 1))

    def _transfer_bare(self, call: AddedRecording, folder: Path) -> None:
        audio, out = folder / call.audio, folder / f"{call.id}_out.mp4"
        screens = [folder / screen for screen in call.screens]
        curl = ["curl", "--silent", "--fail", "--user", f"{self.dav.username}:{self.dav.password}"]
        for path, collection in ((audio, "calls"), *((screen, "screens") for screen in screens)):
            inputs.run_command([*curl, "--output", path, f"{self.dav.url}/{collection}/{path.name}"])
        run_bare_copy(audio, screens, out)
        inputs.run_command(
            [*curl, "--output", folder / "answer", "--upload-file", out, f"{self.dav.url}/screens/{out.name}"]
        )


def _children_cpu_seconds() -> float:
    """Return the processor seconds of all programs that have ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _core_seconds() -> tuple[int, int]:
    """Return the time of all cores, and how much of it they were idle or waited for a disk (Linux, in ticks)."""
    user, nice, system, idle, iowait, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    return user + nice + system + idle + iowait + sum(rest), idle + iowait


def _count_lines(path: Path) -> int:
    return len(path.read_bytes().splitlines())


@contextmanager
def pipeline_bench(folder: Path, calls: Sequence[Call], workers: int) -> Iterator[PipelineBench]:
    """Yield a running site; nothing is encrypted."""
    with ExitStack() as stack:
        dav = stack.enter_context(run_apache())
        folder = Path(stack.enter_context(TemporaryDirectory(dir=folder)))
        lab = stack.enter_context(running_lab(folder, dav, encryption_group="empty"))
        yield PipelineBench(lab, dav, calls, workers)


def measure(setting: BenchSetting) -> Iterator[Figure]:
    """Measure sixteen calls of each keyframe distance, with one and with three screen files, four at a time."""
    count, rounds = setting.pick_size(16, 2), setting.pick_size(5, 1)
    for name, call in inputs.vary_calls(setting):
        with pipeline_bench(setting.folder, [call] * count, workers=4) as bench:
            taken = run_alternately(rounds, bare=bench.run_bare, muxer=bench.run_muxer)
            yield from _compare_ways(name, count, bench, taken)
            for text, share in bench.watch_muxer():
                yield Figure(f"{name}: share of the time, {text}", share)


def _compare_ways(name: str, count: int, bench: PipelineBench, taken: dict[str, list[float]]) -> Iterator[Figure]:
    working = [whole - start for whole, start in zip(taken["muxer"], bench.startups, strict=True)]
    yield seconds_figure(f"{name}: {count} calls by curl, ffmpeg, curl (bare)", taken["bare"])
    yield ratio_figure(f"{name}: whole run / bare", taken["muxer"], taken["bare"], at_most=1.5)
    yield ratio_figure(f"{name}: from the first RWS request on / bare", working, taken["bare"], at_most=1.3)
    yield ratio_figure(f"{name}: processor time / bare", bench.cpu["muxer"], bench.cpu["bare"])
    busy = [whole * (1 - idle) for whole, idle in zip(taken["muxer"], bench.idle["muxer"], strict=True)]
    for way, shares in bench.idle.items():
        yield Figure(f"{name}: idle share of the cores, {way}", median(shares), "", min(shares), max(shares))
    yield ratio_figure(f"{name}: whole run / bare, if its cores were never idle", busy, taken["bare"])
    requests = ", ".join(f"{number / count:.1f} to {service}" for service, number in bench.requests.items())
    yield Figure(f"{name}: requests for a call ({requests})", sum(bench.requests.values()) / count)
    yield Figure(f"{name}: processor seconds of the lab's RWS for a call", bench.lab_cpu / count, "s")
