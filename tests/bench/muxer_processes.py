"""Processes of the muxer that work side by side on one lab: static shards, or a poller and workers of a fleet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.lab import ROOT, BenchLab
from tests.bench.processes import cpu_seconds, process_tree
from tests.support.daemon import wait_until

RUN_SECONDS = 1800.0
STOP_SECONDS = 30.0
# The interval between checks of the progress.
CHECK_INTERVAL = 0.2
MUXER = ("muxer_process.py",)
WORKER = ("-m", "muxer", "worker")


@dataclass(frozen=True)
class Effort:
    """The cost of some recordings: seconds from the first request for one to the last publication, and the processor
    seconds of the muxers, the lab and the broker in that time."""

    recordings: int
    seconds: float
    cpu: Mapping[str, float]
    published: Sequence[float]

    def steady_rate(self, at_once: int) -> float:
        """Return the recordings published per minute while all threads are busy. `at_once`: the number processed at a time.
        Excludes the first one of each thread, and the last ones, when some threads are idle."""
        times = sorted(self.published)
        first, last = at_once - 1, max(at_once, len(times) - at_once - 1)
        return 60 * (last - first) / (times[last] - times[first])

    @property
    def whole_rate(self) -> float:
        """Recordings per minute over the whole time, including the start and the unequal last rounds."""
        return 60 * self.recordings / self.seconds

    @property
    def cores_used(self) -> float:
        """The number of cores in use on average."""
        return sum(self.cpu.values()) / self.seconds


class MuxerProcesses:
    """Muxer processes that work on a lab. ``broker``: process id of the broker, if any."""

    def __init__(self, lab: BenchLab, broker: int | None = None) -> None:
        self._lab = lab
        self._broker = broker
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, program: Sequence[str], config: Path, *arguments: str, **env: str) -> None:
        """Start a process with a configuration, in the folder of the program as in the guide."""
        folder = ROOT / "muxer" if program == MUXER else ROOT
        command = [sys.executable, *program, f"--config-file={config}", *arguments]
        output = (self._lab.folder / f"output-{len(self._processes)}.txt").open("wb")
        with output:
            process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self._processes.append(process)

    def wait_for_published(self, count: int) -> Effort:
        """Wait until `count` recordings are published. Returns the seconds. Raises when a process ends meanwhile."""
        before = self._cpu_by_process()
        wait_until(lambda: self._has_published(count), RUN_SECONDS, f"{count} published recordings")
        after = self._cpu_by_process()
        started, published = self._lab.fetch_progress()
        if started is None or len(published) != count:
            raise RuntimeError(f"{len(published)} publications of {count} recordings")
        used = {name: after[name] - before[name] for name in after}
        return Effort(count, max(published) - started, used, published)

    def stop(self) -> None:
        """End all processes with SIGTERM."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _has_published(self, count: int) -> bool:
        time.sleep(CHECK_INTERVAL)
        for number, process in enumerate(self._processes):
            if process.poll() is not None:
                raise RuntimeError(f"a muxer ended: {(self._lab.folder / f'output-{number}.txt').read_text()[-2000:]}")
        return len(self._lab.fetch_progress()[1]) >= count

    def _cpu_by_process(self) -> dict[str, float]:
        muxers = sum(cpu_seconds(pid) for process in self._processes for pid in process_tree(process.pid))
        broker = sum(map(cpu_seconds, process_tree(self._broker))) if self._broker is not None else 0.0
        return {"muxers": muxers, "lab": cpu_seconds(self._lab.process_id), "broker": broker}


@contextmanager
def run_processes(lab: BenchLab, broker: int | None = None) -> Iterator[MuxerProcesses]:
    """Yield a group without processes; end the processes that were started in it."""
    processes = MuxerProcesses(lab, broker)
    try:
        yield processes
    finally:
        processes.stop()
