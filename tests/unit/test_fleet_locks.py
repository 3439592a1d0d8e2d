"""Locks of targets over a reconnection; RabbitMQ is simulated."""

from __future__ import annotations

from typing import Any

import pytest

from muxer.errors import ServiceUnavailable
from muxer.fleet.locks import TargetLocks

FILE = "call_muxed.mp4"


class FakeBroker:
    """A connection and its only channel: the exclusive queues that it has."""

    def __init__(self) -> None:
        self.queues: set[str] = set()
        self.is_open = True

    def channel(self) -> FakeBroker:
        return self

    def queue_declare(self, name: str, *, exclusive: bool) -> None:
        self.queues.add(name)

    def queue_delete(self, name: str) -> None:
        self.queues.discard(name)


class Control:
    """A control connection that is closed or open."""

    def __init__(self) -> None:
        self.broker: FakeBroker | None = FakeBroker()

    def run_task(self, task: Any) -> Any:
        if self.broker is None:
            raise ServiceUnavailable("no connection")
        return task(self.broker)

    submit_task = run_task


@pytest.mark.parametrize("is_taken_again", [True, False])
def test_a_job_that_ends_during_a_reconnection_leaves_no_lock(is_taken_again: bool) -> None:
    locks, control = TargetLocks("muxing"), Control()
    assert locks.acquire_lock(control, FILE)
    control.broker, broker = None, FakeBroker()
    locks.restore_locks(broker)
    assert broker.queues == {f"muxing.running.{FILE}"}
    with pytest.raises(ServiceUnavailable):
        locks.release_lock(control, FILE)
    control.broker = broker
    if is_taken_again:
        assert locks.acquire_lock(control, FILE)
    locks.drop_left_locks(broker)
    assert (broker.queues, locks.locked_targets) == (
        ({f"muxing.running.{FILE}"}, {FILE}) if is_taken_again else (set(), set())
    )


def test_a_lock_that_is_held_over_a_reconnection_stays() -> None:
    locks, control, broker = TargetLocks("muxing"), Control(), FakeBroker()
    assert locks.acquire_lock(control, FILE)
    locks.restore_locks(broker)
    locks.drop_left_locks(broker)
    assert broker.queues == {f"muxing.running.{FILE}"} and isinstance(locks.locked_targets, frozenset)
    control.broker = broker
    locks.release_lock(control, FILE)
    locks.drop_left_locks(broker)
    assert broker.queues == set()
