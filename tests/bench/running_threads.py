"""Which threads run while a core has nothing to do: samples the states of all threads (Linux)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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
    samples, ended = ThreadSamples(), threading.Event()

    def take_samples() -> None:
        while not ended.wait(INTERVAL_SECONDS):
            samples.taken.append((time.time(), _find_running(str(config).encode())))

    thread = threading.Thread(target=take_samples, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def _find_running(config: bytes) -> str:
    running = [
        process
        for process in PROC.iterdir()
        if process.name.isdigit() and int(process.name) != os.getpid()
        for task in _list_tasks(process)
        if _is_running(task)
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


def _is_running(task: Path) -> bool:
    with suppress(OSError):
        # The state follows the name of the program, which may contain anything.
        return (task / "stat").read_bytes().rpartition(b")")[2].split()[0] == b"R"
    return False
