"""A real fleet as an administrator sees it, on the poller and next to the workers: ``status``, metrics, health, page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.cases import Case
from lab.lab import Lab
from tests.support.daemon import wait_until
from tests.support.fake_program import write_waiting
from tests.support.fleet_processes import QUEUE, TIMEOUT_SECONDS, FleetProcesses
from tests.support.monitoring import parse_samples, readiness_reasons, send_request
from tests.support.page_reader import PageReader
from tests.support.ports import free_port
from tests.support.queues import VirtualHost


def fleet_section(status: dict[str, Any]) -> dict[str, Any]:
    """Return the fleet section of ``status``; it is empty before the poller has reported anything."""
    return status["state"]["fleet"] if status["state"] else {"lanes": {}, "workers": []}


class ObservedFleet:
    """A fleet with its ``status`` command, its metrics and its status page."""

    def __init__(self, crew: FleetProcesses, port: int) -> None:
        self.crew, self.port = crew, port

    def read_metric(self, name: str) -> float | None:
        """Return the current value of a fleet metric, None when it does not exist."""
        try:
            return parse_samples(send_request(self.port, "/metrics").body).get(f"muxer_fleet_{name}")
        except OSError:
            return None  # the port is not open yet

    def page_text(self) -> str:
        """Return the texts of the status page."""
        return PageReader(send_request(self.port).body).page_text

    def wait_for_status(self, what: str, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait until `holds` is true for the output of ``status``, updated every two seconds. Returns that output."""
        status: list[dict[str, Any]] = []
        wait_until(
            lambda: status.append(self.crew.run_json("status")) or holds(status[-1]), TIMEOUT_SECONDS, what, self.crew.log
        )
        return status[-1]

    def wait_for_metric(self, name: str, value: float) -> None:
        """Wait until a metric of the fleet has a value."""
        wait_until(lambda: self.read_metric(name) == value, TIMEOUT_SECONDS, f"{name} = {value}", self.crew.log)


@pytest.mark.long
def test_fleet_is_shown_from_first_task_to_last(make_lab: Callable[..., Lab], vhost: VirtualHost, tmp_path: Path) -> None:
    """A single run, including an outage of the broker, because a fleet takes seconds to start."""
    lab, port = make_lab(), free_port()
    calls = [lab.add_case(case)[0] for case in (Case.PLAIN, Case.GAPS)]
    options = {"processing__openssl": str(write_waiting(tmp_path)), "advanced__worker_threads": "1"}
    with FleetProcesses(lab, vhost.url, "seen", monitoring__http_port=str(port), **options) as crew:
        seen = ObservedFleet(crew, port)
        poller = crew.start_poller()
        seen.wait_for_metric("queued", len(calls))
        assert "no worker is running, and 2 muxed files wait for one" in readiness_reasons(port)[1]
        assert "No worker is running, and 2 muxed files wait for one" in seen.page_text()
        status = seen.wait_for_status(
            "the tasks in their queues", lambda one: sum(fleet_section(one)["lanes"].values()) == 2
        )
        assert status["trouble"] == ["no worker is running, and 2 muxed files wait for one"]
        queues = [seen.read_metric(f'queue_messages{{queue="{QUEUE}{name}"}}') for name in ("", ".today", ".backlog")]
        assert sum(queues) == 2
        assert (seen.read_metric("up"), seen.read_metric("workers"), seen.read_metric("dead_letters")) == (1, 0, 0)

        worker = crew.start_worker()
        seen.wait_for_metric("running", 1)
        seen.wait_for_metric("workers", 1)
        assert readiness_reasons(port) == (200, [])
        status = seen.wait_for_status(
            "the running job", lambda one: any(each["running"] for each in fleet_section(one)["workers"])
        )
        [status] = fleet_section(status)["workers"]
        [job] = status["running"]
        assert (status["pid"], status["threads"], job["recording"] in {call.id for call in calls}) == (
            worker.process.pid,
            1,
            True,
        )
        text = seen.page_text()
        assert f"{status['name']} version" in text and f"on {status['name']}" in text and job["recording"] in text
        assert (seen.read_metric("oldest_message_age_seconds") or 0) > 0

        (tmp_path / "go").touch()
        seen.wait_for_metric("queued", 0)
        seen.wait_for_metric("running", 0)
        label = status["name"].removesuffix(f"/{status['pid']}")
        wait_until(
            lambda: (seen.read_metric(f'worker_targets_per_hour{{worker="{label}"}}') or 0) > 0, TIMEOUT_SECONDS, "the rate"
        )
        done = seen.wait_for_status("the end of the work", lambda one: fleet_section(one)["workers"][0]["muxed"] == 2)
        assert (done["trouble"], fleet_section(done)["queued"], done["targets"]) == ([], 0, {"done": 2})

        vhost.node.stop()
        seen.wait_for_metric("up", 0)
        wait_until(lambda: "RabbitMQ is " in readiness_reasons(port)[1][0], TIMEOUT_SECONDS, "the reason", crew.log)
        assert "RabbitMQ is " in seen.page_text()
        seen.wait_for_status("the outage", lambda one: one["trouble"] and one["trouble"][0].startswith("RabbitMQ is "))
        vhost.node.start()
        seen.wait_for_metric("up", 1)
        wait_until(lambda: readiness_reasons(port)[0] == 200, TIMEOUT_SECONDS, "readiness", crew.log)

        assert poller.stop() == 0
        alone = seen.wait_for_status("that the worker goes on", lambda one: one["workers"] and not one["trouble"])
        assert alone["standing"] == "does not run"
        [one] = alone["workers"]
        assert (one["standing"], one["state"]["pid"]) == ("runs", worker.process.pid)
        assert one["state"]["totals"]["outcomes"] == {"muxed": 2}
        assert worker.stop() == 0
