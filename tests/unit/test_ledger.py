"""When a failed recording is tried again (behaviour, section 6)."""

from __future__ import annotations

import pytest

from muxer import ledger as module
from muxer.errors import (
    AccessDenied,
    EncryptionError,
    EncryptionMissing,
    LocalResourceError,
    MediaError,
    MediaNotFound,
    MetadataError,
    MuxerError,
    ServiceUnavailable,
    StoredElsewhere,
    ToolError,
)
from muxer.gir.answers import Answer, failure
from muxer.ledger import PERMANENT_ATTEMPTS, Ledger, delay

FOREVER = 10.0**12


def test_a_target_that_never_failed_may_run() -> None:
    assert Ledger().may_run("x", 0)
    assert not Ledger().is_known("x")


@pytest.mark.parametrize("kind", [ServiceUnavailable, AccessDenied, LocalResourceError, EncryptionMissing])
def test_a_transient_error_backs_off_and_is_never_set_aside(kind: type[MuxerError]) -> None:
    ledger, now = Ledger(), 0.0
    for _ in range(50):
        entry = ledger.failed("x", kind("later"), now)
        assert entry.retry_at is not None
        assert entry.retry_at > now
        assert not ledger.may_run("x", now)
        assert ledger.may_run("x", entry.retry_at)
        now = entry.retry_at


@pytest.mark.parametrize(("status", "code"), [(401, 20), (403, 5), (403, 3), (500, 4), (503, 0), (429, 0)])
def test_what_a_whole_service_refuses_is_never_set_aside(status: int, code: int) -> None:
    ledger = Ledger()
    for number in range(10):
        entry = ledger.failed("x", failure(Answer("RWS", status, {}, b""), code, ""), float(number))
    assert entry.retry_at is not None


def test_the_delay_grows_up_to_a_bound() -> None:
    delays = [delay(attempt) for attempt in range(1, 2000)]
    assert delays == sorted(delays)
    assert delays[0] < delays[1] < delays[2]
    assert delays[-1] <= 3600


def test_media_that_may_still_come_are_tried_at_every_poll() -> None:
    ledger = Ledger()
    for number in range(20):
        ledger.failed("x", MediaNotFound("not there"), float(number))
        assert ledger.may_run("x", float(number))


@pytest.mark.parametrize("error", [OSError(24, "too many open files"), MemoryError(), StoredElsewhere("theirs")])
def test_trouble_of_this_machine_or_with_another_muxer_waits_and_is_never_set_aside(error: Exception) -> None:
    ledger = Ledger()
    for _ in range(20):
        ledger.failed("x", error, 0.0)
        assert not ledger.may_run("x", 1.0)
    assert ledger.may_run("x", FOREVER)


def test_the_delay_that_a_service_asks_for_is_kept() -> None:
    entry = Ledger().failed("x", ServiceUnavailable("busy", retry_after=500), 1000)
    assert entry.retry_at is not None
    assert 1500 <= entry.retry_at <= 1600


@pytest.mark.parametrize("kind", [MediaError, MetadataError, ToolError, EncryptionError, ValueError])
def test_a_permanent_error_is_tried_a_bounded_number_of_times_then_set_aside(kind: type[Exception]) -> None:
    ledger = Ledger()
    for _ in range(PERMANENT_ATTEMPTS - 1):
        ledger.failed("x", kind("corrupt"), 0)
        assert ledger.may_run("x", FOREVER)
    entry = ledger.failed("x", kind("corrupt"), 0)
    assert entry.retry_at is None
    assert not ledger.may_run("x", FOREVER)
    assert entry.reason == "corrupt"


def test_an_outage_does_not_use_up_the_attempts_of_a_permanent_error() -> None:
    ledger = Ledger()
    for number in range(10):
        ledger.failed("x", ServiceUnavailable("down"), float(number))
    ledger.failed("x", ToolError("too slow"), 10)
    assert ledger.may_run("x", FOREVER)


def test_a_success_forgets_the_failures() -> None:
    ledger = Ledger()
    for _ in range(PERMANENT_ATTEMPTS):
        ledger.failed("x", MediaError("corrupt"), 0)
    ledger.succeeded("x")
    assert ledger.may_run("x", 0)
    assert not ledger.is_known("x")
    assert ledger.failed("x", MediaError("corrupt"), 0).attempts == 1


def test_targets_do_not_touch_each_other() -> None:
    ledger = Ledger()
    for _ in range(PERMANENT_ATTEMPTS):
        ledger.failed("x", MediaError("corrupt"), 0)
    assert ledger.may_run("x with another screen file", 0)


def test_the_ledger_does_not_grow_without_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    ledger = Ledger()
    for name in ("a", "b", "c", "a", "d"):
        ledger.failed(name, MediaError("corrupt"), 0)
    assert [name for name in "abcd" if ledger.is_known(name)] == ["a", "c", "d"]
