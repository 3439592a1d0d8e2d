"""The checklist, and what it reports about certificates and errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from muxer.checks import certificates
from muxer.checks.checklist import (
    CHECK_TIMEOUT_SECONDS,
    Check,
    CheckStatus,
    Finding,
    failed_finding,
    passed_finding,
    run_checks,
)
from muxer.checks.suite import CheckSuite
from muxer.config import inspect_config
from muxer.config.schema import SECTIONS
from muxer.errors import (
    AccessDenied,
    AuthenticationFailed,
    MuxerError,
    NotFound,
    PathForbidden,
    ServiceUnavailable,
    UnreadableResponse,
)
from muxer.status.advice import advice_for, unreachable_advice
from tests.support.tls import DAY, pem_bundle, self_signed


def good_check(name: str) -> Check:
    return Check(name, lambda: [passed_finding(name, "fine")])


def test_an_error_is_a_finding_and_does_not_stop_the_other_checks() -> None:
    def find_and_raise() -> Iterator[Finding]:
        yield passed_finding("first", "so far so good")
        raise AuthenticationFailed("refused")

    def raise_unexpected() -> Iterator[Finding]:
        raise ZeroDivisionError("oh")
        yield

    found = list(
        run_checks([Check("login", find_and_raise, section="rcs"), Check("odd", raise_unexpected), good_check("last")], ())
    )
    assert [(item.status, item.check) for item in found] == [
        (CheckStatus.OK, "first"),
        (CheckStatus.FAILED, "login"),
        (CheckStatus.FAILED, "odd"),
        (CheckStatus.OK, "last"),
    ]
    assert "RCS_PASSWORD" in found[1].advice and "ZeroDivisionError: oh" in found[2].found


def test_checks_are_skipped_when_a_dependency_failed_or_an_option_is_unusable() -> None:
    checks = [
        Check("a", lambda: [failed_finding("a", "no", "do")]),
        Check("b", lambda: [passed_finding("b", "never")], ("a",)),
        Check("c", lambda: [passed_finding("c", "never")], ("b",)),
        Check("d", lambda: [passed_finding("d", "never")], ("[htcc] base_uri",)),
        Check("e", lambda: [passed_finding("e", "yes")], ("[htcc] username",)),
        Check("f", lambda: [passed_finding("f", "yes"), failed_finding("part", "no", "do")]),
        Check("g", lambda: [passed_finding("g", "never")], ("part",)),
    ]
    found = {result.check: result for result in run_checks(checks, ["[htcc] base_uri"])}
    assert [name for name, one in found.items() if one.status is CheckStatus.SKIPPED] == ["b", "c", "d", "g"]
    assert found["d"].found == "not checked: needs [htcc] base_uri"
    assert found["c"].found == "not checked: needs b"


def test_a_check_that_hangs_has_its_own_time_limit() -> None:
    never = threading.Event()

    def wait_forever() -> Iterator[Finding]:
        never.wait()
        yield passed_finding("hangs", "never")

    found = list(run_checks([Check("hangs", wait_forever, seconds=0.1), good_check("next")], ()))
    never.set()
    assert [item.status for item in found] == [CheckStatus.FAILED, CheckStatus.OK]
    assert "not finished within" in found[0].found


@pytest.mark.parametrize(("section", "names_option"), [("htcc", True), ("rcs", True), ("webdav", False)])
def test_the_advice_for_a_slow_service_names_its_time_limit(section: str, names_option: bool) -> None:
    never = threading.Event()

    def wait_forever() -> Iterator[Finding]:
        never.wait()
        yield passed_finding("slow", "never")

    (late,) = run_checks([Check("slow", wait_forever, section=section, seconds=0.01)], ())
    never.set()
    error = ServiceUnavailable("no response within the time limit")
    error.has_timed_out = True
    for advice in (late.advice, advice_for(error, section)):
        assert "firewall" in advice and ("raise [htcc] rws_timeout" in advice) is names_option


def test_checks_of_rws_and_rcs_have_the_time_of_slow_requests(tmp_path: Path) -> None:
    """With rws_timeout = 120 the muxer works with a server that needs a minute for a response."""
    path = tmp_path / "muxer.cfg"
    path.write_text(
        "[htcc]\nbase_uri = http://rws\ncontact_center_id = c\nrws_timeout = 120\n[rcs]\nbase_uri = http://rcs\n"
    )
    suite = CheckSuite(inspect_config(path, {}, {}), path, False, threading.Event())
    seconds = {check.name: check.seconds for check in suite.create_checks()}
    names = ("RWS version", "RWS clock", "RWS login", "RWS window", "RWS screen recordings", "RCS login")
    assert all(seconds[name] > 240 for name in (*names, "encryption certificates"))
    assert seconds["temp_dir"] == CHECK_TIMEOUT_SECONDS


def test_a_later_check_can_depend_on_the_result_of_an_earlier_one() -> None:
    seen: list[str] = []

    def build_checks() -> Iterator[Check]:
        yield Check("looks", lambda: [seen.append("x") or passed_finding("looks", "")])
        yield from (good_check(f"of {item}") for item in seen)

    assert [result.check for result in run_checks(build_checks(), ())] == ["looks", "of x"]


@pytest.mark.parametrize(
    ("days", "status", "expected_text"),
    [
        (400, CheckStatus.OK, "days left"),
        (31, CheckStatus.OK, "days left"),
        (29, CheckStatus.WARNING, "28 days left"),
        (-2, CheckStatus.FAILED, "expired"),
    ],
)
def test_days_until_a_certificate_expires(days: int, status: CheckStatus, expected_text: str) -> None:
    found = certificates.check_expiry("c", self_signed("me", end=days).certificate, certificates.utc_now())
    assert found.status is status and expected_text in found.found and found.found.startswith("me, valid until")


def test_a_certificate_that_is_not_yet_valid() -> None:
    certificate = self_signed("me", end=400).certificate
    found = certificates.check_expiry("c", certificate, certificate.not_valid_before_utc - timedelta(hours=1))
    assert found.status is CheckStatus.WARNING and "clock" in found.advice
    expired = certificates.check_expiry("c", certificate, certificate.not_valid_after_utc + DAY, matters=False)
    assert expired.status is CheckStatus.WARNING


@pytest.mark.parametrize(
    ("ends", "statuses"),
    [((-3, 400), ["warning", "ok"]), ((-3, 20), ["warning", "warning"]), ((-3, -9), ["failed", "failed"])],
)
def test_an_expired_authority_fails_only_without_a_valid_one(
    tmp_path: Path, ends: tuple[int, ...], statuses: list[str]
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(pem_bundle(*(self_signed("ca", authority=True, end=end) for end in ends)))
    path = tmp_path / "muxer.cfg"
    path.write_text(f"[htcc]\nbase_uri = http://rws\ncontact_center_id = c\ntrusted_ca = {bundle}\n")
    suite = CheckSuite(inspect_config(path, {}, {}), path, False, threading.Event())
    [check] = [check for check in suite.create_checks() if check.name == "[htcc] trusted_ca"]
    assert [str(finding.status) for finding in check.body()] == statuses


def test_certificate_names() -> None:
    root = self_signed("Root", authority=True)
    server = root.issue_certificate("server", "rws.example.com", "10.0.0.1").certificate
    assert certificates.issuer_text(server) == "Root" and certificates.issuer_text(root.certificate) == "itself"
    assert certificates.server_names(server) == "rws.example.com, 10.0.0.1"
    assert certificates.server_names(root.certificate) == "Root"


@pytest.mark.parametrize("section", ["htcc", "rcs", "webdav", "s3"])
@pytest.mark.parametrize(
    "error",
    [
        AuthenticationFailed("x"),
        PathForbidden("x"),
        AccessDenied("x"),
        NotFound("x"),
        UnreadableResponse("x"),
        ServiceUnavailable("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_service_error_has_a_remedy(section: str, error: MuxerError) -> None:
    assert section in SECTIONS
    expected_text = advice_for(error, section)
    assert len(expected_text) > 20 and "{" not in expected_text
    assert type(error) is AccessDenied or section in expected_text or "metadata" in expected_text


def test_the_reason_for_an_unreachable_server_is_reported() -> None:
    assert "port 8081" in unreachable_advice(ConnectionRefusedError(), "rws", 8081, "htcc")
    assert "firewall" in unreachable_advice(TimeoutError(), "rws", 8081, "htcc")
    assert "[rcs] base_uri" in unreachable_advice(OSError("no route"), "rcs", 8008, "rcs")
