"""A step is repeated in place a few times when its service fails; nothing else is repeated."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import cast

import pytest

from muxer.errors import (
    AccessDenied,
    AuthenticationFailed,
    EncryptionMissing,
    LocalResourceError,
    MediaError,
    MediaIncomplete,
    MediaNotFound,
    MuxerError,
    RequestRejected,
    ServiceFailed,
    ServiceUnavailable,
    Stopped,
    StoredByOtherMuxer,
    Transient,
    UnreadableResponse,
)
from muxer.gir.models import MediaFile
from muxer.gir.targets import MuxTarget
from muxer.journal import retry_policy
from muxer.journal.journal import TargetKey
from muxer.journal.retry_policy import FLAKY_DELAY_SECONDS, Failure
from muxer.net import circuit_breaker as module
from muxer.net.circuit_breaker import FAILURE_THRESHOLD, INTERNAL_ERROR_THRESHOLD, CircuitBreaker
from muxer.net.step_retry import Repeater
from muxer.pipeline.job import Job, JobReport
from muxer.scheduling.attempts import TargetProcessor
from muxer.status.activity import Activity

ATTEMPT_COUNT = 4


class InstantStop(threading.Event):
    """A stop event that records every delay and returns at once."""

    def __init__(self) -> None:
        super().__init__()
        self.delays: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.delays.append(timeout or 0.0)
        return self.is_set()


class FlakyRequest:
    """A request that fails `times` times with `error` and counts how often it was sent."""

    def __init__(
        self, breaker: CircuitBreaker, error: Callable[[], MuxerError], times: int = 1000, service: str = "RCS"
    ) -> None:
        self._circuit_breaker, self._error, self._times, self._service = breaker, error, times, service
        self.sent = 0

    def __call__(self) -> str:
        self.sent += 1
        with self._circuit_breaker.call(self._service):
            if self.sent <= self._times:
                raise self._error()
        return "done"


def unavailable_error(retry_after: float | None = None) -> ServiceUnavailable:
    return ServiceUnavailable("HTTP 503", retry_after)


@pytest.mark.parametrize("kind", [ServiceUnavailable, ServiceFailed, UnreadableResponse])
@pytest.mark.parametrize("times", range(ATTEMPT_COUNT))
def test_a_step_that_fails_three_times_succeeds_at_the_fourth(kind: type[ServiceUnavailable], times: int) -> None:
    breaker, stop = CircuitBreaker(), InstantStop()
    request = FlakyRequest(breaker, lambda: kind("x"), times)
    assert Repeater(breaker, stop)("fetch", request) == "done"
    assert request.sent == times + 1
    assert all(0 < before < after for before, after in zip(stop.delays, stop.delays[1:], strict=False))
    assert not breaker.is_open("RCS")


def test_the_fourth_failure_is_raised() -> None:
    breaker = CircuitBreaker()
    request = FlakyRequest(breaker, unavailable_error)
    with pytest.raises(ServiceUnavailable, match="503"):
        Repeater(breaker, InstantStop())("fetch", request)
    assert request.sent == ATTEMPT_COUNT


@pytest.mark.parametrize(
    "error",
    [
        MediaNotFound("404"),
        MediaIncomplete("short"),
        StoredByOtherMuxer("x"),
        AuthenticationFailed("401"),
        AccessDenied("403"),
        LocalResourceError("disk full"),
        EncryptionMissing("x"),
        Stopped("x"),
        RequestRejected("400"),
        MediaError("broken"),
        ServiceUnavailable("posted, but not shown"),
        OSError("x"),
    ],
)
def test_errors_that_a_retry_cannot_fix_are_raised_at_once(error: Exception) -> None:
    breaker, sent = CircuitBreaker(), []

    def send_and_raise() -> None:
        sent.append(1)
        raise error

    with pytest.raises(type(error)):
        Repeater(breaker, InstantStop())("fetch", send_and_raise)
    assert len(sent) == 1


def test_retry_after_is_honoured_up_to_a_limit() -> None:
    breaker, stop = CircuitBreaker(), InstantStop()
    assert Repeater(breaker, stop)("fetch", FlakyRequest(breaker, lambda: unavailable_error(7.0), 1)) == "done"
    assert 7.0 <= stop.delays[0] <= 7.0 * 1.2
    request = FlakyRequest(breaker, lambda: unavailable_error(retry_policy.MAX_STEP_DELAY_SECONDS + 1))
    with pytest.raises(ServiceUnavailable):
        Repeater(breaker, stop)("fetch", request)
    assert request.sent == 1


def test_a_stop_ends_the_delay_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_policy, "STEP_DELAYS", (600.0,))
    breaker, stop = CircuitBreaker(), threading.Event()
    request = FlakyRequest(breaker, unavailable_error)
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(Stopped):
        Repeater(breaker, stop)("fetch", request)
    assert request.sent == 1


def test_one_failed_step_is_not_an_outage_and_several_are() -> None:
    breaker = CircuitBreaker()
    for number in range(FAILURE_THRESHOLD):
        assert not breaker.is_open("RCS"), number
        with pytest.raises(ServiceUnavailable):
            Repeater(breaker, InstantStop())("fetch", FlakyRequest(breaker, unavailable_error))
    assert breaker.is_open("RCS")


def test_internal_errors_are_an_outage_only_when_there_are_many() -> None:
    breaker = CircuitBreaker()
    for number in range(INTERNAL_ERROR_THRESHOLD):
        assert not breaker.is_open("RCS"), number
        with pytest.raises(ServiceFailed):
            Repeater(breaker, InstantStop())("fetch", FlakyRequest(breaker, lambda: ServiceFailed("500")))
    assert breaker.is_open("RCS")


def test_a_step_is_not_retried_while_its_service_is_unavailable() -> None:
    breaker = CircuitBreaker()
    error = unavailable_error()
    error.service = "RCS"
    breaker.trip(error)
    request, other = FlakyRequest(breaker, unavailable_error), FlakyRequest(breaker, unavailable_error, service="RWS")
    for value in (request, other):
        with pytest.raises(ServiceUnavailable):
            Repeater(breaker, InstantStop())("fetch", value)
    assert (request.sent, other.sent) == (1, ATTEMPT_COUNT)


def test_an_authentication_failure_counts_at_once_also_within_a_repeated_step() -> None:
    breaker = CircuitBreaker()
    with pytest.raises(AuthenticationFailed):
        Repeater(breaker, InstantStop())("fetch", FlakyRequest(breaker, lambda: AuthenticationFailed("401")))
    assert breaker.is_open("RCS")


def test_a_service_that_never_responds_counts_at_every_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUICK_FAILURE_SECONDS", 0.0)
    breaker = CircuitBreaker()
    request = FlakyRequest(breaker, unavailable_error)
    with pytest.raises(ServiceUnavailable):
        Repeater(breaker, InstantStop())("fetch", request)
    assert breaker.is_open("RCS") and request.sent == FAILURE_THRESHOLD


def test_nested_steps_do_not_multiply_retries() -> None:
    breaker = CircuitBreaker()
    inner, outer = Repeater(breaker, InstantStop()), Repeater(breaker, InstantStop())
    request = FlakyRequest(breaker, unavailable_error)
    with pytest.raises(ServiceUnavailable):
        outer("store", lambda: inner("upload", request))
    assert request.sent == ATTEMPT_COUNT
    with contextlib.suppress(ServiceUnavailable):
        outer("store", lambda: inner("upload", request))
    assert not breaker.is_open("RCS"), "each counts once"


def test_requests_that_fail_at_random_are_not_an_outage() -> None:
    """Half of them: each second request fails."""
    breaker = CircuitBreaker()
    for _ in range(50):
        Repeater(breaker, InstantStop())("fetch", FlakyRequest(breaker, unavailable_error, times=2))
    assert breaker.outage_count == 0


def test_a_service_that_others_use_meanwhile_is_not_declared_unavailable() -> None:
    breaker = CircuitBreaker()
    for is_used, error in ((True, unavailable_error()), (False, unavailable_error())):
        with contextlib.suppress(ServiceUnavailable), breaker.call("RWS"):
            if is_used:
                time.sleep(0.01)
                with breaker.call("RWS"):
                    pass
            raise error
        breaker.trip(error)
        assert breaker.is_open("RWS") is not is_used


def test_a_service_whose_requests_succeed_only_when_repeated_counts_as_flaky(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    breaker = CircuitBreaker()
    Repeater(breaker, InstantStop())("fetch", FlakyRequest(breaker, unavailable_error, times=0))
    assert not breaker.is_flaky("RCS")
    Repeater(breaker, InstantStop())("fetch", FlakyRequest(breaker, unavailable_error, times=1))
    assert breaker.is_flaky("RCS") and not breaker.is_flaky("RWS")
    monkeypatch.setattr(module, "FLAKY_SECONDS", 0.0)
    assert not breaker.is_flaky("RCS")


def test_each_repeated_try_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    breaker, activity = CircuitBreaker(), Activity()
    with caplog.at_level(logging.INFO), activity.track_target("call", "alice", "x.mp4"):
        Repeater(breaker, InstantStop())("fetch of a.mp3", FlakyRequest(breaker, unavailable_error, times=2))
    assert [record.message.split(";")[0] for record in caplog.records] == ["fetch of a.mp3 failed"] * 2
    fields = [record.__dict__["fields"] for record in caplog.records]
    assert [(field["step"], field["try"]) for field in fields] == [("fetch of a.mp3", 1), ("fetch of a.mp3", 2)]
    assert all("503" in item["reason"] for item in fields)
    assert activity.take_snapshot().totals.repeats == {"check": 2}


class FailureSink:
    """An outcome sink that stores the failures."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []

    def record_start(self, *_: object) -> None: ...

    def record_postponed(self, *_: object) -> None: ...

    def record_done(self, *_: object) -> None: ...

    def record_failure(self, key: TargetKey, failure: Failure, *_: object, **__: object) -> bool:
        self.failures.append(failure)
        return True


