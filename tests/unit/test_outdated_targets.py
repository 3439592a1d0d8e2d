"""A target that RWS does not show any more: the next poll finds the recording as it is then, and a migration says so."""

from __future__ import annotations

import logging
import threading
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from muxer.errors import MediaError
from muxer.fleet import events
from muxer.fleet.event_reporter import EventReporter
from muxer.fleet.events import Event, decode_event, encode_event
from muxer.journal.journal import TargetKey
from muxer.journal.retry_policy import classify_error
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.pipeline.job import JobReport
from muxer.scheduling import attempts
from muxer.scheduling.attempts import TargetProcessor
from muxer.system.masking import Mask
from tests.support.migration_outcomes import MigrationOutcomes

KEY = TargetKey("call_muxed.mp4", "call", "agent")


def run_target(monkeypatch: pytest.MonkeyPatch, number: int, *, is_found: bool) -> MigrationOutcomes:
    """Process a target as a worker of a fleet does, in up to `number` attempts; its job finds other sources."""
    monkeypatch.setattr(attempts, "MIGRATION_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(attempts, "needed_services", lambda target: ())
    target = SimpleNamespace(recording_id=KEY.recording, agent=KEY.agent, file_name=KEY.name) if is_found else None
    job: Any = SimpleNamespace(find_target=lambda *_: target, run=lambda *_, **__: JobReport(is_outdated=True))
    activity: Any = SimpleNamespace(
        track_target=lambda *_: nullcontext(), count_error=lambda *_: None, count_outcome=lambda *_: None
    )
    outcomes: Any = MigrationOutcomes()
    TargetProcessor(job, CircuitBreaker(), activity, threading.Event(), outcomes).find_and_process(KEY, number)
    return outcomes


@pytest.mark.parametrize("is_found", [True, False])
def test_in_a_migration_it_is_a_failure(monkeypatch: pytest.MonkeyPatch, is_found: bool) -> None:
    outcomes = run_target(monkeypatch, 4, is_found=is_found)
    assert outcomes.done == [] and len(outcomes.failures) == 4
    assert all("run the migration again" in one for one in outcomes.failures)


@pytest.mark.parametrize("is_found", [True, False])
def test_in_a_poll_it_is_left_to_the_next_one(monkeypatch: pytest.MonkeyPatch, is_found: bool) -> None:
    outcomes = run_target(monkeypatch, 1, is_found=is_found)
    assert outcomes.failures == [] and outcomes.done == [attempts.ALREADY_DONE]


@pytest.mark.parametrize("pieces", [10, 4000])
def test_an_outcome_with_a_long_timeline_reaches_the_pollers(pieces: int) -> None:
    sent: list[Event] = []
    timeline = {"pieces": [{"begin": number, "end": number + 1, "clip": "x" * 80} for number in range(pieces)]}
    EventReporter(sent.append, "worker", Mask(())).record_done(KEY, "muxed", {"bytes": 5, "timeline": timeline})
    received = decode_event(encode_event(sent[0]))
    assert received is not None and received.what == events.DONE and received.details["facts"]["bytes"] == 5
    assert ("timeline" in received.details["facts"]) is (pieces == 10)


def test_each_task_has_attempts_of_its_own() -> None:
    reporter, failure = EventReporter(lambda event: None, "worker", Mask(())), classify_error(MediaError("damaged"))

    def fail() -> bool:
        return reporter.record_failure(KEY, failure, logging.INFO, None, False)

    reporter.record_start(KEY)
    first = [fail() for _ in range(3)]
    reporter.record_start(KEY)
    assert first == [True, True, False] == [fail() for _ in range(3)]
