"""A service that is out holds back the recordings that need it; one broken recording holds back nothing."""

from __future__ import annotations

import contextlib

import pytest

from muxer.errors import (
    AccessDenied,
    FolderMissing,
    LoginRefused,
    MediaError,
    MediaNotFound,
    MuxerError,
    NotFound,
    PlaceClosed,
    ServiceFailed,
    ServiceUnavailable,
    Stopped,
    StorageMisconfigured,
)
from muxer.outages import FAILURES_IN_A_ROW, INTERNAL_ERRORS_IN_A_ROW, Outages


def meet(outages: Outages, error: MuxerError | None, service: str = "RWS", times: int = 1) -> None:
    for _ in range(times):
        with contextlib.suppress(MuxerError), outages.talking(service):
            if error is not None:
                raise error


def test_a_single_failure_is_no_outage() -> None:
    outages = Outages()
    meet(outages, ServiceUnavailable("no answer"), times=FAILURES_IN_A_ROW - 1)
    meet(outages, None)
    meet(outages, ServiceUnavailable("no answer"), times=FAILURES_IN_A_ROW - 1)
    assert not outages.is_out("RWS")
    assert outages.admit(["RWS"])


@pytest.mark.parametrize(
    ("error", "enough"),
    [
        (ServiceUnavailable("no answer"), FAILURES_IN_A_ROW),
        (AccessDenied("no right"), FAILURES_IN_A_ROW),
        (LoginRefused("wrong password"), 1),
        (ServiceFailed("500"), INTERNAL_ERRORS_IN_A_ROW),
    ],
)
def test_so_many_failures_in_a_row_are_an_outage(error: MuxerError, enough: int) -> None:
    outages = Outages()
    meet(outages, error, times=enough - 1)
    assert not outages.is_out("RWS")
    meet(outages, error)
    assert outages.is_out("RWS")
    assert not outages.admit(["RWS"])
    assert outages.blocks(["WebDAV http://dav", "RWS"])
    assert outages.admit(["RCS"]), "others go on"


@pytest.mark.parametrize(
    "answer",
    [NotFound("404"), MediaNotFound("404"), PlaceClosed("403"), StorageMisconfigured("413"), FolderMissing("409")],
)
def test_an_answer_about_one_recording_shows_that_the_service_is_there(answer: MuxerError) -> None:
    outages = Outages()
    meet(outages, LoginRefused("wrong password"))
    meet(outages, answer)
    assert not outages.is_out("RWS")


@pytest.mark.parametrize("error", [Stopped("stop"), MediaError("corrupt")])
def test_what_is_no_fault_of_the_service_says_nothing_of_it(error: MuxerError) -> None:
    outages = Outages()
    meet(outages, error, times=50)
    assert not outages.is_out("RWS")
    meet(outages, LoginRefused("wrong password"))
    meet(outages, error)
    assert outages.is_out("RWS")


def test_one_recording_a_poll_tries_a_service_that_is_out() -> None:
    outages = Outages()
    meet(outages, LoginRefused("wrong password"))
    outages.new_poll()
    assert not outages.blocks(["RWS"])
    assert outages.admit(["RWS"])
    assert not outages.admit(["RWS"]), "one is enough"
    assert outages.blocks(["RWS"])
    outages.new_poll()
    assert outages.admit(["RWS"])


def test_a_recording_that_needs_two_services_waits_for_both() -> None:
    outages = Outages()
    meet(outages, LoginRefused("wrong password"), "RWS")
    meet(outages, LoginRefused("wrong password"), "RCS")
    outages.new_poll()
    assert outages.admit(["RCS"])
    assert not outages.admit(["RWS", "RCS"])
    assert outages.admit(["RWS"]), "the one that could not begin has not used up the trial"


def test_an_outage_is_told_once_when_it_begins_and_once_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    outages = Outages()
    for _ in range(20):
        meet(outages, ServiceUnavailable("no answer"), "RCS")
    meet(outages, None, "RCS", times=5)
    assert [record.message.split(" ")[:3] for record in caplog.records] == [["RCS", "is", "out;"], ["RCS", "is", "back"]]
    assert outages.now_out() == {}


def test_what_an_outage_means_is_worded_for_who_meets_it(caplog: pytest.LogCaptureFixture) -> None:
    for outages in (Outages(), Outages("there is nobody to wait for it")):
        meet(outages, LoginRefused("no"))
    assert "what needs it waits, and goes on by itself" in caplog.messages[0]
    assert caplog.messages[1].startswith("RWS is out; there is nobody to wait for it: ")


def test_errors_bear_the_name_of_the_service_that_they_come_from() -> None:
    outages = Outages()
    with pytest.raises(ServiceUnavailable) as met, outages.talking("outer"), outages.talking("inner"):
        raise ServiceUnavailable("no answer")
    assert met.value.service == "inner"


def test_what_was_tried_often_enough_is_an_outage_at_once() -> None:
    outages = Outages()
    error = ServiceUnavailable("no answer")
    error.service = "RWS"
    outages.declare(error)
    assert outages.is_out("RWS")
