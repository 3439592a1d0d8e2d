"""Weeks of polls with a fast clock, and a backlog of thousands: memory and files do not grow.

The lab's RWS responds without a network; storage and engine contain nothing (:mod:`support.inside`). All else is real:
the daemon, its threads, the journal, the temporary folder, the log. ``FAULTS_POLLS`` and ``FAULTS_BACKLOG`` set other sizes.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import astuple, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from lab.lab import Lab
from lab.switches import Switches
from muxer.audit.auditor import Auditor
from muxer.audit.findings import Finding, FindingKind
from muxer.audit.ledger import LEDGER_FILE, AuditLedger
from muxer.audit.pace import Pace
from muxer.audit.scope import AuditScope
from muxer.config import load_config
from muxer.config.schema import Config
from muxer.errors import MediaError, MediaNotFound, ServiceUnavailable
from muxer.gir import rws
from muxer.journal import journal
from muxer.log import setup
from muxer.pipeline.services import Services
from muxer.scheduling.executor import ThreadExecutor
from tests.support.calls import write_config
from tests.support.in_process_site import SWITCHES, GeneratedRecordings, create_daemon, recording_number
from tests.support.log_handlers import restored_log_handlers

Make = Callable[..., Lab]
POLL_COUNT = int(os.environ.get("FAULTS_POLLS", "2600"))
BACKLOG_COUNT = int(os.environ.get("FAULTS_BACKLOG", "2500"))
# At ten minutes a poll, longer than the retention of the journal.
WARM_UP_POLLS = 1200
POLL_MINUTES = 10
# The recordings from one collection of garbage to the next.
COLLECTION_INTERVAL = 100
BACKLOG_TIMEOUT_SECONDS = 900
# The number of objects changes from poll to poll with what is in progress; the least of some polls counts.
MEASURED_POLLS = 20


class PeakUsage:
    """Peak number of Python objects and memory of this process, sampled for each recording.

    Objects are counted after a collection: how much garbage waits for one has nothing to do with the backlog.
    """

    def __init__(self) -> None:
        self.blocks = self.kilobytes = self._samples = 0

    def sample_usage(self, _name: str = "") -> None:
        self._samples += 1
        if self._samples % COLLECTION_INTERVAL == 0:
            gc.collect()
            self.blocks = max(self.blocks, sys.getallocatedblocks())
        self.kilobytes = max(self.kilobytes, resident_kilobytes())


def resident_kilobytes() -> int:
    """Return the resident memory of this process in kilobytes, without freed memory that the C library still holds.

    How much that is depends on which threads ran at the same time.
    """
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def work_through(lab: Lab, count: int) -> PeakUsage:
    """Process a backlog of `count` recordings. Returns the peak memory."""
    store, seen = GeneratedRecordings(lab, range(count)), PeakUsage()
    config = load_config(write_config(lab, str(count), advanced__call_recording_query_string="startTime=0"), {}, {}).config
    gc.collect()
    assert create_daemon(lab, config, threading.Event(), muxing=seen.sample_usage).run() == 0
    assert store.count_finished(store.alive) == count
    return seen


def measure_backlogs(folder: Path, counts: Sequence[int]) -> list[PeakUsage]:
    """Process a backlog of each of `counts` recordings after a first one of 100."""
    with Lab(folder, Switches(**SWITCHES)) as lab:
        return [work_through(lab, count) for count in (100, *counts)][1:]


@pytest.mark.long
def test_memory_does_not_grow_with_backlog(tmp_path: Path) -> None:
    """Only the id of each recording is kept in memory, not its metadata of a hundred objects."""
    few = BACKLOG_COUNT // 5
    # In a process of its own: what other tests left in this one is not counted.
    with ProcessPoolExecutor(1, get_context("spawn")) as own:
        small, large = own.submit(measure_backlogs, tmp_path / "lab", (few, BACKLOG_COUNT)).result(BACKLOG_TIMEOUT_SECONDS)
    more = BACKLOG_COUNT - few
    # 4 to 8 as measured: it depends on how far the search is ahead of the work.
    assert large.blocks - small.blocks < 15 * more
    assert large.kilobytes - small.kilobytes < 2 * more
    assert large.kilobytes < 1.3 * small.kilobytes


# ---- weeks of polls -----------------------------------------------------------------------------------


class FastClockStop(threading.Event):
    """The stop event of a daemon whose poll thread never waits: the clock advances instead, and ``then`` is called."""

    def __init__(self, patch: pytest.MonkeyPatch, then: Callable[[], None]) -> None:
        super().__init__()
        self._then, self._ahead = then, 0.0
        monotonic, epoch = time.monotonic, time.time
        patch.setattr(time, "monotonic", lambda: monotonic() + self._ahead)
        patch.setattr(time, "time", lambda: epoch() + self._ahead)

    def wait(self, timeout: float | None = None) -> bool:
        if threading.current_thread().name != "poller":
            return super().wait(timeout)
        self._ahead += timeout or 0.0
        self._then()
        return self.is_set()


@dataclass(frozen=True)
class ResourceUsage:
    """The resources that this process uses at one time."""

    blocks: int
    kilobytes: int
    files: int
    threads: int
    temporary: int
    rows: int
    journal: int

    @classmethod
    def of_process(cls, temp: Path) -> ResourceUsage:
        """Measure this process and the temporary folder of its daemon."""
        with sqlite3.connect(temp / "journal.sqlite3") as database:
            [rows] = database.execute("SELECT count(*) FROM targets").fetchone()
        database.close()
        gc.collect()
        return cls(
            blocks=sys.getallocatedblocks(),
            kilobytes=resident_kilobytes(),
            files=len(list(Path("/proc/self/fd").iterdir())),
            threads=threading.active_count(),
            temporary=len(list(temp.rglob("*"))),
            rows=rows,
            journal=sum(path.stat().st_size for path in temp.glob("journal*")),
        )

    @classmethod
    def least_of(cls, several: Sequence[ResourceUsage]) -> ResourceUsage:
        """Return the least of each number."""
        return cls(*map(min, *map(astuple, several)))


def never_comes(number: int) -> bool:
    """Return whether the media of a recording never arrive."""
    return number % 40 == 7


def is_broken(number: int) -> bool:
    """Return whether the media of a recording are broken."""
    return number % 30 == 3


class SimulatedWeeks:
    """Events between the polls: recordings are added and removed, some can never be muxed, services fail for a while;
    ``before`` is measured after the warm-up, ``after`` at the end."""

    def __init__(self, store: GeneratedRecordings, temp: Path) -> None:
        self._store, self._temp = store, temp
        self.stop = threading.Event()
        self.pool: ThreadExecutor
        self.before: list[ResourceUsage] = []
        self.after: list[ResourceUsage] = []
        self._out = 0

    def next_poll(self) -> None:
        """Advance to the next poll when the work of the last one is done, within ten minutes."""
        while not self.pool.is_idle:
            time.sleep(0.001)
        polls = self._store.polls
        last = polls // 2
        self._store.alive = range(max(0, last - 12), last)
        if polls % 400 == 399 and polls != self._out:
            self._out = polls
            self._store.fail_next("rws", "GET", "/recordings?", 503, times=7)
        if polls > WARM_UP_POLLS and len(self.before) < MEASURED_POLLS:
            self.before.append(ResourceUsage.of_process(self._temp))
        if polls > POLL_COUNT:
            self.after.append(ResourceUsage.of_process(self._temp))
            if len(self.after) == MEASURED_POLLS:
                self.stop.set()

    def before_fetch(self, name: str) -> None:
        """Fail for a file: the storage is unavailable from time to time, and some files never arrive."""
        if self._store.polls % 300 < 5:
            raise ServiceUnavailable("the storage is down")
        if never_comes(recording_number(name)):
            raise MediaNotFound(f"{name} is not there")

    def before_mux(self, name: str) -> None:
        """Fail for a recording whose media are broken."""
        if is_broken(recording_number(name)):
            raise MediaError(f"{name} is broken")


@pytest.fixture
def a_log() -> Iterator[None]:
    """Start the log of the muxer, and end it after the test."""
    with restored_log_handlers():
        yield


@pytest.mark.long
def test_weeks_of_polls_leak_no_resources(make_lab: Make, monkeypatch: pytest.MonkeyPatch, a_log: None) -> None:
    """The weeks exceed the retention of the journal; limits that are longer are reduced here."""
    monkeypatch.setattr(rws, "MAX_REMEMBERED_LABELS", 100)
    monkeypatch.setattr(journal, "MAX_DONE_IN_MEMORY", 100)
    lab = make_lab(**SWITCHES)
    options = {"processing__min_poll_interval": str(POLL_MINUTES), "advanced__worker_threads": "2"}
    config = load_config(write_config(lab, logfile__max_bytes="100000", logfile__backup_count="2", **options), {}, {}).config
    setup.set_up_logging(config.logfile, "single", ())
    store = GeneratedRecordings(lab)
    weeks = SimulatedWeeks(store, config.processing.temp_dir or Path())
    weeks.stop = FastClockStop(monkeypatch, weeks.next_poll)
    daemon = create_daemon(lab, config, weeks.stop, weeks.before_fetch, weeks.before_mux)
    weeks.pool = daemon._executor  # type: ignore[assignment]
    assert daemon.run() == 0
    before, after = ResourceUsage.least_of(weeks.before), ResourceUsage.least_of(weeks.after)
    # What a poll leaves behind has a key and a value at least.
    assert after.blocks - before.blocks < 2 * (POLL_COUNT - WARM_UP_POLLS)
    assert after.kilobytes - before.kilobytes < (POLL_COUNT - WARM_UP_POLLS)
    assert (after.threads, after.temporary) == (before.threads, before.temporary) and after.files <= before.files
    assert after.rows < 1.1 * before.rows and after.journal < 1.1 * before.journal
    gone = range(POLL_COUNT // 2 - 20)
    unmuxed = {number for number in gone if never_comes(number) or is_broken(number)}
    assert store.count_finished(gone) == len(gone) - len(unmuxed)
    store.alive = gone
    found = [(one.kind, recording_number(one.recording)) for one in find_wrong(config, daemon._services)]
    assert sorted(found) == [(FindingKind.MISSING, number) for number in sorted(unmuxed)]


def find_wrong(config: Config, services: Services) -> list[Finding]:
    """Return the findings of an audit of all recordings, which are all due, with the services of a stopped daemon."""
    config = replace(config, processing=replace(config.processing, window_past=5))
    with closing(AuditLedger(services.workspace.path / LEDGER_FILE, {})) as ledger:
        pace = Pace(1e6, None, threading.Event())
        for _ in Auditor(config, services, ledger, AuditScope(None, "startTime=0"), pace).audit_calls():
            pass
        assert ledger.read_fact("pending", 0) == 0
        return [finding for finding, _ in ledger.read_findings()]
