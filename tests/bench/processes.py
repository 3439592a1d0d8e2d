"""Memory and processor time of a process and its children, from /proc."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
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
    peak = PeakMemory()

    def sample_memory() -> None:
        peak.megabytes = max(peak.megabytes, sum(map(_read_pss_kilobytes, process_tree(pid))) / 1024)

    with repeated_call(sample_memory, SAMPLE_INTERVAL):
        yield peak


@contextmanager
def repeated_call(action: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call `action` every `seconds` in another thread until the end of the block."""
    over = threading.Event()

    def call_repeatedly() -> None:
        while not over.wait(seconds):
            action()

    thread = threading.Thread(target=call_repeatedly, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def process_tree(pid: int) -> list[int]:
    """Return the ids of a process and of all its descendants."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := read_stat(folder)):
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found, new = [], [pid]
    while new:
        found += new
        new = [child for one in new for child in children.get(one, ())]
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor seconds of a process, including its ended children."""
    return sum(int(one) for one in read_stat(Path(f"/proc/{pid}"))[11:15]) / TICKS


def read_stat(folder: Path) -> list[str]:
    """Return the fields of the file stat of a process or a thread from the state on; an empty list when it has ended."""
    try:
        return (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _read_pss_kilobytes(pid: int) -> int:
    """Return the proportional memory (PSS) of a process in kilobytes."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
