"""Each event of an alert occurs once: when a problem has lasted long enough, and when one that was reported has ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from muxer.app.alert_events import (
    CERTIFICATE_EXPIRES,
    CERTIFICATE_NOTICE_SECONDS,
    CORRECTION_DONE,
    CORRECTION_NEEDED,
    DISK_BACK,
    DISK_FULL,
    SERVICE_BACK,
    SERVICE_OUT,
    Condition,
    ConditionWatch,
    ExpiryWatch,
    find_conditions,
)
from muxer.journal.correction_need import CorrectionNeed
from muxer.monitoring.certificate_expiry import CertificateExpiry
from muxer.status.fleet_status import DISK_SERVICE, FleetStatus, WorkerStatus

RWS, DISK = Condition("service", "RWS"), Condition("disk", "host")
REASON = {RWS: "MUX-201 ServiceUnavailable: no response"}
WORKER = WorkerStatus("host/worker-0/17", "host", 17, "1", 0.0, 100.0, 2, (), 0, 0, 0.0, {})
FLEET = FleetStatus(100.0, True, {}, 0, 0, 0, None, (WORKER,))


def kinds(watch: ConditionWatch, found: dict[Condition, str], now: float, **more: bool) -> list[str]:
    return [event.kind for event in watch.compare(found, now, **more)]


def test_an_outage_is_reported_once_when_it_has_lasted_and_when_it_ends() -> None:
    watch = ConditionWatch(600.0)
    times = (0.0, 599.0, 600.0, 602.0, 5000.0)
    assert [kinds(watch, REASON, now) for now in times] == [[], [], [SERVICE_OUT], [], []]
    (back,) = watch.compare({}, 5002.0)
    assert (back.kind, back.subject, back.text) == (SERVICE_BACK, {"service": "RWS"}, "available again after 5002 s")
    assert kinds(watch, {}, 5004.0) == []
    assert [kinds(watch, REASON, now) for now in (6000.0, 6600.0)] == [[], [SERVICE_OUT]], "the next one is another event"


def test_a_short_outage_is_no_event() -> None:
    watch = ConditionWatch(600.0)
    assert kinds(watch, REASON, 0.0) == kinds(watch, {}, 599.0) == []
    assert kinds(watch, REASON, 700.0) == [], "its time starts again"


def test_the_code_and_the_text_of_an_outage_are_those_of_its_error() -> None:
    (event,) = ConditionWatch(0.0).compare(REASON, 0.0)
    assert (event.code, event.text) == ("MUX-201", REASON[RWS])


def test_a_full_disk_is_reported_at_once() -> None:
    watch = ConditionWatch(600.0)
    full = find_conditions({}, False, "host", None)
    assert kinds(watch, full, 0.0) == [DISK_FULL] and kinds(watch, full, 2.0) == []
    assert kinds(watch, {}, 4.0) == [DISK_BACK]


def test_work_that_waits_for_a_correction_is_reported_when_it_has_lasted_and_when_it_ends() -> None:
    watch, waiting = ConditionWatch(600.0), find_conditions({}, True, "host", None, CorrectionNeed(7, "MUX-214", None))
    assert list(watch.compare(waiting, 0.0)) == []
    (event,) = watch.compare(waiting, 600.0)
    assert (event.kind, event.code, event.subject) == (CORRECTION_NEEDED, "MUX-214", {})
    assert event.text.startswith("7 recordings wait for a correction (MUX-214: ")
    assert [event.kind for event in watch.compare({}, 602.0)] == [CORRECTION_DONE]


def test_what_the_workers_of_a_fleet_lack_is_reported_by_the_poller() -> None:
    lacking = replace(WORKER, out={"WebDAV http://dav": "MUX-201 x", DISK_SERVICE: "its disk is nearly full"})
    silent = replace(WORKER, name="other/worker-0/3", seen=0.0, out={"RCS": "silent"})
    found = find_conditions({"RWS": (1.0, "of the poller")}, True, "host", replace(FLEET, workers=(lacking, silent)))
    assert found == {
        RWS: "of the poller",
        Condition("service", "WebDAV http://dav"): "MUX-201 x",
        Condition("disk", "host/worker-0"): "its disk is nearly full",
    }


def test_a_service_that_several_workers_lack_is_one_problem() -> None:
    lacking = [replace(WORKER, name=f"host/worker-{n}/1", out={"RWS": f"of {n}"}) for n in range(3)]
    assert find_conditions({"RWS": (1.0, "of the poller")}, True, "host", replace(FLEET, workers=tuple(lacking))) == {
        RWS: "of the poller"
    }


def test_while_the_workers_are_unknown_no_problem_of_them_ends() -> None:
    watch = ConditionWatch(0.0)
    assert kinds(watch, REASON, 0.0) == [SERVICE_OUT]
    assert kinds(watch, {}, 2.0, is_complete=False) == kinds(watch, REASON, 4.0) == []
    assert kinds(watch, {}, 6.0) == [SERVICE_BACK]


@pytest.mark.parametrize(
    ("left", "text"),
    [(-86_400.0, "expired 1 days ago"), (5 * 86_400.0, "expires in 5 days"), (CERTIFICATE_NOTICE_SECONDS, "")],
)
def test_a_certificate_is_reported_once(left: float, text: str) -> None:
    watch, expiry = ExpiryWatch(), CertificateExpiry("server", "RWS", 1e9 + left)
    events = list(watch.compare([expiry], 1e9))
    assert [(event.kind, event.subject["certificate"]) for event in events] == [(CERTIFICATE_EXPIRES, "server RWS")] * bool(
        text
    )
    assert all(text in event.text for event in events)
    assert list(watch.compare([expiry], 1e9)) == []


def test_a_new_certificate_that_expires_soon_too_is_another_event() -> None:
    watch, expiry = ExpiryWatch(), CertificateExpiry("server", "RWS", 1e9)
    assert len(list(watch.compare([expiry], 1e9))) == len(list(watch.compare([replace(expiry, at=1e9 + 5)], 1e9))) == 1
