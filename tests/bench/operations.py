"""The duration of single broker operations of a fleet: a task, an event, a lock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from muxer.config import load_config
from muxer.config.schema import FleetOptions
from muxer.fleet.broker import FleetBroker
from muxer.fleet.connection import declare_event_queue
from muxer.fleet.control_connection import ControlConnection
from muxer.fleet.events import BEGUN, Event
from muxer.fleet.locks import TargetLocks
from muxer.fleet.orders import Order
from muxer.net.circuit_breaker import CircuitBreaker
from tests.bench.broker import RabbitNode
from tests.bench.measure import BenchSetting, Figure, time_action
from tests.support.daemon import wait_until

CONFIG = """\
[htcc]
base_uri = http://127.0.0.1
contact_center_id = bench
[fleet]
mode = broker
queue = operations
"""


def measure(setting: BenchSetting, node: RabbitNode, count: int) -> Iterator[Figure]:
    """Measure `count` of each operation, sequentially over one connection, each confirmed by RabbitMQ."""
    fleet = _load_fleet(setting.folder / "operations.cfg", node)
    broker = FleetBroker(fleet, "bench", CircuitBreaker())
    broker.declare_queue(fleet.queue, ensure=True)
    yield _measure_each("a task", count, lambda one: _send_task(broker, one))
    broker.close()
    locks = TargetLocks(fleet.queue)

    def declare_queues(connection: Any) -> None:
        declare_event_queue(connection.channel(), fleet.queue, "bench")
        locks.restore_locks(connection)

    line = ControlConnection(fleet, "bench", CircuitBreaker(), declare_queues, lambda _: None, 5.0)
    line.start()
    wait_until(lambda: line.is_connected, 20.0, "a connection")
    yield _measure_each("an event", count, lambda one: _send_event(line, one))
    yield _measure_each(
        "a lock, taken and given back", count, lambda one: _lock_and_release(locks, line, f"{one}_muxed.mp4")
    )
    line.close(5.0)


def _send_task(broker: FleetBroker, number: int) -> None:
    broker.send_message(broker.create_message(Order("bench", f"{number}_muxed.mp4"), 0))


def _send_event(line: ControlConnection, number: int) -> None:
    line.send_event(Event(BEGUN, "bench", "bench", f"{number}_muxed.mp4"))
    line.run_task(lambda _: None)  # comes after it


def _lock_and_release(locks: TargetLocks, line: ControlConnection, file: str) -> None:
    assert locks.acquire_lock(line, file)
    locks.release_lock(line, file)


def _measure_each(what: str, count: int, action: Callable[[int], object]) -> Figure:
    taken = [1000 * time_action(lambda one=one: action(one)) for one in range(count)]  # type: ignore[misc]
    ordered = sorted(taken)
    return Figure(f"{what} at the broker", sum(taken) / count, "ms", ordered[count // 10], ordered[count * 9 // 10])


def _load_fleet(path: Path, node: RabbitNode) -> FleetOptions:
    path.write_text(CONFIG)
    return load_config(path, {}, {"FLEET_BROKER_URL": node.node_url()}).config.fleet
