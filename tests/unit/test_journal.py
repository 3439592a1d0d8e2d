"""When a failed recording is tried again (behaviour, section 6)."""

from __future__ import annotations

import pytest

from muxer import journal as module
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
from muxer.journal import PERMANENT_ATTEMPTS, Journal, Key, delay

FOREVER = 10.0**12
X = Key("x", "C1")


def test_a_target_that_never_failed_may_run() -> None:
    assert Journal(None).may_run("x", 0)
    assert not Journal(None).is_known("x")


@pytest.mark.parametrize("kind", [ServiceUnavailable, AccessDenied, LocalResourceError, EncryptionMissing])
def test_a_transient_error_backs_off_and_is_never_set_aside(kind: type[MuxerError]) -> None:
    journal, now = Journal(None), 0.0
    for _ in range(50):
        entry = journal.failed(X, kind("later"), now)
        assert entry.retry_at is not None
        assert entry.retry_at > now
        assert not journal.may_run("x", now)
        assert journal.may_run("x", entry.retry_at)
        now = entry.retry_at


@pytest.mark.parametrize(("status", "code"), [(401, 20), (403, 5), (403, 3), (500, 4), (503, 0), (429, 0)])
def test_what_a_whole_service_refuses_is_never_set_aside(status: int, code: int) -> None:
    journal = Journal(None)
    for number in range(10):
        entry = journal.failed(X, failure(Answer("RWS", status, {}, b""), code, ""), float(number))
    assert entry.retry_at is not None


def test_the_delay_grows_up_to_a_bound() -> None:
    delays = [delay(attempt) for attempt in range(1, 2000)]
    assert delays == sorted(delays)
    assert delays[0] < delays[1] < delays[2]
    assert delays[-1] <= 3600


def test_media_that_may_still_come_are_tried_at_every_poll() -> None:
    journal = Journal(None)
    for number in range(20):
        journal.failed(X, MediaNotFound("not there"), float(number))
        assert journal.may_run("x", float(number))


@pytest.mark.parametrize("error", [OSError(24, "too many open files"), MemoryError(), StoredElsewhere("theirs")])
def test_trouble_of_this_machine_or_with_another_muxer_waits_and_is_never_set_aside(error: Exception) -> None:
    journal = Journal(None)
    for _ in range(20):
        journal.failed(X, error, 0.0)
        assert not journal.may_run("x", 1.0)
    assert journal.may_run("x", FOREVER)


def test_the_delay_that_a_service_asks_for_is_kept() -> None:
    entry = Journal(None).failed(X, ServiceUnavailable("busy", retry_after=500), 1000)
    assert entry.retry_at is not None
    assert 1500 <= entry.retry_at <= 1600


@pytest.mark.parametrize("kind", [MediaError, MetadataError, ToolError, EncryptionError, ValueError])
def test_a_permanent_error_is_tried_a_bounded_number_of_times_then_set_aside(kind: type[Exception]) -> None:
    journal = Journal(None)
    for _ in range(PERMANENT_ATTEMPTS - 1):
        journal.failed(X, kind("corrupt"), 0)
        assert journal.may_run("x", FOREVER)
    entry = journal.failed(X, kind("corrupt"), 0)
    assert entry.retry_at is None
    assert not journal.may_run("x", FOREVER)
    assert entry.reason == "corrupt"


def test_an_outage_does_not_use_up_the_attempts_of_a_permanent_error() -> None:
    journal = Journal(None)
    for number in range(10):
        journal.failed(X, ServiceUnavailable("down"), float(number))
    journal.failed(X, ToolError("too slow"), 10)
    assert journal.may_run("x", FOREVER)


def test_a_success_forgets_the_failures() -> None:
    journal = Journal(None)
    for _ in range(PERMANENT_ATTEMPTS):
        journal.failed(X, MediaError("corrupt"), 0)
    journal.done(X, 0, {})
    assert journal.may_run("x", 0)
    assert not journal.is_known("x")
    assert journal.failed(X, MediaError("corrupt"), 0).attempts == 1


def test_targets_do_not_touch_each_other() -> None:
    journal = Journal(None)
    for _ in range(PERMANENT_ATTEMPTS):
        journal.failed(X, MediaError("corrupt"), 0)
    assert journal.may_run("x with another screen file", 0)


def test_the_journal_does_not_grow_without_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    journal = Journal(None)
    for name in ("a", "b", "c", "a", "d"):
        journal.failed(Key(name, "C1"), MediaError("corrupt"), 0)
    assert [name for name in "abcd" if journal.is_known(name)] == ["a", "c", "d"]
