"""How the fleet stands: kept in the state file and read again, whatever stands there; who is silent, and what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.support.fleet import NOW, fleet, worker
from tests.support.views import job

from muxer.fleet.view import (
    BROKER,
    DISK,
    FORGOTTEN_SECONDS,
    SILENT_SECONDS,
    from_plain,
    is_forgotten,
    is_silent,
    to_plain,
    trouble,
)


def test_it_is_read_from_the_state_file_as_it_was_written() -> None:
    view = fleet(worker(running=(job("call-1", "mux", 3, 10),)), worker(1, out={"RWS": "no answer"}), oldest=NOW - 100)
    assert from_plain(json.loads(json.dumps(to_plain(view)))) == view
    assert from_plain(json.loads(json.dumps(to_plain(replace(view, oldest=None))))) == replace(view, oldest=None)


@pytest.mark.parametrize("plain", [None, 3, "fleet", [], {}, {"at": 1}, [{"at": 1}]])
def test_what_is_no_fleet_is_none(plain: object) -> None:
    assert from_plain(plain) is None


@pytest.mark.parametrize("value", [None, "many", [], {}, True, float("nan"), 10**400])
@pytest.mark.parametrize("name", ["at", "dead", "queued", "running", "lanes"])
def test_a_value_of_another_form_makes_it_none(name: str, value: object) -> None:
    view = fleet(worker())
    no_lanes = replace(view, lanes={}) if (name, value) == ("lanes", {}) else None
    assert from_plain({**to_plain(view), name: value}) == no_lanes


def test_workers_and_jobs_of_another_form_are_left_out() -> None:
    view = fleet(worker(running=(job("call-1", "mux"),)), worker(1))
    plain = json.loads(json.dumps(to_plain(view)))
    plain["workers"][0]["running"].append({"recording": "call-2"})
    plain["workers"][1]["rate"] = "quick"
    plain["workers"] += [None, "worker", {"name": "w"}]
    assert from_plain(plain) == replace(view, workers=view.workers[:1])


def test_who_says_nothing_is_silent_and_then_forgotten() -> None:
    one = worker()
    assert not is_silent(one, one.seen + SILENT_SECONDS) and is_silent(one, one.seen + SILENT_SECONDS + 1)
    assert not is_forgotten(one, one.seen + FORGOTTEN_SECONDS) and is_forgotten(one, one.seen + FORGOTTEN_SECONDS + 1)
    silent = worker(1, seen=NOW - 30)
    view = fleet(one, silent)
    assert view.living == (one,) and view.rate == one.rate and view.threads == 4
    job_of_one = job("call-1", "mux")
    busy = fleet(worker(running=(job_of_one,)), worker(1, seen=NOW - 30, running=(job("call-2", "mux"),)))
    assert busy.jobs == ((one.name, job_of_one),)
    assert one.slot == "host-0/worker-0"


def test_the_age_of_the_oldest_is_never_negative() -> None:
    assert [fleet(oldest=at).oldest_age for at in (None, NOW - 90, NOW + 5)] == [0, 90, 0]


def test_what_keeps_a_fleet_from_its_work() -> None:
    assert trouble(fleet(worker(), queued=5)) == trouble(fleet(queued=0)) == ()
    out = fleet(worker(), connected=False)
    assert trouble(out, {"RWS"}) == ("RabbitMQ is not reached: nothing is handed to the workers",)
    assert trouble(out, {BROKER}) == ()
    assert trouble(fleet(worker(seen=NOW - 30), queued=1)) == ("no worker is there, and 1 muxed file waits for one",)
    full = {DISK: "its disk is nearly full"}
    assert trouble(fleet(worker(out=full), worker(1), queued=1)) == trouble(fleet(worker(out=full))) == ()
    assert trouble(fleet(worker(out=full), queued=1)) == ("no worker takes an order: the disk of each is nearly full",)
    assert trouble(fleet(queued=7)) == ("no worker is there, and 7 muxed files wait for one",)
