"""The progress of a command without a terminal."""

from __future__ import annotations

import logging
import time

import pytest

from muxer.commands._shared import progress_display as module
from muxer.commands._shared.progress_display import open_display
from muxer.status.activity import ActivitySnapshot, PollStatistics, RunningTarget, WorkTotals
from muxer.system.masking import Mask

RUNNING = RunningTarget("call", "alice", "file", 1000, "store", 1000, 50_000_000, 200_000_000)


def snapshot_at(now: float, *running: RunningTarget) -> ActivitySnapshot:
    return ActivitySnapshot(now, 1000, running, PollStatistics(), WorkTotals())


def test_one_line_is_printed_per_minute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: clock)  # type: ignore[attr-defined]
    with open_display(Mask(), steps=True) as shown:
        for clock in (1.0, 59.0, 60.0, 61.0, 119.0, 121.0):
            shown.update_progress(snapshot_at(1000 + clock, RUNNING))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "alice store: 25 %, 0.8 MB/s, 3:00 left",
        "alice store: 25 %, 0.4 MB/s, 6:03 left",
    ]


def test_a_step_with_unknown_progress_is_running(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LINE_INTERVAL", 0.0)
    with open_display(Mask(), steps=False) as shown:
        shown.update_progress(snapshot_at(time.time(), RunningTarget("call", "", "file", 0, "publish")))
    assert capsys.readouterr().err == "publish: running\n"


@pytest.mark.parametrize(("steps", "expected"), [(True, "  mux done, 1.5 s\n"), (False, "")])
def test_steps_are_printed_on_request_and_warnings_always_without_secrets(
    capsys: pytest.CaptureFixture[str], steps: bool, expected: str
) -> None:
    with open_display(Mask(["s3cret-word"]), steps=steps):
        logging.getLogger("muxer.pipeline.job").info("mux done", extra={"fields": {"step": "mux", "seconds": 1.5}})
        logging.getLogger("muxer.pipeline.job").info("fetched", extra={"fields": {"bytes": 1}})
        logging.getLogger("muxer.pipeline.job").warning("the service echoes s3cret-word\x1b[2J")
    assert capsys.readouterr().err == f"{expected}warning: the service echoes ***\\x1b[2J\n"
