"""The checklist itself, and what it says of certificates and errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from tests.support.tls import DAY, self_signed

from muxer.checks import certificates
from muxer.checks.advice import remedy, unreachable
from muxer.checks.checklist import Check, Finding, Status, failed, ok, run
from muxer.config.schema import SECTIONS
from muxer.errors import AccessDenied, LoginRefused, MuxerError, NotFound, PlaceClosed, ServiceUnavailable, UnreadableAnswer


def good(name: str) -> Check:
    return Check(name, lambda: [ok(name, "fine")])


def test_an_error_is_a_finding_and_stops_nothing() -> None:
    def broken() -> Iterator[Finding]:
        yield ok("first", "so far so good")
        raise LoginRefused("refused")

    def unexpected() -> Iterator[Finding]:
        raise ZeroDivisionError("oh")
        yield

    found = list(run([Check("login", broken, section="rcs"), Check("odd", unexpected), good("last")], ()))
    assert [(one.status, one.check) for one in found] == [
        (Status.OK, "first"),
        (Status.FAILED, "login"),
        (Status.FAILED, "odd"),
        (Status.OK, "last"),
    ]
    assert "RCS_PASSWORD" in found[1].advice and "ZeroDivisionError: oh" in found[2].found


def test_what_needs_a_failed_or_skipped_check_or_an_unusable_option_is_skipped() -> None:
    checks = [
        Check("a", lambda: [failed("a", "no", "do")]),
        Check("b", lambda: [ok("b", "never")], ("a",)),
        Check("c", lambda: [ok("c", "never")], ("b",)),
        Check("d", lambda: [ok("d", "never")], ("[htcc] base_uri",)),
        Check("e", lambda: [ok("e", "yes")], ("[htcc] username",)),
        Check("f", lambda: [ok("f", "yes"), failed("part", "no", "do")]),
        Check("g", lambda: [ok("g", "never")], ("part",)),
    ]
    found = {one.check: one for one in run(checks, ["[htcc] base_uri"])}
    assert [name for name, one in found.items() if one.status is Status.SKIPPED] == ["b", "c", "d", "g"]
    assert found["d"].found == "not looked at: needs [htcc] base_uri"
    assert found["c"].found == "not looked at: needs b"


def test_a_check_that_hangs_has_its_own_time_limit() -> None:
    never = threading.Event()

    def hang() -> Iterator[Finding]:
        never.wait()
        yield ok("hangs", "never")

    found = list(run([Check("hangs", hang, seconds=0.1), good("next")], ()))
    never.set()
    assert [one.status for one in found] == [Status.FAILED, Status.OK]
    assert "no end within" in found[0].found


def test_a_later_check_may_follow_from_what_an_earlier_one_found() -> None:
    seen: list[str] = []

    def checks() -> Iterator[Check]:
        yield Check("looks", lambda: [seen.append("x") or ok("looks", "")])  # type: ignore[func-returns-value,list-item]
        yield from (good(f"of {one}") for one in seen)

    assert [one.check for one in run(checks(), ())] == ["looks", "of x"]


@pytest.mark.parametrize(
    ("days", "status", "told"),
    [
        (400, Status.OK, "days left"),
        (31, Status.OK, "days left"),
        (29, Status.WARNING, "28 days left"),
        (-2, Status.FAILED, "expired"),
    ],
)
def test_days_that_are_left(days: int, status: Status, told: str) -> None:
    found = certificates.expiry("c", self_signed("me", end=days).certificate, certificates.moment())
    assert found.status is status and told in found.found and found.found.startswith("me, valid until")


def test_a_certificate_that_begins_later() -> None:
    made = self_signed("me", end=400).certificate
    found = certificates.expiry("c", made, made.not_valid_before_utc - timedelta(hours=1))
    assert found.status is Status.WARNING and "clock" in found.advice
    expired = certificates.expiry("c", made, made.not_valid_after_utc + DAY, matters=False)
    assert expired.status is Status.WARNING


def test_names_of_certificates() -> None:
    root = self_signed("Root", authority=True)
    server = root.issue("server", "rws.example.com", "10.0.0.1").certificate
    assert certificates.issuer(server) == "Root" and certificates.issuer(root.certificate) == "itself"
    assert certificates.names(server) == "rws.example.com, 10.0.0.1"
    assert certificates.names(root.certificate) == "Root"


@pytest.mark.parametrize("section", ["htcc", "rcs", "webdav", "s3"])
@pytest.mark.parametrize(
    "error",
    [LoginRefused("x"), PlaceClosed("x"), AccessDenied("x"), NotFound("x"), UnreadableAnswer("x"), ServiceUnavailable("x")],
    ids=lambda error: type(error).__name__,
)
def test_every_error_of_a_service_has_a_remedy(section: str, error: MuxerError) -> None:
    assert section in SECTIONS
    told = remedy(error, section)
    assert len(told) > 20 and "{" not in told
    assert type(error) is AccessDenied or section in told or "metadata" in told


def test_why_a_server_is_not_reached() -> None:
    assert "port 8081" in unreachable(ConnectionRefusedError(), "rws", 8081, "htcc")
    assert "firewall" in unreachable(TimeoutError(), "rws", 8081, "htcc")
    assert "[rcs] base_uri" in unreachable(OSError("no route"), "rcs", 8008, "rcs")
