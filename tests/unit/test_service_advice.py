"""What the running muxer advises about the errors of services; it agrees with `check`."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from muxer.errors import (
    AccessDenied,
    AuthenticationFailed,
    Code,
    Forbidden,
    MuxerError,
    NotFound,
    ServiceUnavailable,
    UnknownContactCenter,
    UnreadableResponse,
    format_error,
)
from muxer.gir.responses import HttpResponse, response_error
from muxer.journal.retry_policy import classify_error
from muxer.net import tls
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.net.service_advice import ServiceAdvisor
from muxer.status.advice import credential_origins, tls_advice
from tests.support.monitoring import create_sources


class ConnectTimeout(Exception):
    """Named like the errors of the HTTP libraries for a connection that cannot be opened in time."""


class ReadTimeout(Exception):
    """Named like the errors for a response that does not arrive."""


@pytest.fixture
def advisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServiceAdvisor:
    monkeypatch.setattr(tls, "accepts_tls", lambda host, port, seconds: port == 8443)
    options = {"htcc__base_uri": "http://rws:8081", "htcc__password": "geheim99", "rcs__base_uri": "https://rcs:8008"}
    options["s3__endpoint_url"] = "http://store:8443"
    return ServiceAdvisor(create_sources(tmp_path, **options).config)


def caused_by(*causes: BaseException, error: MuxerError | None = None) -> MuxerError:
    """Return an error with a chain of causes, the innermost last."""
    outer = error or ServiceUnavailable("no answer")
    chain = [outer, *causes]
    for one, cause in pairwise(chain):
        one.__cause__ = cause
    return outer


def ssl_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


def unknown_authority() -> ssl.SSLError:
    error = ssl.SSLCertVerificationError(1, "unknown authority")
    error.verify_code = 20
    return error


@pytest.mark.parametrize(
    ("service", "error", "says"),
    [
        ("RWS", caused_by(socket.gaierror(-2, "unknown")), "correct the host name in [htcc] base_uri"),
        ("RCS", caused_by(ConnectionRefusedError()), "nothing listens on port 8008 there: start RCS, or correct [rcs]"),
        ("WebDAV https://dav:9", caused_by(ConnectionRefusedError()), "nothing listens on port 9 there: start the WebDAV"),
        ("RWS", caused_by(ConnectTimeout(), TimeoutError()), "a firewall may drop packets to rws port 8081"),
        ("RWS", caused_by(ReadTimeout(), TimeoutError()), ""),
        ("RCS", caused_by(ssl_error("WRONG_VERSION_NUMBER")), "this port does not use TLS: write http://"),
        ("RCS", caused_by(ssl_error("UNEXPECTED_EOF_WHILE_READING")), ""),
        ("RWS", caused_by(ConnectionResetError()), ""),
        ("S3 bucket b", caused_by(ConnectionResetError()), "the port speaks TLS: write https:// in [s3] endpoint_url"),
        ("S3 bucket b", ServiceUnavailable("HTTP 503"), ""),
        ("WebDAV http://dav:8443", caused_by(ConnectionResetError()), ""),
        ("RWS", UnreadableResponse("a page"), "correct [htcc] base_uri: the server there is not RWS"),
        ("RWS", Forbidden("403"), "grant the account of [htcc] the permission for this in RWS"),
        ("RWS", ServiceUnavailable("HTTP 503"), ""),
        ("RWS", AuthenticationFailed("401"), "they are [htcc] username (default) and password (file, line 4)"),
        (
            "S3 bucket b",
            AuthenticationFailed("403"),
            "they are [s3] access_key_id (default) and secret_access_key (default)",
        ),
        ("RabbitMQ", AuthenticationFailed("403"), "they are [fleet] broker_url (default)"),
        ("odd", AuthenticationFailed("401"), ""),
    ],
    ids=str,
)
def test_the_advice_names_the_option(advisor: ServiceAdvisor, service: str, error: ServiceUnavailable, says: str) -> None:
    advice = advisor.advise(service, error)
    assert says in advice and bool(advice) is bool(says)


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("HTTP_REQUEST", "write http://"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "enable TLS 1.2 or later there"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "require a client certificate"),
        ("UNEXPECTED_EOF_WHILE_READING", "a firewall, a proxy or the server"),
        ("TLSV1_ALERT_INTERNAL_ERROR", "its log says why"),
    ],
)
def test_only_a_port_without_tls_is_to_be_used_without_it(reason: str, says: str) -> None:
    """Otherwise an administrator would send the password unencrypted."""
    text = tls_advice(ssl_error(reason), "htcc")
    assert says in text and ("http://" in text) is (reason == "HTTP_REQUEST")


@pytest.mark.parametrize(
    "error",
    [
        ssl.SSLZeroReturnError(6, "TLS/SSL connection has been closed (EOF) (_ssl.c:992)"),
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol (_ssl.c:1131)"),
    ],
)
def test_a_closed_connection_is_named_with_the_python_of_debian_12_and_with_openssl_1_1_1(error: ssl.SSLError) -> None:
    error.reason = None  # type: ignore[assignment]
    assert "the other side closed the connection" in tls_advice(error, "htcc")


@pytest.mark.parametrize(
    ("error", "lasts", "restarts"),
    [
        (AuthenticationFailed("401"), True, "; then restart the muxer"),
        (Forbidden("403"), True, ""),
        (caused_by(unknown_authority()), True, "a change of an option, restart the muxer"),
        (
            caused_by(ConnectionResetError(), error=ServiceUnavailable("S3")),
            True,
            "a change of an option, restart the muxer",
        ),
        (AccessDenied("no such host", code=Code.FOREIGN_SERVER), True, "after a change of an option, restart the muxer"),
        (caused_by(ConnectionRefusedError()), False, "after a change of an option, restart the muxer"),
        (ServiceUnavailable("HTTP 503"), False, ""),
    ],
    ids=str,
)
def test_the_advice_says_when_a_restart_is_needed(
    advisor: ServiceAdvisor, error: ServiceUnavailable, lasts: bool, restarts: str
) -> None:
    """Options are read at the start only. What may go away by itself is not said to need a correction."""
    advice = advisor.advise("S3 bucket b", error)
    assert error.needs_correction is lasts
    assert ("restart the muxer" in advice) is bool(restarts) and advice.endswith(restarts)


def test_a_default_or_stored_password_is_corrected_with_the_keystore(tmp_path: Path) -> None:
    config = create_sources(tmp_path, rcs__base_uri="https://rcs").config
    for section, variable in (("htcc", "HTCC_PASSWORD"), ("rcs", "RCS_PASSWORD")):
        shown = credential_origins(section, config.origins)
        assert shown.endswith(f"store the right password with encryptPassword.py, or set {variable}")
    stored = credential_origins("htcc", {("htcc", "password"): "keystore"})
    assert "password (keystore): store the right password with encryptPassword.py" in stored
    given = credential_origins("htcc", {("htcc", "password"): "file, line 4"})
    assert given == "they are [htcc] password (file, line 4): correct them there"


def test_a_port_is_probed_for_tls_once_a_minute(advisor: ServiceAdvisor, monkeypatch: pytest.MonkeyPatch) -> None:
    probes: list[int] = []
    monkeypatch.setattr(tls, "accepts_tls", lambda host, port, seconds: bool(probes.append(port)))
    for _ in range(3):
        advisor.advise("RWS", caused_by(ConnectionResetError()))
    assert probes == [8081]


def test_the_circuit_breaker_adds_the_advice_to_errors_logs_and_the_login_backoff() -> None:
    breaker = CircuitBreaker(advise=lambda service, error: f"ask {service}")
    for _ in range(2):  # The second call is refused without a request.
        with pytest.raises(AuthenticationFailed) as caught, breaker.call("RWS"):
            raise AuthenticationFailed("401")
        assert format_error(caught.value).endswith("; ask RWS")
        assert classify_error(caught.value).text == format_error(caught.value), "also of a failed recording"
    assert breaker.service_states()[0].remedy == "correct the credentials; ask RWS"
    assert breaker.open_circuits()["RWS"][1].endswith("; ask RWS")
    with pytest.raises(NotFound) as missing, breaker.call("RCS"):
        raise NotFound("404")
    assert not missing.value.advice


def test_an_error_keeps_its_own_advice() -> None:
    error = UnknownContactCenter("404")
    error.advice = "correct [htcc] contact_center_id"
    with pytest.raises(UnknownContactCenter), CircuitBreaker(advise=lambda service, error: "other").call("RWS"):
        raise error
    assert format_error(error) == "MUX-220 UnknownContactCenter: 404; correct [htcc] contact_center_id"


@pytest.mark.parametrize(
    "body",
    [b"<p>The plain HTTP request was sent to HTTPS port</p>", b"You're speaking plain HTTP to an SSL-enabled server port."],
)
def test_a_web_server_that_expects_tls_is_an_outage_and_no_rejected_request(body: bytes) -> None:
    error = response_error(HttpResponse("RWS GET /", 400, {}, body), 0, "")
    assert isinstance(error, ServiceUnavailable) and error.code is Code.TLS
    assert not isinstance(response_error(HttpResponse("RWS GET /", 400, {}, b"bad"), 0, ""), ServiceUnavailable)


def test_a_service_is_reached_after_its_first_success() -> None:
    breaker: CircuitBreaker = CircuitBreaker()
    fail: Callable[[], None] = lambda: breaker.trip(_error_of("RWS"))  # noqa: E731
    fail()
    (state,) = breaker.service_states()
    assert not state.is_reached and "run `check`" in state.full_reason
    with breaker.call("RWS"):
        pass
    fail()
    (state,) = breaker.service_states()
    assert state.is_reached and "run `check`" not in state.full_reason


def _error_of(service: str) -> ServiceUnavailable:
    error = ServiceUnavailable("no answer")
    error.service = service
    return error
