"""Polls over a window of finished recordings: requests, memory, processor time, and how long a slow RWS makes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.lab import BenchLab, running_lab
from tests.bench.measure import BenchSetting, Figure, run_alternately
from tests.bench.processes import cpu_seconds, watch_memory
from tests.support.daemon import MuxerProcess, log_lines, wait_until

HOURS = 11.0
POLL_SECONDS = 600.0
# Deviations of a server cost requests; this server has plain paging.
PLAIN_PAGING = {"scroll_empty_first_page": False, "scroll_repeats_ids": False}
# Every poll reads the whole window. The pause after a poll is long enough to count the requests of the next one alone.
WHOLE_WINDOW = {"processing__poll_whole_window": "1", "processing__min_poll_interval": "0.2"}
# A poll interval for which the shortest reach is the whole window: a poll is one pass.
ONE_PASS = {"processing__min_poll_interval": "60"}
ONE_BY_ONE = {"advanced__concurrent_queries": "1", "advanced__pagination": "100"}
OVERLAPPING = {"advanced__pagination": "1000"}
RWS_SECONDS = 0.2


@dataclass(frozen=True)
class PollCost:
    """The cost of polls over a window: requests of one poll, processor seconds of one poll, memory in megabytes."""

    recordings: int
    requests: int
    cpu: float
    memory: float


def measure(setting: BenchSetting) -> Iterator[Figure]:
    """Measure ten thousand recordings against one thousand, and queries one by one against queries that overlap."""
    few, many = (_measure_polls(setting.folder, count) for count in setting.pick_size((1_000, 10_000), (20, 200)))
    yield Figure(
        f"requests for 100 recordings, window of {many.recordings}", 100 * many.requests / many.recordings, at_most=2.0
    )
    yield Figure(f"memory, window of {many.recordings}", many.memory, "MB")
    yield Figure(f"memory, window of {many.recordings} / of {few.recordings}", many.memory / few.memory, "x", at_most=1.2)
    yield Figure("processor time for a recording", 1000 * many.cpu / many.recordings, "ms")
    yield from _measure_overlap(setting)


def _measure_polls(folder: Path, count: int) -> PollCost:
    """Poll a window of `count` recordings several times. The first poll is excluded because of its one-time work."""
    with running_lab(folder / "lab", **PLAIN_PAGING) as lab:
        lab.add_finished(count, HOURS)
        config = lab.write_config(**WHOLE_WINDOW)
        with MuxerProcess(config) as muxer:
            pid = muxer.process.pid
            _wait_for_polls(lab, 1, count)
            before, seen = cpu_seconds(pid), len(_poll_lines(lab))
            lab.forget_requests()
            with watch_memory(pid) as peak:
                _wait_for_polls(lab, seen + 1, count)
                requests = len(lab.fetch_requests())
                _wait_for_polls(lab, seen + 2, count)
            after, still = cpu_seconds(pid), len(_poll_lines(lab))
            muxer.stop()
    return PollCost(count, requests, (after - before) / (still - seen), peak.megabytes)


def _measure_overlap(setting: BenchSetting) -> Iterator[Figure]:
    """Poll an RWS that takes 0.2 s for each response, by the former way and by the present one."""
    count, rounds = setting.pick_size(10_000, 300), setting.pick_size(3, 1)
    with running_lab(setting.folder / "slow", delays={"rws": RWS_SECONDS}, **PLAIN_PAGING) as lab:
        lab.add_finished(count, HOURS)
        taken = run_alternately(
            rounds,
            one_by_one=lambda: _time_first_poll(lab, count, ONE_BY_ONE),
            overlapping=lambda: _time_first_poll(lab, count, OVERLAPPING),
        )
    ratios = [new / old for old, new in zip(taken["one_by_one"], taken["overlapping"], strict=True)]
    what = f"a poll of {count} recordings, {RWS_SECONDS * 1000:.0f} ms a request"
    for name, seconds in taken.items():
        yield Figure(f"{what}, {name.replace('_', ' ')}", median(seconds), "s", min(seconds), max(seconds))
    yield Figure(f"{what}, overlapping / one by one", median(ratios), "x", min(ratios), max(ratios), at_most=0.25)


def _time_first_poll(lab: BenchLab, count: int, options: Mapping[str, str]) -> float:
    with MuxerProcess(lab.write_config(**ONE_PASS, **options)) as muxer:
        _wait_for_polls(lab, 1, count)
        muxer.stop()
    return float(_poll_lines(lab)[0]["seconds"])


def _wait_for_polls(lab: BenchLab, number: int, count: int) -> None:
    wait_until(lambda: len(_poll_lines(lab)) >= number, POLL_SECONDS, f"poll {number}", lab.log_path)
    wrong = [one for one in _poll_lines(lab) if one["found"] != count or one["already_done"] != count]
    if wrong:
        raise RuntimeError(f"a poll did not find {count} recordings with nothing to do: {wrong[0]}")


def _poll_lines(lab: BenchLab) -> list[dict[str, Any]]:
    return [line for line in log_lines(lab.log_path) if line["message"] == "poll done"]
