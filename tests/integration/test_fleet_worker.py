"""Workers of a fleet where RabbitMQ is there, but not as it should be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.crew import QUEUE, SECONDS, Crew, stopped
from tests.support.daemon import wait_until
from tests.support.disk import fill, small_disk
from tests.support.line import Line
from tests.support.queues import VirtualHost
from tests.support.stand_in import waiting

from muxer.lab.cases import Case
from muxer.lab.lab import Lab

LANES = (QUEUE, f"{QUEUE}.today", f"{QUEUE}.backlog")
# As many orders are given back in seconds as with the product's pauses in minutes.
IMPATIENT = {
    "muxer.fleet.line.ASK_SECONDS": 0.2,
    "muxer.fleet.worker.LOCK_LOOK_SECONDS": 0.05,
    "muxer.fleet.worker.RETURN_SECONDS": 0.05,
    "muxer.fleet.connection.BLOCKED_SECONDS": 4.0,
    "muxer.outages.FAILURES_IN_A_ROW": 1,
    "muxer.fleet.line.STUCK_SECONDS": 1.0,
    "muxer.fleet.held.SILENT_SECONDS": 2.0,
    "muxer.fleet.held.SETTLE_SECONDS": 2.0,
    "muxer.fleet.held.LONGEST_GAP_SECONDS": 2.0,
}


def test_no_order_is_given_up_while_rabbitmq_lacks_memory(
    make_lab: Callable[..., Lab], vhost: VirtualHost, tmp_path: Path
) -> None:
    """A worker takes its next order when its line is blocked already: RabbitMQ blocks only connections that publish."""
    lab = make_lab()
    for case in (Case.PLAIN, Case.GAPS):
        lab.add_case(case)
    options = {"processing__openssl": str(waiting(tmp_path)), "advanced__worker_threads": "1"}
    with Crew(lab, vhost.url, constants=IMPATIENT, **options) as crew:
        poller, worker = crew.poller(), crew.worker()
        wait_until(lambda: crew.said("encrypt") or crew.said("mux done"), SECONDS, "a job", crew.log)
        wait_until(lambda: sum(map(vhost.ready, LANES)) == 1, SECONDS, "the other order", crew.log)
        vhost.node.evaluate("ok = vm_memory_monitor:set_vm_memory_high_watermark(0.00001)")
        try:
            (tmp_path / "go").touch()
            wait_until(lambda: crew.said("RabbitMQ is out"), SECONDS, "the outage", crew.log)
            wait_until(lambda: any("RabbitMQ is" in one for one in crew.tell("status")["trouble"]), SECONDS, "what is said")
        finally:
            vhost.node.evaluate("ok = vm_memory_monitor:set_vm_memory_high_watermark({absolute, 1000000000})")
        wait_until(lambda: crew.tell("status")["targets"] == {"done": 2}, SECONDS, "the work", crew.log)
        assert "lacks memory or disk" in crew.said("RabbitMQ is out")[0]["message"]
        assert vhost.ready(f"{QUEUE}.XQ") == 0 and not crew.polled("the order for a file has vanished")
        assert stopped(poller, worker) == [0, 0]


def test_a_worker_with_a_full_disk_says_so_and_stops_although_rabbitmq_is_silent(
    make_lab: Callable[..., Lab], vhost: VirtualHost, tmp_path: Path
) -> None:
    with Line(vhost.node.port) as line, small_disk(tmp_path / "small", "20m") as disk:
        url = vhost.url_through(line.port)
        fill(disk, leave=10_000_000)
        with Crew(make_lab(), url, processing__temp_dir=str(disk), processing__min_free_megabytes="15") as crew:
            poller, worker = crew.poller(), crew.worker()
            wait_until(lambda: "temp_dir" in out_for_worker(crew), SECONDS, "what the worker tells", crew.log)
            line.go_dead()
            # Far less than RabbitMQ's heartbeat takes to be missed.
            assert stopped(poller, worker, seconds=20) == [0, 0]


def out_for_worker(crew: Crew) -> dict[str, str]:
    """Return what is out for the first worker, as status says it."""
    state = crew.tell("status")["state"]
    workers = state["fleet"]["workers"] if state else []
    return dict(workers[0]["out"]) if workers else {}
