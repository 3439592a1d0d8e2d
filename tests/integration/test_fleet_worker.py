"""Workers of a fleet whose RabbitMQ is available but impaired."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.cases import Case
from lab.lab import Lab
from tests.support.daemon import wait_until
from tests.support.disk import fill_disk, small_disk
from tests.support.fake_program import write_waiting
from tests.support.fleet_processes import QUEUE, TIMEOUT_SECONDS, FleetProcesses, stop_processes
from tests.support.queues import VirtualHost
from tests.support.tcp_proxy import TcpProxy

QUEUES = (QUEUE, f"{QUEUE}.today", f"{QUEUE}.backlog")
# With these delays the tasks that are requeued in seconds equal those of the product in minutes.
SHORT_DELAYS = {
    "muxer.fleet.control_connection.TASK_TIMEOUT_SECONDS": 0.2,
    "muxer.fleet.worker.LOCK_RETRY_INTERVAL": 0.05,
    "muxer.fleet.worker.REDELIVERY_DELAY_SECONDS": 0.05,
    "muxer.fleet.connection.BLOCKED_SECONDS": 4.0,
    "muxer.net.circuit_breaker.FAILURE_THRESHOLD": 1,
    "muxer.fleet.control_connection.STUCK_SECONDS": 1.0,
    "muxer.fleet.outstanding_orders.SILENT_SECONDS": 2.0,
    "muxer.fleet.outstanding_orders.SETTLE_SECONDS": 2.0,
    "muxer.fleet.outstanding_orders.MAX_GAP_SECONDS": 2.0,
}


@pytest.mark.long
def test_no_task_is_abandoned_while_rabbitmq_lacks_memory(
    make_lab: Callable[..., Lab], vhost: VirtualHost, tmp_path: Path
) -> None:
    """A worker takes its next task when its connection is already blocked: RabbitMQ blocks only publishing connections."""
    lab = make_lab()
    for case in (Case.PLAIN, Case.GAPS):
        lab.add_case(case)
    options = {"processing__openssl": str(write_waiting(tmp_path)), "advanced__worker_threads": "1"}
    with FleetProcesses(lab, vhost.url, constants=SHORT_DELAYS, **options) as crew:
        poller, worker = crew.start_poller(), crew.start_worker()
        wait_until(lambda: crew.worker_lines("encrypt") or crew.worker_lines("mux done"), TIMEOUT_SECONDS, "a job", crew.log)
        wait_until(lambda: sum(map(vhost.ready_count, QUEUES)) == 1, TIMEOUT_SECONDS, "the other task", crew.log)
        vhost.node.evaluate_erlang("ok = vm_memory_monitor:set_vm_memory_high_watermark(0.00001)")
        try:
            (tmp_path / "go").touch()
            wait_until(lambda: crew.worker_lines("RabbitMQ is unavailable"), TIMEOUT_SECONDS, "the outage", crew.log)
            wait_until(
                lambda: any("RabbitMQ is" in problem for problem in crew.run_json("status")["trouble"]),
                TIMEOUT_SECONDS,
                "the report",
            )
        finally:
            vhost.node.evaluate_erlang("ok = vm_memory_monitor:set_vm_memory_high_watermark({absolute, 1000000000})")
        wait_until(lambda: crew.run_json("status")["targets"] == {"done": 2}, TIMEOUT_SECONDS, "the work", crew.log)
        assert "lacks memory or disk" in crew.worker_lines("RabbitMQ is unavailable")[0]["message"]
        assert vhost.ready_count(f"{QUEUE}.XQ") == 0 and not crew.poller_lines("the task of a file is lost in RabbitMQ")
        assert stop_processes(poller, worker) == [0, 0]


def test_worker_with_full_disk_reports_it_and_stops_although_rabbitmq_is_silent(
    make_lab: Callable[..., Lab], vhost: VirtualHost, tmp_path: Path
) -> None:
    with TcpProxy(vhost.node.port) as line, small_disk(tmp_path / "small", "20m") as disk:
        url = vhost.url_through(line.port)
        fill_disk(disk, leave=10_000_000)
        with FleetProcesses(make_lab(), url, processing__temp_dir=str(disk), processing__min_free_megabytes="15") as crew:
            poller, worker = crew.start_poller(), crew.start_worker()
            wait_until(lambda: "temp_dir" in out_for_worker(crew), TIMEOUT_SECONDS, "the report of the worker", crew.log)
            line.drop_silently()
            # Much less than the heartbeat timeout of RabbitMQ.
            assert stop_processes(poller, worker, seconds=20) == [0, 0]


def out_for_worker(crew: FleetProcesses) -> dict[str, str]:
    """Return what `status` reports as unavailable for the first worker."""
    state = crew.run_json("status")["state"]
    workers = state["fleet"]["workers"] if state else []
    return dict(workers[0]["out"]) if workers else {}
