"""The status page of a fleet: numbers, queues, workers and problems; no such section without a fleet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from muxer.monitoring.page import render_status_page
from muxer.monitoring.summary import BAD, GOOD, NOTE, summarize_view
from muxer.monitoring.view import ServiceStatus, gather_status
from muxer.status.fleet_status import FleetStatus
from tests.support.fleet_views import NOW, fleet_view, worker_view
from tests.support.monitoring import create_sources
from tests.support.page_reader import PageReader
from tests.support.status_views import muxer_view, running_job

LANES = {"recording-muxer": 12, "recording-muxer.today": 30, "recording-muxer.backlog": 0}
BUSY_WORKER = worker_view(running=(running_job("call-1", "mux", 45_000_000, 60_000_000), running_job("call-2", "store")))
SILENT_WORKER = worker_view(1, seen=NOW - 120, running=(running_job("call-3", "mux"),))


def fleet_text(found: FleetStatus | None, **changes: object) -> str:
    return PageReader(render_status_page(muxer_view(fleet=found, **changes))).page_text


def test_without_a_fleet_the_page_has_no_fleet_section() -> None:
    html = render_status_page(muxer_view())
    assert "Fleet" not in html and "leet" not in PageReader(html).page_text
    assert "Running 2 of 4 workers" in PageReader(html).page_text


def test_the_fleet_section_shows_its_numbers() -> None:
    found = fleet_view(BUSY_WORKER, SILENT_WORKER, lanes=LANES, dead=3, queued=42, running=2, oldest=NOW - 5400)
    text = fleet_text(found, queued=42, workers=4, running=())
    for words in (
        "Now Fleet Services",
        "RabbitMQ connected",
        "Workers 1 with 4 threads",
        "Per hour 120 muxed files",
        "Queued tasks 42",
        "Oldest task 1 h 30 min since 23:56 UTC",
        "Dead letters 3",
        "recording-muxer 12 recording-muxer.today 30 recording-muxer.backlog 0",
        "Running 2 of 4 threads of the fleet",
        "call-1 agent",
        "on host-0/worker-0/100",
    ):
        assert words in text
    assert "call-3" not in text, "the job of a silent worker is unknown"


def test_each_worker_has_a_row_and_the_silent_ones_come_first() -> None:
    waits = worker_view(2, out={"WebDAV https://dav": "no answer from https://dav/calls/+4930123456.mp4"})
    text = fleet_text(fleet_view(BUSY_WORKER, waits, SILENT_WORKER))
    assert text.index("host-1/worker-0/101") < text.index("host-0/worker-0/100 version")
    assert "silent since 01:24 UTC 2 min ago 1 of 4 90 2 120" in text
    assert "host-0/worker-0/100 version 0.1.0 running 2 of 4 90 2 120" in text
    assert "waiting WebDAV https://dav is unavailable: no answer from https://dav/…" in text and "4930" not in text


def test_queues_and_dead_letters_are_unknown_while_the_broker_is_unavailable() -> None:
    text = fleet_text(fleet_view(BUSY_WORKER, lanes=LANES, dead=3, connected=False))
    assert "RabbitMQ not connected no tasks are distributed" in text and "Dead letters unknown" in text
    assert "recording-muxer unknown recording-muxer.today unknown" in text


def test_only_the_first_hundred_workers_are_shown() -> None:
    many = [worker_view(number, running=(running_job(f"call-{number}", "mux"),)) for number in range(130)]
    html = render_status_page(muxer_view(fleet=fleet_view(*many)))
    assert html.count("/worker-0/") == 200 and PageReader(html).page_text.count("30 more.") == 2
    assert len(html.encode()) < 500_000
    assert "Running 130 of" in PageReader(html).page_text


def test_a_fleet_that_has_just_started_has_a_page() -> None:
    text = fleet_text(fleet_view(lanes={}))
    assert "No worker has sent a heartbeat in the last five minutes." in text and "Oldest task none" in text


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a" * 500, "\x1b[31m"])
def test_texts_of_a_worker_are_escaped(name: str) -> None:
    odd = worker_view(name=name, host=name, version=name, out={name: name})
    html = render_status_page(muxer_view(fleet=fleet_view(odd, lanes={name: 1})))
    assert "<script>" not in html and "\x1b" not in html and len(html) < 100_000


def test_the_view_takes_its_numbers_from_the_fleet_without_secrets(tmp_path: Path) -> None:
    sources = create_sources(tmp_path, htcc__password="very secret")
    fleet = fleet_view(worker_view(out={"RWS": "refused very secret"}), worker_view(1, threads=2), queued=7)
    found = gather_status(replace(sources, fleet=lambda: fleet))
    assert (found.queued, found.workers) == (7, 6) and found.fleet is not None
    assert found.fleet.workers[0].out == {"RWS": "refused ***"}
    assert gather_status(sources).fleet is None


OUTAGE = ServiceStatus("RabbitMQ", False, NOW - 600, "no answer", NOW - 700)


@pytest.mark.parametrize(
    ("found", "changes", "level", "title"),
    [
        (fleet_view(BUSY_WORKER), {}, GOOD, "Working"),
        (fleet_view(worker_view()), {}, GOOD, "Working; nothing to do at the moment"),
        (fleet_view(), {}, GOOD, "Working; nothing to do at the moment"),
        (fleet_view(SILENT_WORKER, queued=5), {}, BAD, "No worker is running, and 5 muxed files wait for one"),
        (
            fleet_view(worker_view(), connected=False),
            {},
            BAD,
            "RabbitMQ is not connected: no tasks are distributed to the workers",
        ),
        (fleet_view(connected=False), {"services": (OUTAGE,)}, BAD, "RabbitMQ is unavailable since 01:16 UTC (10 min)"),
        (fleet_view(BUSY_WORKER, dead=1), {}, NOTE, "Working; 1 task is a dead letter"),
        (fleet_view(BUSY_WORKER, dead=2), {}, NOTE, "Working; 2 tasks are dead letters"),
        (fleet_view(BUSY_WORKER, dead=2), {"counts": {"aside": 1}}, NOTE, "Working; 1 recording is set aside"),
    ],
)
def test_the_summary_names_the_problem_of_the_fleet(found: FleetStatus, changes: dict, level: str, title: str) -> None:
    view = muxer_view(fleet=found, **changes)
    assert (summarize_view(view).level, summarize_view(view).title) == (level, title)
    assert title in PageReader(render_status_page(view)).page_text
