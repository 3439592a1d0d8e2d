"""The fleet view: written to the state file and read back even when malformed; silent workers and problems."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from muxer.status.fleet_status import (
    BROKER,
    DISK_SERVICE,
    FORGOTTEN_SECONDS,
    SILENT_SECONDS,
    fleet_from_dict,
    fleet_problems,
    fleet_to_dict,
    is_forgotten,
    is_silent,
)
from tests.support.fleet_views import NOW, fleet_view, worker_view
from tests.support.status_views import running_job


def test_the_fleet_view_is_read_from_the_state_file_as_written() -> None:
    view = fleet_view(
        worker_view(running=(running_job("call-1", "mux", 3, 10),)),
        worker_view(1, out={"RWS": "no answer"}),
        oldest=NOW - 100,
    )
    assert fleet_from_dict(json.loads(json.dumps(fleet_to_dict(view)))) == view
    assert fleet_from_dict(json.loads(json.dumps(fleet_to_dict(replace(view, oldest=None))))) == replace(view, oldest=None)


@pytest.mark.parametrize("plain", [None, 3, "fleet", [], {}, {"at": 1}, [{"at": 1}]])
def test_a_malformed_fleet_view_is_ignored(plain: object) -> None:
    assert fleet_from_dict(plain) is None


@pytest.mark.parametrize("value", [None, "many", [], {}, True, float("nan"), 10**400])
@pytest.mark.parametrize("name", ["at", "dead", "queued", "running", "lanes"])
def test_a_fleet_view_with_a_malformed_value_is_ignored(name: str, value: object) -> None:
    view = fleet_view(worker_view())
    no_lanes = replace(view, lanes={}) if (name, value) == ("lanes", {}) else None
    assert fleet_from_dict({**fleet_to_dict(view), name: value}) == no_lanes


def test_malformed_workers_and_jobs_are_ignored() -> None:
    view = fleet_view(worker_view(running=(running_job("call-1", "mux"),)), worker_view(1))
    plain = json.loads(json.dumps(fleet_to_dict(view)))
    plain["workers"][0]["running"].append({"recording": "call-2"})
    plain["workers"][1]["rate"] = "quick"
    plain["workers"] += [None, "worker", {"name": "w"}]
    assert fleet_from_dict(plain) == replace(view, workers=view.workers[:1])


def test_a_worker_without_heartbeats_is_silent_and_later_forgotten() -> None:
    one = worker_view()
    assert not is_silent(one, one.seen + SILENT_SECONDS) and is_silent(one, one.seen + SILENT_SECONDS + 1)
    assert not is_forgotten(one, one.seen + FORGOTTEN_SECONDS) and is_forgotten(one, one.seen + FORGOTTEN_SECONDS + 1)
    silent = worker_view(1, seen=NOW - 30)
    view = fleet_view(one, silent)
    assert view.live_workers == (one,) and view.hourly_rate == one.rate and view.thread_count == 4
    job_of_one = running_job("call-1", "mux")
    busy = fleet_view(
        worker_view(running=(job_of_one,)), worker_view(1, seen=NOW - 30, running=(running_job("call-2", "mux"),))
    )
    assert busy.running_jobs == ((one.name, job_of_one),)
    assert one.host_slot == "host-0/worker-0"


def test_the_age_of_the_oldest_is_never_negative() -> None:
    assert [fleet_view(oldest=at).oldest_age for at in (None, NOW - 90, NOW + 5)] == [0, 90, 0]


def test_the_problems_of_a_fleet_are_listed() -> None:
    assert fleet_problems(fleet_view(worker_view(), queued=5)) == fleet_problems(fleet_view(queued=0)) == ()
    out = fleet_view(worker_view(), connected=False)
    assert fleet_problems(out, {"RWS"}) == ("RabbitMQ is not connected: no tasks are distributed to the workers",)
    assert fleet_problems(out, {BROKER}) == ()
    assert fleet_problems(fleet_view(worker_view(seen=NOW - 30), queued=1)) == (
        "no worker is running, and 1 muxed file waits for one",
    )
    full = {DISK_SERVICE: "its disk is nearly full"}
    assert (
        fleet_problems(fleet_view(worker_view(out=full), worker_view(1), queued=1))
        == fleet_problems(fleet_view(worker_view(out=full)))
        == ()
    )
    assert fleet_problems(fleet_view(worker_view(out=full), queued=1)) == (
        "no worker accepts tasks: the disk of each is nearly full",
    )
    assert fleet_problems(fleet_view(queued=7)) == ("no worker is running, and 7 muxed files wait for one",)
