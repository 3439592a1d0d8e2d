"""Generated views of a muxer for tests of the status page: the numbers of a day, services, jobs, failures, recordings."""

from __future__ import annotations

import hashlib
from typing import Any

from muxer import errors
from muxer.journal.history import HourCounts, TargetRecord
from muxer.journal.journal import BacklogSample
from muxer.monitoring.view import DiskSpace, ServiceStatus, StatusView
from muxer.status.activity import ActivitySnapshot, PollStatistics, RunningTarget, WorkTotals

NOW = 1_795_570_000.0
HOUR = 3600


def file_name(recording: str) -> str:
    """Return the name of a muxed file in the real form."""
    return f"{recording[:8]}_{hashlib.sha256(recording.encode(errors='replace')).hexdigest()[:20]}_muxed.mp4"


def piece_view(begin: float, end: float, screen: int | None = None, offset: float = 0.0, reason: str | None = None) -> dict:
    return {"begin": begin, "end": end, "screen": screen, "offset": offset, "reason": reason}


def screen_view(start: float, length: float, name: str = "screen.mp4") -> dict:
    return {"name": name, "start": start, "length": length}


def timeline_chain(count: int, length: float = 600.0) -> dict[str, Any]:
    """Return the timeline of `count` screen files, each followed by a gap; the first starts before the audio."""
    step = length / count
    screens = [screen_view(index * step - (step / 10 if index == 0 else 0), step * 0.9) for index in range(count)]
    pieces = []
    for index, one in enumerate(screens):
        begin, end = index * step, one["start"] + one["length"]
        pieces.append(piece_view(begin, begin + 0.1 * step, index, begin - one["start"], "cut between key frames"))
        pieces.append(piece_view(begin + 0.1 * step, end, index, begin + 0.1 * step - one["start"]))
        pieces.append(piece_view(end, (index + 1) * step))
    return {"length": length, "screens": screens, "pieces": pieces}


def done_row(recording: str, timeline: dict[str, Any] | None = None, **changes: Any) -> TargetRecord:
    """Return a target that is done, as the journal has it."""
    shown_timeline = timeline or timeline_chain(3)
    padding = sum(piece["end"] - piece["begin"] for piece in shown_timeline["pieces"] if piece["screen"] is None)
    facts = {"agent": "alice", "sources": 4, "file": file_name(recording), "bytes": 10_000_000, "encrypted": True}
    facts |= {"length": shown_timeline["length"], "padding": padding, "method": "cut between key frames", "seconds": 7.5}
    values = {"name": file_name(recording), "recording": recording, "agent": "alice", "state": "done"}
    values |= {"attempts": 0, "retry_at": None, "code": "", "error": "", "reason": ""}  # type: ignore[dict-item]
    values |= {"facts": {**facts, "timeline": shown_timeline}, "updated": NOW - 60}  # type: ignore[dict-item]
    return TargetRecord(**{**values, **changes})


def code_of_kind(kind: str) -> str:
    """Return the default code of an error type."""
    return str(getattr(errors, kind).usual_code) if hasattr(errors, kind) else str(errors.Code.SYSTEM)


def failed_row(recording: str, error: str, reason: str, **changes: Any) -> TargetRecord:
    """Return a target that failed, as the journal has it."""
    values = {"state": "retry", "attempts": 2, "retry_at": NOW + 90, "facts": {}}
    values |= {"code": code_of_kind(error), "error": error, "reason": reason}
    return done_row(recording, **{**values, **changes})


def running_job(recording: str, step: str, done_: int = 0, total: int = 0) -> RunningTarget:
    """Return a running job that started a minute ago and its step ten seconds ago."""
    return RunningTarget(recording, "alice", file_name(recording), NOW - 60, step, NOW - 10, done_, total)


def muxer_view(**changes: Any) -> StatusView:
    """Return a view of a healthy muxer."""
    running = changes.pop(
        "running", (running_job("call-1", "fetch", 40_000_000, 100_000_000), running_job("call-2", "publish"))
    )
    polls = changes.pop(
        "polls", PollStatistics(30, 0, NOW - 200, NOW - 180, 14.2, {"waiting": 3}, "", NOW - 5400, NOW + 100)
    )
    first = (int(NOW // HOUR) - 24) * HOUR
    values = {
        "instance": "primary-0",
        "version": "0.1.0",
        "at": NOW,
        "snapshot": ActivitySnapshot(NOW, changes.pop("started", NOW - 90_000), tuple(running), polls, WorkTotals()),
        "queued": 7,
        "workers": 4,
        "services": (ServiceStatus("RCS", True, None, "", NOW - 80), ServiceStatus("RWS", True, None, "", NOW - 2)),
        "counts": {"done": 900},
        "recent": tuple(done_row(f"recent-{number}", timeline_chain(1 + number)) for number in range(4)),
        "failures": (),
        "hours": tuple(HourCounts(first + HOUR * number, number, number % 3 == 0, 1e4, 10**9) for number in range(25)),
        "samples": tuple(
            BacklogSample(int(NOW) - 600 * number, 2, 5, 1, NOW - 600 * number - 900) for number in range(100, -1, -1)
        ),
        "interval_seconds": 300.0,
        "is_busy": False,
        "is_migration": False,
        "next_poll": NOW + 100,
        "disk": DiskSpace(52 * 10**9, 10**9, True),
        "warnings": (),
    }
    return StatusView(**{**values, **changes})
