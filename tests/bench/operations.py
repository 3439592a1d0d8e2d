"""What single operations of a fleet at its broker take: an order, an event, a lock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from muxer.config import load
from muxer.config.schema import Fleet
from muxer.fleet.broker import FleetBroker
from muxer.fleet.connection import declare_events
from muxer.fleet.events import BEGUN, Event
from muxer.fleet.line import Line
from muxer.fleet.locks import Locks
from muxer.fleet.orders import Order
from muxer.outages import Outages
from tests.bench.broker import RabbitNode
from tests.bench.measure import Figure, Setting, clocked
from tests.support.daemon import wait_until

CONFIG = """\
[htcc]
base_uri = http://127.0.0.1
contact_center_id = bench
[fleet]
mode = broker
queue = operations
"""


def measure(setting: Setting, node: RabbitNode, count: int) -> Iterator[Figure]:
    """So many of each, one after the other over one connection, each confirmed by RabbitMQ."""
    fleet = _fleet(setting.folder / "operations.cfg", node)
    broker = FleetBroker(fleet, "bench", Outages())
    broker.declare_queue(fleet.queue, ensure=True)
    yield _each("an order", count, lambda one: _sent(broker, one))
    broker.close()
    locks = Locks(fleet.queue)

    def opened(connection: Any) -> None:
        declare_events(connection.channel(), fleet.queue, "bench")
        locks.opened(connection)

    line = Line(fleet, "bench", Outages(), opened, lambda _: None, 5.0)
    line.start()
    wait_until(lambda: line.is_connected, 20.0, "a connection")
    yield _each("an event", count, lambda one: _told(line, one))
    yield _each("a lock, taken and given back", count, lambda one: _locked(locks, line, f"{one}_muxed.mp4"))
    line.close(5.0)


def _sent(broker: FleetBroker, number: int) -> None:
    broker.send(broker.message(Order("bench", f"{number}_muxed.mp4"), 0))


def _told(line: Line, number: int) -> None:
    line.tell(Event(BEGUN, "bench", "bench", f"{number}_muxed.mp4"))
    line.ask(lambda _: None)  # comes after it


def _locked(locks: Locks, line: Line, file: str) -> None:
    assert locks.hold(line, file)
    locks.release(line, file)


def _each(what: str, count: int, action: Callable[[int], object]) -> Figure:
    taken = [1000 * clocked(lambda one=one: action(one)) for one in range(count)]  # type: ignore[misc]
    ordered = sorted(taken)
    return Figure(f"{what} at the broker", sum(taken) / count, "ms", ordered[count // 10], ordered[count * 9 // 10])


def _fleet(path: Path, node: RabbitNode) -> Fleet:
    path.write_text(CONFIG)
    return load(path, {}, {"FLEET_BROKER_URL": node.url()}).config.fleet
