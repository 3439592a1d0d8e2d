"""Which threads run while a core has nothing to do: samples the states of all threads (Linux)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.processes import read_stat, repeated_call

INTERVAL_SECONDS = 0.02
PROC = Path("/proc")
# What a sample shows: no thread runs, one of the muxer runs alone, one of another program does, or several run.
NONE, MUXER, OTHER, SEVERAL = "none", "muxer", "other", "several"


class ThreadSamples:
    """The time of each sample, and what it shows."""

    def __init__(self) -> None:
        self.taken: list[tuple[float, str]] = []

    def share(self, kind: str, begin: float, end: float) -> float:
        """Return the share of the samples between two times that show `kind`."""
        shown = [one for at, one in self.taken if begin <= at < end]
        return shown.count(kind) / max(len(shown), 1)


@contextmanager
def sampled_threads(config: Path) -> Iterator[ThreadSamples]:
    """Sample all threads but those of this process; the muxer is the process with `config` in its command line."""
    samples = ThreadSamples()

    def take_sample() -> None:
        samples.taken.append((time.time(), _find_running(str(config).encode())))

    with repeated_call(take_sample, INTERVAL_SECONDS):
        yield samples


def _find_running(config: bytes) -> str:
    running = [
        process
        for process in PROC.iterdir()
        if process.name.isdigit() and int(process.name) != os.getpid()
        for task in _list_tasks(process)
        if read_stat(task)[:1] == ["R"]
    ]
    if len(running) != 1:
        return SEVERAL if running else NONE
    with suppress(OSError):
        return MUXER if config in (running[0] / "cmdline").read_bytes() else OTHER
    return OTHER


def _list_tasks(process: Path) -> list[Path]:
    with suppress(OSError):
        return list((process / "task").iterdir())
    return []
