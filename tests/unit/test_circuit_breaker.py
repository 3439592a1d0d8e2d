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
    Forbidden,
    MediaError,
    MediaNotFound,
    MuxerError,
    NotFound,
    PathForbidden,
    ServiceFailed,
    ServiceUnavailable,
    Stopped,
    StorageMisconfigured,
    UnknownContactCenter,
)
from muxer.media.ffmpeg import MediaTools
from muxer.net import circuit_breaker
from muxer.net.circuit_breaker import (
    FAILURE_THRESHOLD,
    INTERNAL_ERROR_THRESHOLD,
    LOGIN_BACKOFF_SECONDS,
    PAUSED_EFFECT,
    Advise,
    CircuitBreaker,
)
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
        call_repeatedly(breaker, ServiceUnavailable("no"), times=FAILURE_THRESHOLD)
    assert "recordings that need it are paused and resume automatically" in caplog.messages[0]
    assert caplog.messages[1].startswith("RWS is unavailable; no recording waits for it: ")


def mark_as_lasting(service: str, error: ServiceUnavailable | AccessDenied) -> str:
    """Advise as for an error of TLS, which lasts until an option is corrected."""
    error.needs_correction = True
    return "correct [htcc] trusted_ca"


@pytest.mark.parametrize(
    ("error", "advise"),
    [
        (AuthenticationFailed("no"), lambda service, error: "correct it"),
        (UnknownContactCenter("404"), lambda service, error: "correct it"),
        (Forbidden("403"), lambda service, error: "grant it"),
        (ServiceUnavailable("TLS failed"), mark_as_lasting),
    ],
    ids=["credentials", "contact center", "permission", "TLS"],
)
def test_nothing_is_promised_where_a_person_has_to_correct_something(
    error: ServiceUnavailable | AccessDenied, advise: Advise, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = CircuitBreaker(advise=advise)
    call_repeatedly(breaker, error, times=FAILURE_THRESHOLD)
    assert caplog.messages[0].startswith(
        "RWS is unavailable; recordings that need it are paused until the cause is corrected: "
    )
    [state] = breaker.service_states()
    assert state.needs_correction and state.remedy.endswith(error.advice) and error.advice


def test_a_changed_cause_of_an_outage_is_logged_once_and_shown(caplog: pytest.LogCaptureFixture) -> None:
    breaker = CircuitBreaker(advise=lambda service, error: f"follow {error.code}")
    for _ in range(3):
        call_repeatedly(breaker, ServiceUnavailable("no answer"), times=FAILURE_THRESHOLD)
        call_repeatedly(breaker, Forbidden("403"))
    assert [message.partition(": ")[0] for message in caplog.messages] == [
        "RWS is unavailable; recordings that need it are paused and resume automatically",
        "RWS is still unavailable, for another reason; recordings that need it are paused until the cause is corrected",
    ]
    assert breaker.open_circuits()["RWS"][1].startswith("MUX-213 Forbidden: 403")
    assert breaker.outage_count == 1


def test_the_success_of_a_public_request_does_not_show_that_a_service_works() -> None:
    breaker = CircuitBreaker()
    for _ in range(FAILURE_THRESHOLD):
        with breaker.call("RWS", is_public=True):
            pass
        with contextlib.suppress(NotFound), breaker.call("RWS", is_public=True):
            raise NotFound("no version")
        call_repeatedly(breaker, ServiceUnavailable("no answer"))
    [state] = breaker.service_states()
    assert state.since is not None and not state.is_reached and state.last_success is None
    with contextlib.suppress(ServiceUnavailable), breaker.call("RCS", is_public=True):
        raise ServiceUnavailable("no answer")
    with contextlib.suppress(ServiceUnavailable), breaker.call("RCS", is_public=True):
        raise ServiceUnavailable("no answer")
    call_repeatedly(breaker, ServiceUnavailable("no answer"), "RCS")
    assert breaker.is_open("RCS"), "its failures count"


def test_the_log_does_not_promise_that_a_migration_resumes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    effects = []
    for query in ("", "startTime=1"):
        config = create_sources(tmp_path, advanced__call_recording_query_string=query).config
        workspace = Workspace(private_folder(tmp_path / "temp"), "single", 1)
        services = build_services(config, MediaTools("ffmpeg", "ffprobe"), Runner(), workspace, threading.Event())
        call_repeatedly(services.circuit_breaker, ServiceUnavailable("no"), times=FAILURE_THRESHOLD)
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


def test_a_request_that_is_not_sent_does_not_name_the_file_of_another_recording() -> None:
    breaker = CircuitBreaker()
    call_repeatedly(breaker, AuthenticationFailed("GET http://dav/other.mp4: HTTP 401; check [webdav] username"), "WebDAV")
    with pytest.raises(AuthenticationFailed) as met, breaker.call("WebDAV"):
        pass
    assert "not tried again yet: check [webdav] username; the next login" in str(met.value) and "other" not in str(met.value)


def test_after_an_authentication_failure_nothing_is_sent_during_the_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    breaker, sent = CircuitBreaker(), []
    for service in ("RWS", "RWS", "RCS"):
        with contextlib.suppress(AuthenticationFailed), breaker.call(service):
            sent.append(service)
            raise AuthenticationFailed("HTTP 401")
    assert sent == ["RWS", "RCS"]
    with (
        pytest.raises(
            AuthenticationFailed, match=r"RWS refused the credentials a moment ago; .* after \d\d:\d\d:\d\d UTC"
        ) as met,
        breaker.call("RWS"),
    ):
        sent.append("RWS")
    assert "401" not in str(met.value), "it says nothing about the request that was refused, of another recording"
    assert met.value.service == "RWS" and 0 < breaker.login_pause("RWS") <= LOGIN_BACKOFF_SECONDS
    breaker.trip(met.value)
    assert breaker.open_circuits()["RWS"][1] == "MUX-212 AuthenticationFailed: HTTP 401", "the cause is still shown"
    with contextlib.suppress(AuthenticationFailed), breaker.call("RWS", login_backoff=False):
        sent.append("RWS")
    assert sent == ["RWS", "RCS", "RWS"]
