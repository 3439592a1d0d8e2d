"""The client of :mod:`tests.bench.server`: a lab that runs in a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lab.dav import ExternalDav
from tests.bench.inputs import PROGRAMS, Call

ROOT = Path(__file__).resolve().parents[2]
CALL_DISTANCE = timedelta(hours=6)
RECENT_AGE = timedelta(minutes=50)


@dataclass(frozen=True)
class AddedRecording:
    """A call in the lab: its id, its start time, the names of its files in the storage."""

    id: str
    start: datetime
    audio: str
    screens: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """The ids of the recordings with a muxed file, the bytes of sources that were sent, and the size of all sources."""

    muxed: list[str]
    sent: int
    whole: int


@dataclass(frozen=True)
class LoggedRequest:
    """A request that the lab received."""

    time: float
    service: str
    method: str
    path: str


class BenchLab:
    """A running lab; see :func:`running_lab`."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder = folder
        self._process = process
        self._serial = 0

    @property
    def process_id(self) -> int:
        """The process id of the lab."""
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """The log of the muxer that :meth:`config` configures."""
        return self.folder / "log" / "recording-muxer-single.log"

    def write_config(self, name: str = "muxer.cfg", **overrides: object) -> Path:
        """Write a muxer.cfg; overrides are named ``section__option``. The log of an earlier run is removed."""
        self.log_path.unlink(missing_ok=True)
        given = {name.replace("__", "."): str(value) for name, value in overrides.items()}
        path = self.folder / name
        usual = {"logfile.format": "json", **{f"processing.{name}": program for name, program in PROGRAMS.items()}}
        path.write_text(self._call_lab("config", overrides={**usual, **given})["text"])
        return path

    def add_calls(self, calls: Sequence[Call], *, encrypted: bool = False) -> list[AddedRecording]:
        """Add calls to the lab, so far apart that a query for some finds no others."""
        added = []
        for call in calls:
            self._serial += 1
            start = datetime(2024, 1, 1, tzinfo=UTC) + self._serial * CALL_DISTANCE
            added.append(self._add_call(call, self._serial, start, encrypted=encrypted))
        return added

    def add_recent(self, call: Call, serial: int, slow: float = 1.0, *, encrypted: bool = False) -> AddedRecording:
        """Add a call of this hour with the id of `serial` to the lab; its transfers are `slow` times slower."""
        start = datetime.now(UTC) - RECENT_AGE + timedelta(seconds=serial % 1800)
        return self._add_call(call, serial, start, encrypted=encrypted, slow=slow)

    def _add_call(self, call: Call, serial: int, start: datetime, **how: Any) -> AddedRecording:
        screens = [{"path": str(screen.path), "offset": screen.offset, "seconds": screen.seconds} for screen in call.screens]
        what = {"audio": str(call.audio), "seconds": call.seconds, "screens": screens}
        added = self._call_lab("add", serial=serial, start=start.isoformat(), call=what, **how)
        return AddedRecording(added["id"], start, added["audio"], tuple(added["screens"]))

    def add_finished(self, count: int, hours: float, *, stored: bool = False) -> None:
        """Add finished recordings, spread over the last ``hours``; their files exist if they are `stored`."""
        first = datetime.now(UTC) - timedelta(hours=hours)
        apart = 0.98 * hours * 3600 / count
        self._call_lab("add_finished", count=count, first=first.isoformat(), apart=apart, stored=stored)

    def forget_requests(self) -> None:
        """Restart the count of requests."""
        self._call_lab("forget_requests")

    def fetch_requests(self) -> list[LoggedRequest]:
        """Return the requests since :meth:`forget_requests`."""
        return [LoggedRequest(*request) for request in self._call_lab("requests")["requests"]]

    def fetch_progress(self) -> tuple[float | None, list[float]]:
        """Return the time of the first request for a recording by its id, and the times of publication."""
        response = self._call_lab("progress")
        return response["started"], response["published"]

    def fail_at_random(self, part: float, seed: int) -> None:
        """Let this part of all requests fail; `seed` decides which."""
        self._call_lab("fail_at_random", part=part, seed=seed)

    def fetch_outcome(self) -> Outcome:
        """Return the results of the recordings so far."""
        return Outcome(**self._call_lab("outcome"))

    def fetch_cpu_seconds(self) -> float:
        """Return the processor seconds that the lab has used."""
        return float(self._call_lab("requests")["cpu"])

    def _call_lab(self, what: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps({'do': what, **arguments})}\n")
        self._process.stdin.flush()
        response: dict[str, Any] = json.loads(self._process.stdout.readline() or "null") or {}
        if self._process.poll() is not None:
            raise RuntimeError("the lab's process has ended")
        return response


def migration_query(added: Sequence[AddedRecording]) -> str:
    """Return the query that finds these recordings and no others."""
    begin, end = added[0].start, added[-1].start + CALL_DISTANCE - timedelta(seconds=1)
    return f"startTime={begin.timestamp() * 1000:.0f}&endTime={end.timestamp() * 1000:.0f}"


@contextmanager
def running_lab(
    folder: Path, dav: ExternalDav | None = None, delays: Mapping[str, float] | None = None, **switches: object
) -> Iterator[BenchLab]:
    """Start a lab below a folder, with the given switches and response delays; end it afterwards."""
    options: dict[str, Any] = {"switches": switches, "delays": delays or {}}
    if dav is not None:
        options["dav"] = {"url": dav.url, "root": str(dav.root), "login": [dav.username, dav.password]}
    command = [sys.executable, "-m", "tests.bench.server", str(folder), json.dumps(options)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield BenchLab(folder, process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)
