"""Messages that no muxer has sent: whoever may write into the queues can send anything, and the fleet goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muxer.errors import GivenUp
from muxer.failures import When
from muxer.fleet import dead, events, orders
from muxer.journal import JOURNAL, Journal, Key, now

DEEP = b"[" * 200_000
HALF = "\ud800"  # half of a character, which JSON can hold and a database cannot
FAILURE = {"when": "counted", "retry_after": None, "code": "MUX-1", "error": "E", "reason": "r", "service": ""}


def told(**changes: Any) -> bytes:
    event = {"what": "done", "sender": "w", "recording": "c1", "file": "c1.mp4", "details": {}}
    return json.dumps({"version": events.VERSION, **event, **changes}).encode()


@pytest.mark.parametrize("body", [DEEP, *(told(**{one: HALF}) for one in ("what", "sender", "recording", "file"))])
def test_an_event_that_cannot_be_kept_is_passed_over(body: bytes) -> None:
    assert events.decode(told()) is not None
    assert events.decode(body) is None


@pytest.mark.parametrize(
    "details", [{"agent": HALF}, {"facts": {"agent": ["x"]}}, {"facts": {"agent": {"a": HALF}}}, {"facts": 1}]
)
def test_an_agent_may_be_anything(details: dict[str, Any], tmp_path: Path) -> None:
    event = events.decode(told(details=details))
    assert event is not None
    keep(tmp_path, events.key_of(event))


def keep(folder: Path, key: Key) -> None:
    """See that a journal can note a target, and goes on after it."""
    journal = Journal(folder / JOURNAL)
    journal.done(key, now(), {})
    journal.done(Key("other", "c2"), now(), {})
    assert journal.is_kept and journal.state_of("other") == "done"
    journal.close()


@pytest.mark.parametrize("name", ["code", "error", "reason", "service"])
@pytest.mark.parametrize("value", [["x"], HALF, None, 1])
def test_a_failure_may_say_anything(name: str, value: object, tmp_path: Path) -> None:
    failure = events.failure_of({"failure": {**FAILURE, name: value}})
    journal = Journal(tmp_path / JOURNAL)
    journal.failed(Key("c1.mp4", "c1"), failure, now())
    assert journal.is_kept and journal.state_of("c1.mp4") == "retry"
    journal.close()


@pytest.mark.parametrize("retry_after", ["soon", float("nan"), float("inf"), [1]])
def test_a_failure_asks_for_a_number_of_seconds_or_is_none(retry_after: object) -> None:
    assert events.failure_of({"failure": {**FAILURE, "retry_after": 3}}).when is When.COUNTED
    with pytest.raises((ValueError, TypeError)):
        events.failure_of({"failure": {**FAILURE, "retry_after": retry_after}})


@pytest.mark.parametrize(
    "body", [DEEP, json.dumps({"message_id": "m", "kwargs": {"file": HALF, "recording": HALF}}).encode()]
)
def test_a_dead_letter_that_cannot_be_read_is_one_all_the_same(body: bytes, tmp_path: Path) -> None:
    keep(tmp_path, dead.read(body, {}).key)


@pytest.mark.parametrize("change", [{"file": HALF}, {"recording": HALF}, {"file": "ä" * 100}, {"file": "a\0b"}])
def test_an_order_that_no_poller_gives_is_refused(change: dict[str, str]) -> None:
    plain = orders.to_plain(orders.Order("c1", "c1.mp4"))
    orders.from_plain(plain)
    with pytest.raises(GivenUp):
        orders.from_plain({**plain, **change})
