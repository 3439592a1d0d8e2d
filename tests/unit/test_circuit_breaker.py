"""An unavailable service pauses the recordings that need it; one broken recording pauses no other."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest

from muxer.app.assembly import MIGRATION_EFFECT, build_services
from muxer.errors import (
    AccessDenied,
    AuthenticationFailed,
    FolderMissing,
    MediaError,
    MediaNotFound,
    MuxerError,
    NotFound,
    PathForbidden,
    ServiceFailed,
    ServiceUnavailable,
    Stopped,
    StorageMisconfigured,
)
from muxer.media.ffmpeg import MediaTools
from muxer.net import circuit_breaker
from muxer.net.circuit_breaker import FAILURE_THRESHOLD, INTERNAL_ERROR_THRESHOLD, PAUSED_EFFECT, CircuitBreaker
from muxer.pipeline.workspace import Workspace, private_folder
from muxer.system.process import Runner
from tests.support.monitoring import create_sources


def call_repeatedly(breaker: CircuitBreaker, error: MuxerError | None, service: str = "RWS", times: int = 1) -> None:
    for _ in range(times):
        with contextlib.suppress(MuxerError), breaker.call(service):
            if error is not None:
                raise error


def test_a_single_failure_is_not_an_outage() -> None:
    breaker = CircuitBreaker()
    call_repeatedly(breaker, ServiceUnavailable("no answer"), times=FAILURE_THRESHOLD - 1)
    call_repeatedly(breaker, None)
    call_repeatedly(breaker, ServiceUnavailable("no answer"), times=FAILURE_THRESHOLD - 1)
    assert not breaker.is_open("RWS")
    assert breaker.try_half_open(["RWS"])


@pytest.mark.parametrize(
    ("error", "enough"),
    [
        (ServiceUnavailable("no answer"), FAILURE_THRESHOLD),
        (AccessDenied("no right"), FAILURE_THRESHOLD),
        (AuthenticationFailed("wrong password"), 1),
        (ServiceFailed("500"), INTERNAL_ERROR_THRESHOLD),
    ],
)
def test_failures_in_a_row_are_an_outage(error: MuxerError, enough: int) -> None:
    breaker = CircuitBreaker()
    call_repeatedly(breaker, error, times=enough - 1)
    assert not breaker.is_open("RWS")
    call_repeatedly(breaker, error)
    assert breaker.is_open("RWS")
    assert not breaker.try_half_open(["RWS"])
    assert breaker.is_any_blocked(["WebDAV http://dav", "RWS"])
    assert breaker.try_half_open(["RCS"]), "other services are available"


@pytest.mark.parametrize(
    "error",
    [NotFound("404"), MediaNotFound("404"), PathForbidden("403"), StorageMisconfigured("413"), FolderMissing("409")],
)
def test_an_error_of_one_recording_shows_that_the_service_is_available(
    error: MuxerError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "LOGIN_BACKOFF_SECONDS", 0.0)
    breaker = CircuitBreaker()
    call_repeatedly(breaker, AuthenticationFailed("wrong password"))
    call_repeatedly(breaker, error)
    assert not breaker.is_open("RWS")


@pytest.mark.parametrize("error", [Stopped("stop"), MediaError("corrupt")])
def test_errors_of_the_muxer_do_not_count_for_the_service(error: MuxerError) -> None:
    breaker = CircuitBreaker()
    call_repeatedly(breaker, error, times=50)
    assert not breaker.is_open("RWS")
    call_repeatedly(breaker, AuthenticationFailed("wrong password"))
    call_repeatedly(breaker, error)
    assert breaker.is_open("RWS")


def test_one_recording_per_poll_tries_an_unavailable_service() -> None:
    breaker = CircuitBreaker()
    call_repeatedly(breaker, AuthenticationFailed("wrong password"))
    breaker.allow_trial()
    assert not breaker.is_any_blocked(["RWS"])
    assert breaker.try_half_open(["RWS"])
    assert not breaker.try_half_open(["RWS"]), "one trial is enough"
    assert breaker.is_any_blocked(["RWS"])
    breaker.allow_trial()
    assert breaker.try_half_open(["RWS"])


def test_a_recording_that_needs_two_services_waits_for_both() -> None:
    breaker = CircuitBreaker()
    call_repeatedly(breaker, AuthenticationFailed("wrong password"), "RWS")
    call_repeatedly(breaker, AuthenticationFailed("wrong password"), "RCS")
    breaker.allow_trial()
    assert breaker.try_half_open(["RCS"])
    assert not breaker.try_half_open(["RWS", "RCS"])
    assert breaker.try_half_open(["RWS"]), "a recording that could not start has not used up the trial"


def test_an_outage_is_logged_once_at_its_start_and_once_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    breaker = CircuitBreaker()
    for _ in range(20):
        call_repeatedly(breaker, ServiceUnavailable("no answer"), "RCS")
    call_repeatedly(breaker, None, "RCS", times=5)
    assert [record.message.split(" ")[:3] for record in caplog.records] == [
        ["RCS", "is", "unavailable;"],
        ["RCS", "is", "available"],
    ]
    assert breaker.open_circuits() == {}


def test_the_log_names_the_effect_of_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    for breaker in (CircuitBreaker(), CircuitBreaker("no recording waits for it")):
        call_repeatedly(breaker, AuthenticationFailed("no"))
    assert "recordings that need it are paused and resume automatically" in caplog.messages[0]
    assert caplog.messages[1].startswith("RWS is unavailable; no recording waits for it: ")


def test_the_log_does_not_promise_that_a_migration_resumes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    effects = []
    for query in ("", "startTime=1"):
        config = create_sources(tmp_path, advanced__call_recording_query_string=query).config
        workspace = Workspace(private_folder(tmp_path / "temp"), "single", 1)
        services = build_services(config, MediaTools("ffmpeg", "ffprobe"), Runner(), workspace, threading.Event())
        call_repeatedly(services.circuit_breaker, AuthenticationFailed("no"))
        effects.append(caplog.messages[-1].split(": ")[0].removeprefix("RWS is unavailable; "))
        services.helpers.close()
        workspace.release_lock()
    assert effects == [PAUSED_EFFECT, MIGRATION_EFFECT]


def test_errors_contain_the_name_of_their_service() -> None:
    breaker = CircuitBreaker()
    with pytest.raises(ServiceUnavailable) as met, breaker.call("outer"), breaker.call("inner"):
        raise ServiceUnavailable("no answer")
    assert met.value.service == "inner"


def test_an_error_after_enough_retries_is_an_outage_at_once() -> None:
    breaker = CircuitBreaker()
    error = ServiceUnavailable("no answer")
    error.service = "RWS"
    breaker.trip(error)
    assert breaker.is_open("RWS")


def test_after_an_authentication_failure_nothing_is_sent_during_the_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    breaker, sent = CircuitBreaker(), []
    for service in ("RWS", "RWS", "RCS"):
        with contextlib.suppress(AuthenticationFailed), breaker.call(service):
            sent.append(service)
            raise AuthenticationFailed("HTTP 401")
    assert sent == ["RWS", "RCS"]
    with (
        pytest.raises(AuthenticationFailed, match=r"RWS refused the credentials a moment ago; .*: HTTP 401"),
        breaker.call("RWS"),
    ):
        sent.append("RWS")
    with contextlib.suppress(AuthenticationFailed), breaker.call("RWS", login_backoff=False):
        sent.append("RWS")
    assert sent == ["RWS", "RCS", "RWS"]
