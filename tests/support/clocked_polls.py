"""Polls by a clock of the test, of an RWS in memory: calls, and screen recordings that arrive later. Times are minutes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import pytest

from muxer.config import load_config
from muxer.errors import MuxerError, ServiceUnavailable
from muxer.gir.models import CallRecording, ScreenRecording, format_time
from muxer.gir.rws import SkipCallback
from muxer.gir.targets import MuxTarget
from muxer.journal.journal import Journal
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.polling.poller import Poller, PollResult
from muxer.scheduling.executor import TargetSink

FIRST_WALL_SECONDS = 1_700_000_000.0
DAV = "http://dav.example.com"


@dataclass(frozen=True)
class ArrivingCall:
    """A call by its start and length; `known` and `screen` are when its metadata and its screen recording arrive."""

    id: str
    start: float
    length: float
    known: float
    screen: float


@dataclass
class Clock:
    """The monotonic time in minutes, and the wall clock, which a test may change by `ahead` seconds."""

    minutes: float = 0.0
    ahead: float = 0.0

    @property
    def wall(self) -> float:
        """Epoch seconds."""
        return self.wall_of(self.minutes) + self.ahead

    def wall_of(self, minutes: float) -> float:
        """Return the epoch time, by the clock of RWS, at a monotonic time."""
        return FIRST_WALL_SECONDS + 60 * minutes


@dataclass
class ClockedRws:
    """The calls, and the requests of the polls. A query fails with the first of the `errors`, if any."""

    clock: Clock
    calls: dict[str, ArrivingCall] = field(default_factory=dict)
    errors: list[MuxerError] = field(default_factory=list)
    queries: list[tuple[float, float]] = field(default_factory=list)
    pages: int = 0
    slices: int = 0
    single: list[str] = field(default_factory=list)
    muxed: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    page_size: int = 100

    def read_call_recordings(self, query: str) -> Iterator[list[CallRecording]]:
        """Yield the calls of a query by page."""
        limits = parse_qs(query)
        start, end = (float(limits[name][0]) / 1000 for name in ("startTime", "endTime"))
        self.queries.append(((self.clock.wall - start) / 60, (self.clock.wall - end) / 60))
        if self.errors:
            raise self.errors.pop(0)
        found = [
            one
            for one in self.calls.values()
            if self.clock.wall_of(one.start) >= start
            and self.clock.wall_of(one.start + one.length) <= end
            and one.known <= self.clock.minutes
        ]
        self.pages += max(1, -(-len(found) // self.page_size))
        for begin in range(0, len(found), self.page_size):
            yield [self._call(one) for one in found[begin : begin + self.page_size]]

    def fetch_call_recording(self, recording_id: str) -> CallRecording | None:
        """Return one call."""
        self.single.append(recording_id)
        return self._call(self.calls[recording_id]) if recording_id in self.calls else None

    def fetch_screen_recordings(self, ids: Sequence[str], _: bool, skip: SkipCallback) -> dict[str, ScreenRecording]:
        """Return the screen recordings that have arrived, and skip those of broken recordings."""
        self.slices += 1
        for one in self.broken.intersection(ids):
            skip(one, ServiceUnavailable("500"))
        readable = (one for one in ids if one not in self.broken)
        there = (self.calls[one] for one in readable if self.calls[one].screen <= self.clock.minutes)
        return {one.id: self._screen(one) for one in there}

    def take_missed_screens(self) -> bool:
        """Return that none was left out."""
        return False

    def fetch_version(self) -> None:
        """Return no version."""

    def wants_label(self, _: str) -> bool:
        """Return that labels are not used."""
        return False

    def _media(self, call: ArrivingCall, name: str, **more: Any) -> dict[str, Any]:
        times = (self.clock.wall_of(call.start), self.clock.wall_of(call.start + call.length))
        start, stop = (format_time(datetime.fromtimestamp(time, UTC)) for time in times)
        descriptor = {"storage": "webDAV", "path": name, "data": {"storagePath": f"{DAV}/screens/"}}
        return {"mediaId": name, "startTime": start, "stopTime": stop, "originalMediaDescriptor": descriptor, **more}

    def _call(self, call: ArrivingCall) -> CallRecording:
        audio = self._media(call, f"{call.id}.mp3", type="audio/mp3")
        return CallRecording.from_json({"id": call.id, "mediaFiles": [audio]})

    def _screen(self, call: ArrivingCall) -> ScreenRecording:
        agent = {"contact": {"userName": "agent"}}
        media = [self._media(call, f"{call.id}.mp4", type="video/mp4", parameters=agent)]
        if call.id in self.muxed:
            sources = {**agent, "muxed_mediaIds": [f"{call.id}.mp3", f"{call.id}.mp4"]}
            media.append(self._media(call, f"{call.id}_muxed.mp4", type="video/mp4", parameters=sources))
        return ScreenRecording.from_json({"id": call.id, "mediaFiles": media})


class ClockedSink(TargetSink):
    """Notes when each recording is submitted. `held` are queued or running; older calls are rejected if `is_closed`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.submitted: list[tuple[str, float]] = []
        self.targets: dict[str, MuxTarget] = {}
        self.held: set[str] = set()
        self.is_closed = False

    def submit(self, target: MuxTarget) -> bool:
        if target.file_name in self.held:
            return False
        self.submitted.append((target.recording_id, self._clock.minutes))
        self.targets[target.recording_id] = target
        return True

    def holds(self, name: str) -> bool:
        return name in self.held

    def rejects_older_than(self, minutes: float) -> bool:
        return self.is_closed


