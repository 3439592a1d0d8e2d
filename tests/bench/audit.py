"""Audits: requests, seconds and memory for a hundred thousand finished calls, and for a million findings."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

from lab.cases import ALICE
from muxer.audit.findings import Finding, FindingKind
from muxer.audit.ledger import AuditLedger
from muxer.system.exit_codes import EXIT_OK, EXIT_SOME_FAILED
from tests.bench.lab import BenchLab, running_lab
from tests.bench.measure import BenchSetting, Figure
from tests.bench.polling import PLAIN_PAGING
from tests.bench.processes import watch_memory
from tests.support.commands import start_command

HOURS = 24.0 * 30
AUDIT_SECONDS = 4 * 3600.0
# The audit is to be limited by the services, not by its pace.
UNLIMITED = "100000"
BEGIN = (datetime.now(UTC) - timedelta(hours=HOURS + 1)).isoformat()
SPANS = {"by days": ("--from", BEGIN), "by a query": ("--query", "startTime=0")}


def measure(setting: BenchSetting) -> Iterator[Figure]:
    """Measure a month with a hundred thousand calls, and one with a tenth of them; a million findings, and a thousand."""
    yield from measure_findings(setting)
    few, many = setting.pick_size((10_000, 100_000), (20, 200))
    memory: dict[tuple[str, int], float] = {}
    for count in (few, many):
        with running_lab(setting.folder / f"lab-{count}", encryption_group="empty", **PLAIN_PAGING) as lab:
            lab.add_finished(count, HOURS, stored=True)
            for form, which in SPANS.items():
                for figure in _measure_audit(lab, count, f"{count} calls {form}", which, setting.folder / "state"):
                    memory[form, count] = figure.value if figure.what.endswith("memory") else 0.0
                    yield figure
    for form in SPANS:
        yield Figure(
            f"audit of {many} calls {form}: memory / of {few}", memory[form, many] / memory[form, few], "x", at_most=1.2
        )


def _measure_audit(lab: BenchLab, count: int, what: str, which: tuple[str, str], state: Path) -> Iterator[Figure]:
    state.unlink(missing_ok=True)
    config = lab.write_config(advanced__pagination=1000)
    lab.forget_requests()
    started = time.monotonic()
    process = start_command(config, "audit", *which, "--rate", UNLIMITED, "--json", "--state", str(state))
    with watch_memory(process.pid) as peak:
        out, err = process.communicate(timeout=AUDIT_SECONDS)
    seconds = time.monotonic() - started
    report = json.loads(out or "{}")
    if process.returncode or report.get("counts", {}).get("files") != count or ALICE.username in err:
        raise RuntimeError(f"the audit did not find {count} calls complete: {out[-500:]}{err[-500:]}")
    requests = Counter(request.service for request in lab.fetch_requests())
    what = f"audit of {what}"
    yield Figure(f"{what}: requests to RWS for 100 calls", 100 * requests["rws"] / count)
    yield Figure(f"{what}: requests to the storage for a call", requests["dav"] / count)
    yield Figure(f"{what}: seconds", seconds, "s")
    yield Figure(f"{what}: calls a second", count / seconds)
    yield Figure(f"{what}: state file", state.stat().st_size / 1e6, "MB")
    yield Figure(f"{what}: memory", peak.megabytes, "MB")


def measure_findings(setting: BenchSetting) -> Iterator[Figure]:
    """Measure what shows the findings of an audit that has ended, and a repair that can repair none of them."""
    few, many = setting.pick_size((1_000, 1_000_000), (20, 200))
    forms = {"table": (), "--json": ("--json",), "--html": ("--html", str(setting.folder / "report.html"))}
    forms["--repair"] = ("--repair", "--yes")
    memory: dict[tuple[int, str], float] = {}
    seconds: dict[str, float] = {}
    with running_lab(setting.folder / "lab-findings") as lab:
        config = lab.write_config()
        for count in (few, many):
            state = setting.folder / f"findings-{count}.state"
            command = ("audit", "--query", "startTime=0", "--rate", UNLIMITED, "--state", str(state))
            _run_audit(config, *command, code=EXIT_SOME_FAILED)  # of no call, which proves nothing
            _add_findings(state, count)
            for form, options in forms.items():
                seconds[form], memory[count, form] = _run_audit(config, *command, *options, code=EXIT_SOME_FAILED)
    for form in forms:
        what = f"audit with {many} findings, {form}"
        yield Figure(f"{what}: seconds", seconds[form], "s")
        yield Figure(f"{what}: memory", memory[many, form], "MB")
        yield Figure(f"{what}: memory / with {few}", memory[many, form] / memory[few, form], "x", at_most=1.2)


def _run_audit(config: Path, *command: str, code: int = EXIT_OK) -> tuple[float, float]:
    """Run a command whose output is not kept. Returns its seconds and its peak memory."""
    started = time.monotonic()
    process = start_command(config, *command)
    with watch_memory(process.pid) as peak:
        size = _count_output(process)
    if process.wait() != code:
        raise RuntimeError(f"{command} ended with {process.returncode} after {size} characters")
    return time.monotonic() - started, peak.megabytes


def _count_output(process: subprocess.Popen[str]) -> int:
    """Read and drop what a process prints."""
    assert process.stdout is not None
    return sum(map(len, iter(lambda: process.stdout.read(1 << 16), "")))


def _add_findings(state: Path, count: int) -> None:
    """Add findings of as many calls that no repair can correct, and one that a repair tries."""
    ledger = AuditLedger(state, {})
    ids = (f"{number:08d}-1111-4222-8333-444455556666" for number in range(count))
    text = "the screen file is not where its metadata say"
    findings = (
        Finding(FindingKind.SOURCE_MISSING, one, f"agent_{one}.mp4", text, started=1.7e9 + row)
        for row, one in enumerate(ids)
    )
    unknown = Finding(FindingKind.MISSING, "unknown", "unknown_muxed.mp4", "no muxed file", "unknown_muxed.mp4", 1.8e9)
    ledger.add_findings(chain(findings, [unknown]))
    ledger.close()
