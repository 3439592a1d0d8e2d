"""A real fleet as an administrator sees it at its poller and beside its workers: ``status``, metrics, health, page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.crew import QUEUE, SECONDS, Crew
from tests.support.daemon import wait_until
from tests.support.monitoring import ask, free_port, reasons, values
from tests.support.queues import VirtualHost
from tests.support.reader import Reader
from tests.support.stand_in import waiting

from muxer.lab.cases import Case
from muxer.lab.lab import Lab


def of_fleet(told: dict[str, Any]) -> dict[str, Any]:
    """Return what ``status`` tells of the fleet, which is little before the poller has told anything."""
    return told["state"]["fleet"] if told["state"] else {"lanes": {}, "workers": []}


class Seen:
    """A fleet, looked at."""

    def __init__(self, crew: Crew, port: int) -> None:
        self.crew, self.port = crew, port

    def metric(self, name: str) -> float | None:
        """Return a metric of the fleet at this moment, None when there is none."""
        try:
            return values(ask(self.port, "/metrics").body).get(f"muxer_fleet_{name}")
        except OSError:
            return None  # the port is not open yet

    def page(self) -> str:
        """Return the texts of the status page."""
        return Reader(ask(self.port).body).text

    def status(self, what: str, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait until something holds of what the command says, and return that: it is told every two seconds."""
        told: list[dict[str, Any]] = []
        wait_until(lambda: told.append(self.crew.tell("status")) or holds(told[-1]), SECONDS, what, self.crew.log)
        return told[-1]

    def until(self, name: str, value: float) -> None:
        """Wait until a metric of the fleet has a value."""
        wait_until(lambda: self.metric(name) == value, SECONDS, f"{name} = {value}", self.crew.log)


def test_a_fleet_is_seen_from_its_first_order_to_its_last(
    make_lab: Callable[..., Lab], vhost: VirtualHost, tmp_path: Path
) -> None:
    """One run for all of it, with an outage of the broker: a fleet takes seconds to start."""
    lab, port = make_lab(), free_port()
    calls = [lab.add_case(case)[0] for case in (Case.PLAIN, Case.GAPS)]
    options = {"processing__openssl": str(waiting(tmp_path)), "advanced__worker_threads": "1"}
    with Crew(lab, vhost.url, "seen", monitoring__http_port=str(port), **options) as crew:
        seen = Seen(crew, port)
        poller = crew.poller()
        seen.until("queued", len(calls))
        assert "no worker is there, and 2 muxed files wait for one" in reasons(port)[1]
        assert "No worker is there, and 2 muxed files wait for one" in seen.page()
        told = seen.status("the orders in their lanes", lambda one: sum(of_fleet(one)["lanes"].values()) == 2)
        assert told["trouble"] == ["no worker is there, and 2 muxed files wait for one"]
        lanes = [seen.metric(f'queue_messages{{queue="{QUEUE}{name}"}}') for name in ("", ".today", ".backlog")]
        assert sum(lanes) == 2
        assert (seen.metric("up"), seen.metric("workers"), seen.metric("dead_letters")) == (1, 0, 0)

        worker = crew.worker()
        seen.until("running", 1)
        seen.until("workers", 1)
        assert reasons(port) == (200, [])
        told = seen.status("the running job", lambda one: any(each["running"] for each in of_fleet(one)["workers"]))
        [told] = of_fleet(told)["workers"]
        [job] = told["running"]
        assert (told["pid"], told["threads"], job["recording"] in {one.id for one in calls}) == (worker.process.pid, 1, True)
        text = seen.page()
        assert f"{told['name']} version" in text and f"on {told['name']}" in text and job["recording"] in text
        assert (seen.metric("oldest_message_age_seconds") or 0) > 0

        (tmp_path / "go").touch()
        seen.until("queued", 0)
        seen.until("running", 0)
        label = told["name"].removesuffix(f"/{told['pid']}")
        wait_until(lambda: (seen.metric(f'worker_targets_per_hour{{worker="{label}"}}') or 0) > 0, SECONDS, "the rate")
        done = seen.status("the end of the work", lambda one: of_fleet(one)["workers"][0]["muxed"] == 2)
        assert (done["trouble"], of_fleet(done)["queued"], done["targets"]) == ([], 0, {"done": 2})

        vhost.node.stop()
        seen.until("up", 0)
        wait_until(lambda: "RabbitMQ is " in reasons(port)[1][0], SECONDS, "the reason", crew.log)
        assert "RabbitMQ is " in seen.page()
        seen.status("the outage", lambda one: one["trouble"] and one["trouble"][0].startswith("RabbitMQ is "))
        vhost.node.start()
        seen.until("up", 1)
        wait_until(lambda: reasons(port)[0] == 200, SECONDS, "readiness", crew.log)

        assert poller.stop() == 0
        alone = seen.status("that the worker goes on", lambda one: one["workers"] and not one["trouble"])
        assert alone["standing"] == "does not run"
        [one] = alone["workers"]
        assert (one["standing"], one["state"]["pid"]) == ("runs", worker.process.pid)
        assert one["state"]["totals"]["outcomes"] == {"muxed": 2}
        assert worker.stop() == 0
