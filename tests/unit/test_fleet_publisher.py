"""A task that RabbitMQ does not confirm, as when most of its nodes are down: pika waits for it without a limit."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from muxer.config.schema import FleetOptions
from muxer.errors import ServiceUnavailable
from muxer.fleet.broker import FleetBroker
from muxer.fleet.orders import Order
from muxer.net.circuit_breaker import CircuitBreaker


class FakeNodes:
    """Stores tasks while `run` is set; a sender waits meanwhile."""

    def __init__(self) -> None:
        self.run = threading.Event()
        self.stored: list[str] = []
        self.begun = 0

    def enqueue(self, message: Any) -> None:
        self.begun += 1
        self.run.wait()
        self.stored.append(message.kwargs["file"])


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> FakeNodes:
    nodes = FakeNodes()
    monkeypatch.setattr("muxer.fleet.broker.CONFIRM_SECONDS", 0.05)
    monkeypatch.setattr(FleetBroker, "enqueue", lambda _self, message: nodes.enqueue(message))
    return nodes


def send_task(broker: FleetBroker, name: str) -> None:
    broker.send_message(broker.create_message(Order("recording", name), 0))


def test_the_wait_for_a_confirmation_ends_and_no_further_task_is_sent_before_it(nodes: FakeNodes) -> None:
    broker = FleetBroker(FleetOptions("broker", "", "orders", True, 1, 100), "test", CircuitBreaker())
    for name in ("first.mp4", "second.mp4"):
        with pytest.raises(ServiceUnavailable, match=r"not confirmed a task within 0.05 s; most of its nodes must run"):
            send_task(broker, name)
    assert nodes.begun == 1
    nodes.run.set()
    for _ in range(3):
        send_task(broker, "third.mp4")
    assert nodes.stored == ["first.mp4", *["third.mp4"] * 3]


def test_the_error_of_a_task_reaches_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: FleetBroker, _message: Any) -> None:
        raise ConnectionResetError("gone")

    monkeypatch.setattr(FleetBroker, "enqueue", refuse)
    broker = FleetBroker(FleetOptions("broker", "", "orders", True, 1, 100), "test", CircuitBreaker())
    for _ in range(2):
        with pytest.raises(ServiceUnavailable, match="ConnectionResetError: gone"):
            send_task(broker, "first.mp4")