class ClockedPolls:
    """A poller whose clock the test moves. Each poll begins an interval after the one before."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: str) -> None:
        self.clock = Clock()
        self.rws, self.sink = ClockedRws(self.clock), ClockedSink(self.clock)
        self.journal, self.circuit_breaker = Journal(None), CircuitBreaker()
        self.results: list[PollResult] = []
        self._config = self._load_config(folder, options)
        self._interval = self._config.processing.min_poll_interval
        self.poller = self.create_poller()
        time = SimpleNamespace(monotonic=lambda: 60 * self.clock.minutes)
        monkeypatch.setattr("muxer.polling.poller.time", time)
        monkeypatch.setattr("muxer.polling.poller.epoch_now", lambda: self.clock.wall)
        now = SimpleNamespace(now=lambda zone: datetime.fromtimestamp(self.clock.wall, zone))
        monkeypatch.setattr("muxer.polling.poll_query.datetime", now)

    def create_poller(self) -> Poller:
        """Return a poller as after a start."""
        return Poller(self._config, self.rws, self.journal, self.circuit_breaker, self.sink)

    def poll_until(self, minutes: float) -> None:
        """Poll at each interval until a time."""
        while self.clock.minutes < minutes:
            self.poll_once()

    def poll_once(self) -> PollResult:
        """Poll, and move the clock to the next poll."""
        try:
            self.results.append(self.poller.poll())
        finally:
            self.clock.minutes += self._interval
        return self.results[-1]

    def add_call(self, start: float, length: float = 5.0, known: float = 0.0, screen: float = 0.0) -> str:
        """Add a call; its metadata arrive at its end, or at `known`, its screen recording then, or at `screen`."""
        name = f"C{len(self.rws.calls)}"
        known = max(known, start + length)
        self.rws.calls[name] = ArrivingCall(name, start, length, known, max(known, screen))
        return name

    def found_at(self, recording_id: str) -> float:
        """Return when a recording was first submitted, infinity if it was not."""
        return next((at for one, at in self.sink.submitted if one == recording_id), float("inf"))

    @staticmethod
    def _load_config(folder: Path, options: dict[str, str]) -> Any:
        sections = {"htcc": {"base_uri": "http://rws.example.com", "contact_center_id": "cc"}}
        for name, value in options.items():
            section, _, option = name.partition("__")
            sections.setdefault(section, {})[option] = value
        path = folder / "muxer.cfg"
        lines: list[str] = []
        for section, values in sections.items():
            lines += [f"[{section}]", *(f"{option} = {value}" for option, value in values.items())]
        path.write_text("\n".join(lines))
        return load_config(path, {}, {}).config
