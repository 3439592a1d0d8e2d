"""Whole runs of the muxer on Apache, against curl and ffmpeg with the same files, server and concurrency."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from muxer.lab.dav import ExternalDav
from tests.bench import inputs
from tests.bench.engine import STRICT
from tests.bench.inputs import QUIET, Call
from tests.bench.lab import Added, BenchLab, migration, running_lab
from tests.bench.measure import Figure, Setting, clocked, ratio, seconds, side_by_side
from tests.support.apache import apache
from tests.support.daemon import run

RUN_SECONDS = 1800.0


@dataclass
class Site:
    """A lab with Apache as its storage, and both ways to work on its calls."""

    lab: BenchLab
    dav: ExternalDav
    calls: Sequence[Call]
    workers: int
    startups: list[float] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)
    lab_cpu: float = 0.0
    cpu: dict[str, list[float]] = field(default_factory=lambda: {"muxer": [], "bare": []})

    def muxer(self) -> float:
        """A migration run over new calls: seconds from the start of the process to its end."""
        added = self.lab.add(self.calls)
        config = self.lab.config(
            advanced__worker_threads=self.workers, advanced__call_recording_query_string=migration(added)
        )
        self.lab.forget_requests()
        cpu, log = self.lab.cpu(), self.dav.root.parent / "access.log"
        before, started, used = _lines(log), time.time(), _cpu_of_children()
        done = run(config, seconds=RUN_SECONDS)
        taken = time.time() - started
        self.cpu["muxer"].append(_cpu_of_children() - used)
        if done.process.returncode or f" {len(added)} files muxed" not in done.out:
            raise RuntimeError(f"the muxer did not mux everything: {done.out}{done.err}")
        seen = self.lab.requests()
        self.startups.append(seen[0].moment - started)
        self.requests = {"RWS": len(seen), "WebDAV": _lines(log) - before}
        self.lab_cpu = self.lab.cpu() - cpu
        return taken

    def bare(self) -> float:
        """The same transfers and a copy, by curl and ffmpeg."""
        added = self.lab.add(self.calls)
        with TemporaryDirectory(dir=self.lab.folder) as folder, ThreadPoolExecutor(self.workers) as pool:
            used = _cpu_of_children()
            taken = clocked(lambda: list(pool.map(lambda one: self._bare(one, Path(folder)), added)))
            self.cpu["bare"].append(_cpu_of_children() - used)
            return taken

    def _bare(self, call: Added, folder: Path) -> None:
        audio, video, out = (folder / f"{call.id}{suffix}" for suffix in (".mp3", ".mp4", "_out.mp4"))
        curl = ["curl", "--silent", "--fail", "--user", f"{self.dav.username}:{self.dav.password}"]
        inputs.run([*curl, "--output", audio, f"{self.dav.url}/calls/{call.audio}"])
        inputs.run([*curl, "--output", video, f"{self.dav.url}/screens/{call.screens[0]}"])
        streams = ["-map", "0:v", "-map", "1:a", "-c", "copy", *STRICT, "-movflags", "+faststart"]
        inputs.run([*QUIET, "-i", video, "-i", audio, *streams, out])
        inputs.run([*curl, "--output", folder / "answer", "--upload-file", out, f"{self.dav.url}/screens/{out.name}"])


def _cpu_of_children() -> float:
    """Return the processor seconds of all programs that have ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _lines(path: Path) -> int:
    return len(path.read_bytes().splitlines())


@contextmanager
def site(folder: Path, calls: Sequence[Call], workers: int) -> Iterator[Site]:
    """Yield a running site; nothing is encrypted."""
    with ExitStack() as stack:
        dav = stack.enter_context(apache())
        folder = Path(stack.enter_context(TemporaryDirectory(dir=folder)))
        lab = stack.enter_context(running_lab(folder, dav, encryption_group="empty"))
        yield Site(lab, dav, calls, workers)


def measure(setting: Setting) -> Iterator[Figure]:
    """Sixteen calls of five minutes, four at a time."""
    count, length = setting.pick(16, 2), setting.pick(300, 2)
    calls = [inputs.call(setting.folder, length)] * count
    with site(setting.folder, calls, workers=4) as bench:
        taken = side_by_side(setting.pick(3, 1), bare=bench.bare, muxer=bench.muxer)
        working = [whole - start for whole, start in zip(taken["muxer"], bench.startups, strict=True)]
        yield seconds(f"{count} calls: bare curl + ffmpeg + curl", taken["bare"])
        yield ratio(f"{count} calls: whole run / bare", taken["muxer"], taken["bare"], at_most=1.5)
        yield ratio(f"{count} calls: whole run from the first RWS request on / bare", working, taken["bare"])
        yield ratio("processor time, the muxer and its programs / bare", bench.cpu["muxer"], bench.cpu["bare"])
        for service, number in bench.requests.items():
            yield Figure(f"requests to {service} for a call", number / count)
        yield Figure("processor seconds of the lab's RWS for a call", bench.lab_cpu / count, "s")
