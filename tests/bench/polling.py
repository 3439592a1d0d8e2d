"""Polls over a window in which nothing is to be done: requests, memory, processor time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.lab import BenchLab, Seen, running_lab
from tests.bench.measure import Figure, Setting
from tests.bench.processes import cpu_seconds, watched
from tests.support.daemon import Muxer, log_lines, wait_until

HOURS = 11.0
POLL_SECONDS = 600.0


@dataclass(frozen=True)
class Polled:
    """What polls over a window cost: requests of one poll, processor seconds of one poll, memory in megabytes."""

    recordings: int
    requests: int
    cpu: float
    memory: float


def measure(setting: Setting) -> Iterator[Figure]:
    """Ten thousand recordings against one thousand."""
    few, many = (_polled(setting.folder, count) for count in setting.pick((1_000, 10_000), (20, 200)))
    yield Figure(
        f"requests for 100 recordings, window of {many.recordings}", 100 * many.requests / many.recordings, at_most=2.0
    )
    yield Figure(f"memory, window of {many.recordings}", many.memory, "MB")
    yield Figure(f"memory, window of {many.recordings} / of {few.recordings}", many.memory / few.memory, "x", at_most=1.2)
    yield Figure("processor time for a recording", 1000 * many.cpu / many.recordings, "ms")


def _polled(folder: Path, count: int) -> Polled:
    """Poll a window of so many recordings some times. The first poll, with all that happens once, does not count."""
    # What a server may do to make it hard costs requests; here it is one that pages plainly.
    plain = {"scroll_empty_first_page": False, "scroll_repeats_ids": False}
    with running_lab(folder / "lab", **plain) as lab:
        lab.add_finished(count, HOURS)
        config = lab.config(processing__min_poll_interval="0.01")
        with Muxer(config) as muxer:
            pid = muxer.process.pid
            _wait_for_polls(lab, 1, count)
            before, seen = cpu_seconds(pid), len(_polls(lab))
            with watched(pid) as peak:
                _wait_for_polls(lab, 3, count)
            after, still = cpu_seconds(pid), len(_polls(lab))
            muxer.stop()
            requests = _requests_of_a_poll(lab.requests())
    assert still >= seen + 2
    return Polled(count, requests, (after - before) / (still - seen), peak.megabytes)


def _wait_for_polls(lab: BenchLab, number: int, count: int) -> None:
    wait_until(lambda: len(_polls(lab)) >= number, POLL_SECONDS, f"poll {number}", lab.log)
    wrong = [one for one in _polls(lab) if one["found"] != count or one["already_done"] != count]
    if wrong:
        raise RuntimeError(f"a poll did not find {count} recordings with nothing to do: {wrong[0]}")


def _polls(lab: BenchLab) -> list[dict[str, Any]]:
    return [line for line in log_lines(lab.log) if line["message"] == "poll done"]


def _requests_of_a_poll(seen: Sequence[Seen]) -> int:
    """Return how many requests the second poll made: each begins with a query that has no scroll."""
    begins = [number for number, one in enumerate(seen) if "/recordings?" in one.path and "scrollId" not in one.path]
    return begins[2] - begins[1]
