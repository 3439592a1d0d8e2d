"""A muxer whose services fail at random: the additional transfers, muxes and time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench import inputs
from tests.bench.lab import BenchLab, running_lab
from tests.bench.measure import BenchSetting, Figure
from tests.support.daemon import MuxerProcess, log_lines

SEED = 14
PARTS = (0.1, 0.3, 0.5)
RUN_SECONDS = 600.0
POLL_MINUTES = 0.05
# The default.
WORKERS = 5
GOALS: dict[tuple[float, str], dict[str, float]] = {
    (0.3, "muxes"): {"at_most": 1.1},
    (0.3, "bytes"): {"at_most": 1.3},
    (0.5, "seconds"): {"at_most": 120.0},
}


def measure(setting: BenchSetting) -> Iterator[Figure]:
    """Measure twenty recordings, half of them encrypted, with 10, 30 and 50 % failing requests to RWS, RCS and WebDAV."""
    count = setting.pick_size(20, 2)
    call = inputs.create_call(setting.folder, setting.pick_size(60, 2))
    for part in setting.pick_size(PARTS, PARTS[:1]):
        with TemporaryDirectory(dir=setting.folder) as folder, running_lab(Path(folder)) as lab:
            ids = [lab.add_recent(call, number, encrypted=number % 2 == 0).id for number in range(count)]
            what = f"{count} recordings, {part:.0%} of all requests fail"
            yield from _run_muxer(lab, set(ids), what, part)


def _run_muxer(lab: BenchLab, ids: set[str], what: str, part: float) -> Iterator[Figure]:
    config = lab.write_config(processing__min_poll_interval=POLL_MINUTES, advanced__worker_threads=WORKERS)
    lab.fail_at_random(part, SEED)
    started = time.monotonic()
    with MuxerProcess(config) as muxer:
        while not ids <= set(lab.fetch_outcome().muxed):
            if time.monotonic() - started > RUN_SECONDS or muxer.process.poll() is not None:
                raise RuntimeError(f"not everything was published: {what}")
            time.sleep(0.2)
        seconds = time.monotonic() - started
        muxer.stop()
    lines, outcome = log_lines(lab.log_path), lab.fetch_outcome()
    muxes = _count_messages(lines, "mux done", "mux failed") / len(ids)
    yield Figure(f"{what}: muxes for a published recording", muxes, "x", **_goal_of(part, "muxes"))
    sent = outcome.sent / outcome.whole
    yield Figure(f"{what}: bytes fetched / bytes of the sources", sent, "x", **_goal_of(part, "bytes"))
    yield Figure(f"{what}: until all are published", seconds, "s", **_goal_of(part, "seconds"))
    out = sum(" is unavailable; " in line["message"] for line in lines)
    yield Figure(f"{what}: more outages than there were", out)


def _goal_of(part: float, what: str) -> dict[str, float]:
    return GOALS.get((part, what), {})


def _count_messages(lines: list[dict[str, Any]], *messages: str) -> int:
    return sum(line["message"] in messages for line in lines)