class FailingJob:
    """A job that ends with an error."""

    def __init__(self, error: MuxerError) -> None:
        self._error = error

    def run(self, *_: object, **__: object) -> JobReport:
        raise self._error


def asking_to_wait(seconds: float) -> ServiceUnavailable:
    return ServiceUnavailable("later", retry_after=seconds)


@pytest.mark.parametrize(
    ("error", "is_flaky", "wanted"),
    [
        (unavailable_error, True, FLAKY_DELAY_SECONDS),
        (unavailable_error, False, None),
        (lambda: asking_to_wait(77.0), True, 77.0),
        (lambda: AccessDenied("no right"), True, None),
    ],
)
def test_when_requests_fail_at_random_the_next_attempt_is_soon(
    error: Callable[[], Transient], is_flaky: bool, wanted: float | None
) -> None:
    breaker, ledger, raised = CircuitBreaker(), FailureSink(), error()
    raised.service = "RCS"
    if is_flaky:
        breaker.record_recovery("RCS")
    work = TargetProcessor(cast(Job, FailingJob(raised)), breaker, Activity(), threading.Event(), ledger)
    work.process_target(MuxTarget("call", "r1", "alice", MediaFile.from_json({}), ()))
    assert [failure.retry_after for failure in ledger.failures] == [wanted]
