"""Messages through the broker: tasks, events, and the queues by age class."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxer.errors import Code, MediaNotFound, MetadataError, OrderFailed, ServiceUnavailable
from muxer.fleet import events, orders
from muxer.fleet.events import Event
from muxer.fleet.orders import Order
from muxer.fleet.priority_queues import (
    DAY,
    HOUR,
    PRIORITY_QUEUES,
    choose_queue,
    dead_letter_queue,
    free_capacity,
    has_room_everywhere,
    queue_names,
)
from muxer.journal.retry_policy import RetryPolicy, classify_error

ORDER = Order("call-1", "call-1_0123456789abcdef0123_muxed.mp4", 4)


def test_a_task_contains_ids_and_a_version() -> None:
    plain = orders.order_to_dict(ORDER)
    assert plain == {"version": 1, "recording": "call-1", "file": "call-1_0123456789abcdef0123_muxed.mp4", "attempts": 4}
    assert orders.order_from_dict(json.loads(json.dumps(plain))) == ORDER


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": "1"},
        {"version": True},
        {"version": None},
        {"recording": ""},
        {"recording": 7},
        {"file": None},
        {"file": "x" * 101},
        {"attempts": 0},
        {"attempts": True},
        {"attempts": "1"},
    ],
)
def test_a_task_of_another_form_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(OrderFailed) as caught:
        orders.order_from_dict({**orders.order_to_dict(ORDER), **change})
    assert caught.value.code is Code.UNKNOWN_ORDER


@given(st.dictionaries(st.text(max_size=12), st.none() | st.booleans() | st.integers() | st.text()))
def test_any_message_is_read_as_a_task_or_refused(plain: dict[str, object]) -> None:
    with pytest.raises(OrderFailed):
        orders.order_from_dict(plain)


def test_an_event_is_read_as_it_was_sent() -> None:
    event = Event(events.DONE, "host/worker-0/7", "call-1", "f", {"outcome": "muxed", "facts": {"bytes": 3}})
    assert events.decode_event(events.encode_event(event)) == event


def test_additional_fields_of_a_later_version_are_ignored() -> None:
    event = Event(events.DONE, "host/worker-0/7", "call-1", "f", {"outcome": "muxed", "facts": {}, "later": 1})
    assert events.decode_event(json.dumps({**json.loads(events.encode_event(event)), "later": {"a": 1}}).encode()) == event


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"[]",
        b"{}",
        b'"x"',
        b'{"version": 2, "what": "done", "sender": "x"}',
        b'{"version": 1, "what": "done"}',
        b'{"version": 1, "what": 3, "sender": "x"}',
        b'{"version": 1, "what": "done", "sender": "x", "details": []}',
        b"\xff",
    ],
)
def test_anything_but_an_event_is_ignored(body: bytes) -> None:
    assert events.decode_event(body) is None


@pytest.mark.parametrize("error", [MediaNotFound("x"), ServiceUnavailable("y", 3.5), MetadataError("z"), ValueError("v")])
def test_a_failure_means_the_same_after_its_message_was_read(error: Exception) -> None:
    failure = classify_error(error)
    decoded = events.decode_event(events.encode_event(Event(events.FAILED, "w", "c", "f", {"failure": vars(failure)})))
    assert decoded is not None and events.parse_failure(decoded.details) == failure
    assert isinstance(events.parse_failure(decoded.details).when, RetryPolicy)


def test_newer_calls_go_into_earlier_queues_than_older_ones() -> None:
    now = 1e9
    assert queue_names("q") == ("q", "q.today", "q.backlog") and dead_letter_queue("q") == "q.XQ"
    assert [choose_queue(now - age, now) for age in (-5, 0, HOUR - 1, HOUR, DAY - 1, DAY, 30 * DAY)] == [0, 0, 0, 1, 1, 2, 2]
    assert choose_queue(None, now) == 2


def test_a_backlog_leaves_capacity_for_the_calls_of_today() -> None:
    assert [free_capacity(lane, (0, 0, 0), 100) for lane in range(3)] == [100, 75, 50]
    assert [free_capacity(lane, (0, 0, 50), 100) for lane in range(3)] == [50, 25, 0]
    assert [free_capacity(lane, (50, 25, 50), 100) for lane in range(3)] == [0, 0, 0]


@given(st.integers(1, 1000), st.lists(st.integers(0, 2), max_size=300))
def test_no_more_than_max_queue_is_ever_queued(max_queue: int, arriving: list[int]) -> None:
    depths = [0] * len(PRIORITY_QUEUES)
    for lane in arriving:
        if free_capacity(lane, depths, max_queue):
            depths[lane] += 1
    assert sum(depths) <= max_queue


@given(st.integers(1, 1000), st.lists(st.integers(0, 300), min_size=3, max_size=3))
def test_more_tasks_are_wanted_only_when_all_fit(max_queue: int, depths: list[int]) -> None:
    assert has_room_everywhere([0, 0, 0], max_queue) and not has_room_everywhere([0, 0, 50], 100)
    assert not has_room_everywhere(depths, max_queue) or all(
        free_capacity(lane, depths, max_queue) for lane in range(len(PRIORITY_QUEUES))
    )
