"""Polls over a window of finished recordings: requests, memory, processor time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.lab import BenchLab, LoggedRequest, running_lab
from tests.bench.measure import BenchSetting, Figure
from tests.bench.processes import cpu_seconds, watch_memory
from tests.support.daemon import MuxerProcess, log_lines, wait_until

HOURS = 11.0
POLL_SECONDS = 600.0


@dataclass(frozen=True)
class PollCost:
    """The cost of polls over a window: requests of one poll, processor seconds of one poll, memory in megabytes."""

    recordings: int
    requests: int
    cpu: float
    memory: float


def measure(setting: BenchSetting) -> Iterator[Figure]:
    """Measure ten thousand recordings against one thousand."""
    few, many = (_measure_polls(setting.folder, count) for count in setting.pick_size((1_000, 10_000), (20, 200)))
    yield Figure(
        f"requests for 100 recordings, window of {many.recordings}", 100 * many.requests / many.recordings, at_most=2.0
    )
    yield Figure(f"memory, window of {many.recordings}", many.memory, "MB")
    yield Figure(f"memory, window of {many.recordings} / of {few.recordings}", many.memory / few.memory, "x", at_most=1.2)
    yield Figure("processor time for a recording", 1000 * many.cpu / many.recordings, "ms")


def _measure_polls(folder: Path, count: int) -> PollCost:
    """Poll a window of `count` recordings several times. The first poll is excluded because of its one-time work."""
    # Deviations of a server cost requests; this server has plain paging.
    plain = {"scroll_empty_first_page": False, "scroll_repeats_ids": False}
    with running_lab(folder / "lab", **plain) as lab:
        lab.add_finished(count, HOURS)
        config = lab.write_config(processing__min_poll_interval="0.01", processing__poll_whole_window="1")
        with MuxerProcess(config) as muxer:
            pid = muxer.process.pid
            _wait_for_polls(lab, 1, count)
            before, seen = cpu_seconds(pid), len(_poll_lines(lab))
            with watch_memory(pid) as peak:
                _wait_for_polls(lab, 3, count)
            after, still = cpu_seconds(pid), len(_poll_lines(lab))
            muxer.stop()
            requests = _count_poll_requests(lab.fetch_requests())
    assert still >= seen + 2
    return PollCost(count, requests, (after - before) / (still - seen), peak.megabytes)


def _wait_for_polls(lab: BenchLab, number: int, count: int) -> None:
    wait_until(lambda: len(_poll_lines(lab)) >= number, POLL_SECONDS, f"poll {number}", lab.log_path)
    wrong = [one for one in _poll_lines(lab) if one["found"] != count or one["already_done"] != count]
    if wrong:
        raise RuntimeError(f"a poll did not find {count} recordings with nothing to do: {wrong[0]}")


def _poll_lines(lab: BenchLab) -> list[dict[str, Any]]:
    return [line for line in log_lines(lab.log_path) if line["message"] == "poll done"]


def _count_poll_requests(seen: Sequence[LoggedRequest]) -> int:
    """Return the number of requests of the second poll. Each poll starts with a query without scroll."""
    begins = [number for number, one in enumerate(seen) if "/recordings?" in one.path and "scrollId" not in one.path]
    return begins[2] - begins[1]
