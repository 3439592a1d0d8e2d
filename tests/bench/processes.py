"""Memory and processor time of a process and its children, from /proc."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SAMPLE_INTERVAL = 0.05
TICKS = os.sysconf("SC_CLK_TCK")


class PeakMemory:
    """The peak memory of a process and its children, in megabytes."""

    def __init__(self) -> None:
        self.megabytes = 0.0


@contextmanager
def watch_memory(pid: int) -> Iterator[PeakMemory]:
    """Sample the memory of a process and its children until the end of the block."""
    peak, over = PeakMemory(), threading.Event()

    def sample_memory() -> None:
        while not over.wait(SAMPLE_INTERVAL):
            peak.megabytes = max(peak.megabytes, sum(map(_read_pss_kilobytes, process_tree(pid))) / 1024)

    thread = threading.Thread(target=sample_memory, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def process_tree(pid: int) -> list[int]:
    """Return the ids of a process and of all its descendants."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _read_stat(int(folder.name))):
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found, new = [], [pid]
    while new:
        found += new
        new = [child for one in new for child in children.get(one, ())]
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor seconds of a process, including its ended children."""
    return sum(int(one) for one in _read_stat(pid)[11:15]) / TICKS


def _read_stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; an empty list when the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _read_pss_kilobytes(pid: int) -> int:
    """Return the proportional memory (PSS) of a process in kilobytes."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
