"""An audit of finished recordings whose files exist: requests, seconds and memory for a hundred thousand calls."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lab.cases import ALICE
from tests.bench.lab import BenchLab, running_lab
from tests.bench.measure import BenchSetting, Figure
from tests.bench.polling import PLAIN_PAGING
from tests.bench.processes import watch_memory
from tests.support.commands import start_command

HOURS = 24.0 * 30
AUDIT_SECONDS = 4 * 3600.0
# The audit is to be limited by the services, not by its pace.
UNLIMITED = "100000"


def measure(setting: BenchSetting) -> Iterator[Figure]:
    """Measure a month with a hundred thousand calls, and one with a tenth of them."""
    few, many = setting.pick_size((10_000, 100_000), (20, 200))
    memory = {}
    for count in (few, many):
        with running_lab(setting.folder / f"lab-{count}", encryption_group="empty", **PLAIN_PAGING) as lab:
            lab.add_finished(count, HOURS, stored=True)
            for figure in _measure_audit(lab, count, setting.folder / f"audit-{count}.state"):
                memory[count] = figure.value if figure.what.endswith("memory") else memory.get(count, 0.0)
                yield figure
    yield Figure(f"audit of {many} calls: memory / of {few}", memory[many] / memory[few], "x", at_most=1.2)


def _measure_audit(lab: BenchLab, count: int, state: Path) -> Iterator[Figure]:
    config = lab.write_config(advanced__pagination=1000)
    lab.forget_requests()
    started = time.monotonic()
    begin = (datetime.now(UTC) - timedelta(hours=HOURS + 1)).isoformat()
    process = start_command(config, "audit", "--from", begin, "--rate", UNLIMITED, "--json", "--state", str(state))
    with watch_memory(process.pid) as peak:
        out, err = process.communicate(timeout=AUDIT_SECONDS)
    seconds = time.monotonic() - started
    report = json.loads(out or "{}")
    if process.returncode or report.get("counts", {}).get("files") != count or ALICE.username in err:
        raise RuntimeError(f"the audit did not find {count} calls complete: {out[-500:]}{err[-500:]}")
    requests = Counter(request.service for request in lab.fetch_requests())
    what = f"audit of {count} calls"
    yield Figure(f"{what}: requests to RWS for 100 calls", 100 * requests["rws"] / count)
    yield Figure(f"{what}: requests to the storage for a call", requests["dav"] / count)
    yield Figure(f"{what}: calls a second", count / seconds)
    yield Figure(f"{what}: state file", state.stat().st_size / 1e6, "MB")
    yield Figure(f"{what}: memory", peak.megabytes, "MB")
