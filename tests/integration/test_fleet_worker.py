"""Workers of a fleet where RabbitMQ is there, but not as it should be."""

from __future__ import annotations

from collections.abc import Callable

from support.crew import QUEUE, SECONDS, Crew, stopped
from support.daemon import wait_until
from support.queues import VirtualHost

from muxer.lab.cases import Case
from muxer.lab.lab import Lab

LANES = (QUEUE, f"{QUEUE}.today", f"{QUEUE}.backlog")
# As many orders are given back in seconds as with the product's pauses in minutes.
IMPATIENT = {
    "muxer.fleet.line.ASK_SECONDS": 0.3,
    "muxer.fleet.worker.LOCK_LOOK_SECONDS": 0.05,
    "muxer.fleet.worker.RETURN_SECONDS": 0.05,
    "muxer.fleet.connection.BLOCKED_SECONDS": 1.0,
}


def test_nothing_is_given_up_while_rabbitmq_lacks_memory(make_lab: Callable[..., Lab], vhost: VirtualHost) -> None:
    lab = make_lab()
    lab.add_case(Case.PLAIN)
    with Crew(lab, vhost.url, constants=IMPATIENT) as crew:
        poller = crew.poller()
        wait_until(lambda: sum(map(vhost.ready, LANES)), SECONDS, "the order", crew.log)
        vhost.node.evaluate("ok = vm_memory_monitor:set_vm_memory_high_watermark(0.00001)")
        try:
            worker = crew.worker()
            wait_until(lambda: crew.said("RabbitMQ is out"), SECONDS, "the outage", crew.log)
        finally:
            vhost.node.evaluate("ok = vm_memory_monitor:set_vm_memory_high_watermark({absolute, 1000000000})")
        wait_until(lambda: crew.tell("status")["targets"] == {"done": 1}, SECONDS, "the work", crew.log)
        assert "lacks memory or disk" in crew.said("RabbitMQ is out")[0]["message"]
        assert vhost.ready(f"{QUEUE}.XQ") == 0
        assert stopped(poller, worker) == [0, 0]
