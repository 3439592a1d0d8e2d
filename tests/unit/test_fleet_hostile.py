"""Messages that no muxer sends: whatever the queues contain, the fleet continues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muxer.errors import OrderFailed
from muxer.fleet import dead_letters, events, orders
from muxer.journal.journal import JOURNAL_FILE, Journal, TargetKey, epoch_now
from muxer.journal.retry_policy import RetryPolicy

DEEP_JSON = b"[" * 200_000
LONE_SURROGATE = "\ud800"  # a lone surrogate, which JSON can contain and a database cannot
FAILURE = {"when": "counted", "retry_after": None, "code": "MUX-1", "error": "E", "reason": "r", "service": ""}


def event_body(**changes: Any) -> bytes:
    event = {"what": "done", "sender": "w", "recording": "c1", "file": "c1.mp4", "details": {}}
    return json.dumps({"version": events.EVENT_VERSION, **event, **changes}).encode()


@pytest.mark.parametrize(
    "body", [DEEP_JSON, *(event_body(**{value: LONE_SURROGATE}) for value in ("what", "sender", "recording", "file"))]
)
def test_an_event_that_cannot_be_stored_is_ignored(body: bytes) -> None:
    assert events.decode_event(event_body()) is not None
    assert events.decode_event(body) is None


@pytest.mark.parametrize(
    "details",
    [{"agent": LONE_SURROGATE}, {"facts": {"agent": ["x"]}}, {"facts": {"agent": {"a": LONE_SURROGATE}}}, {"facts": 1}],
)
def test_the_agent_in_an_event_may_be_any_value(details: dict[str, Any], tmp_path: Path) -> None:
    event = events.decode_event(event_body(details=details))
    assert event is not None
    check_journal_keeps(tmp_path, events.event_key(event))


def check_journal_keeps(folder: Path, key: TargetKey) -> None:
    """Check that a journal can store a target and remains usable."""
    journal = Journal(folder / JOURNAL_FILE)
    journal.record_done(key, epoch_now(), {})
    journal.record_done(TargetKey("other", "c2"), epoch_now(), {})
    assert journal.is_persistent and journal.state_of("other") == "done"
    journal.close()


@pytest.mark.parametrize("name", ["code", "error", "reason", "service"])
@pytest.mark.parametrize("value", [["x"], LONE_SURROGATE, None, 1])
def test_a_failure_may_contain_any_value(name: str, value: object, tmp_path: Path) -> None:
    failure = events.parse_failure({"failure": {**FAILURE, name: value}})
    journal = Journal(tmp_path / JOURNAL_FILE)
    journal.record_failure(TargetKey("c1.mp4", "c1"), failure, epoch_now())
    assert journal.is_persistent and journal.state_of("c1.mp4") == "retry"
    journal.close()


@pytest.mark.parametrize("retry_after", ["soon", float("nan"), float("inf"), [1]])
def test_retry_after_of_a_failure_must_be_a_number_of_seconds(retry_after: object) -> None:
    assert events.parse_failure({"failure": {**FAILURE, "retry_after": 3}}).when is RetryPolicy.LIMITED
    with pytest.raises((ValueError, TypeError)):
        events.parse_failure({"failure": {**FAILURE, "retry_after": retry_after}})


@pytest.mark.parametrize(
    "body",
    [DEEP_JSON, json.dumps({"message_id": "m", "kwargs": {"file": LONE_SURROGATE, "recording": LONE_SURROGATE}}).encode()],
)
def test_an_unreadable_dead_letter_still_counts_as_one(body: bytes, tmp_path: Path) -> None:
    check_journal_keeps(tmp_path, dead_letters.parse_dead_letter(body, {}).key)


@pytest.mark.parametrize(
    "change", [{"file": LONE_SURROGATE}, {"recording": LONE_SURROGATE}, {"file": "ä" * 100}, {"file": "a\0b"}]
)
def test_a_task_that_no_poller_sends_is_refused(change: dict[str, str]) -> None:
    plain = orders.order_to_dict(orders.Order("c1", "c1.mp4"))
    orders.order_from_dict(plain)
    with pytest.raises(OrderFailed):
        orders.order_from_dict({**plain, **change})
