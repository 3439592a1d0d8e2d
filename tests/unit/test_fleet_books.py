"""What a poller knows of its orders, and what it makes of what it is told: targets that are out, dead letters, workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from muxer.activity import Activity, Durations, Totals
from muxer.errors import Code, MediaError, ServiceUnavailable
from muxer.failures import failure_of
from muxer.fleet import dead, events, orders
from muxer.fleet.connection import WEEK_MILLISECONDS
from muxer.fleet.dead import Fate, fate
from muxer.fleet.events import Event
from muxer.fleet.held import LONGEST_SECONDS, SETTLE_SECONDS, Held, Holdings
from muxer.fleet.orders import Order
from muxer.fleet.reporter import Reporter
from muxer.fleet.view import FORGOTTEN_SECONDS, SILENT_SECONDS
from muxer.fleet.workers import Workers, minus, totals_of
from muxer.journal import ASIDE, DONE, JOURNAL, QUEUED, RUNNING, WANTED, Journal, Key
from muxer.masking import Mask

NOW = 1_000_000.0
KEY = Key("c1_muxed.mp4", "c1", "agent1")


# ---- targets that are out ----------------------------------------------------------------------------


@pytest.fixture
def holdings() -> Holdings:
    made = Holdings()
    made.put(Held(KEY, "m1", NOW - 600))
    return made


def test_what_was_begun_is_known_as_what_it_was_ordered_as(holdings: Holdings) -> None:
    held = holdings.begun(Key(KEY.name, KEY.recording), NOW)
    assert (held.key, held.message, held.begun) == (KEY, "m1", NOW)
    assert holdings.begun(Key("other", "c2", "a"), NOW).message == ""
    assert len(holdings) == 2
    assert holdings.drop(KEY.name) == held and KEY.name not in holdings and holdings.drop(KEY.name) is None


@pytest.mark.parametrize(
    ("empty_for", "at_workers", "waited", "lost"),
    [
        (SETTLE_SECONDS, set(), 600, True),
        (SETTLE_SECONDS - 1, set(), 600, False),
        (None, set(), 600, False),
        (SETTLE_SECONDS, {KEY.name}, 600, False),
        (SETTLE_SECONDS, set(), SETTLE_SECONDS - 1, False),
        (None, set(), LONGEST_SECONDS, True),
        (None, {KEY.name}, LONGEST_SECONDS, False),
    ],
)
def test_an_order_has_vanished_when_it_is_in_no_lane_and_at_no_worker(
    empty_for: float | None, at_workers: set[str], waited: float, lost: bool
) -> None:
    made = Holdings()
    made.put(Held(KEY, "m1", NOW - waited))
    since = None if empty_for is None else NOW - empty_for
    assert bool(made.lost(NOW, since, at_workers)) is lost


def test_what_was_begun_lately_has_not_vanished(holdings: Holdings) -> None:
    holdings.begun(KEY, NOW - SETTLE_SECONDS + 1)
    assert holdings.lost(NOW, NOW - 3600, set()) == []


# ---- the journal -------------------------------------------------------------------------------------


def test_a_restarted_poller_knows_what_is_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNAL, left=QUEUED)
    journal.queued(KEY, NOW, "m1")
    other = Key("b", "c2")
    journal.queued(other, NOW, "m2")
    journal.running(other, NOW + 5, "m2")
    journal.wanted(Key("w", "c3"), NOW)
    assert (journal.state_of("b"), journal.state_of("w"), journal.state_of("none")) == (RUNNING, WANTED, "")
    again = Journal(tmp_path / JOURNAL, left=QUEUED)  # the first was never closed: it was killed
    assert set(again.out()) == {(Key("b", "c2"), NOW + 5, "m2"), (KEY, NOW, "m1")}
    again.close()
    assert Journal(tmp_path / JOURNAL, left=QUEUED).state_of("b") == QUEUED


def test_without_a_fleet_what_ran_is_wanted_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNAL)
    journal.running(KEY, NOW)
    journal.close()
    again = Journal(tmp_path / JOURNAL)
    assert again.state_of(KEY.name) == WANTED and again.out() == []


# ---- dead letters ------------------------------------------------------------------------------------


def body(message: str = "m1") -> bytes:
    return json.dumps({"message_id": message, "kwargs": orders.to_plain(Order(KEY.recording, KEY.name))}).encode()


@pytest.mark.parametrize(("reason", "code"), [("rejected", Code.UNKNOWN_ORDER), ("delivery_limit", Code.NEVER_FINISHED)])
def test_a_dead_letter_tells_its_target_and_why_it_is_dead(reason: str, code: Code) -> None:
    letter = dead.read(body(), {"x-first-death-reason": reason})
    assert (letter.message, letter.key, letter.error.code) == ("m1", Key(KEY.name, KEY.recording), code)


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"7", b'{"message_id": 1}', b'{"message_id": "x", "kwargs": []}'])
def test_a_dead_letter_may_be_anything(garbage: bytes) -> None:
    letter = dead.read(garbage, {})
    assert letter.key == Key("", "") and fate(letter, None, "") is Fate.LEFT


@pytest.mark.parametrize(
    ("held", "state", "expected"),
    [
        (Held(KEY, "m1", NOW), QUEUED, Fate.SET_ASIDE),
        (Held(KEY, "", NOW), QUEUED, Fate.SET_ASIDE),
        (Held(KEY, "m2", NOW), QUEUED, Fate.DROPPED),
        (None, ASIDE, Fate.LEFT),
        (None, WANTED, Fate.LEFT),
        (None, DONE, Fate.DROPPED),
        (None, "", Fate.LEFT),
    ],
)
def test_only_the_letter_of_the_order_that_is_out_sets_its_target_aside(
    held: Held | None, state: str, expected: Fate
) -> None:
    assert fate(dead.read(body(), {}), held, state) is expected


def test_what_the_fleet_has_given_up_is_set_aside_at_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNAL)
    entry = journal.failed(KEY, failure_of(dead.read(body(), {}).error), NOW)
    assert (entry.retry_at, entry.attempts, entry.code) == (None, 1, "MUX-351")


@pytest.mark.parametrize(
    ("age", "expected"),
    [(0, WEEK_MILLISECONDS), (86_400, 6 * 86_400_000), (8 * 86_400, 1), (-3600, WEEK_MILLISECONDS)],
)
def test_a_letter_is_kept_for_a_week_however_often_it_is_looked_at(age: int, expected: int) -> None:
    died = datetime.fromtimestamp(NOW - age, UTC).replace(tzinfo=None)  # as pika gives it
    assert dead.left_to_live({"x-death": [{"time": died}]}, NOW) == str(expected)


@pytest.mark.parametrize("headers", [{}, {"x-death": []}, {"x-death": [{"time": "soon"}]}, {"x-death": 7}])
def test_a_letter_that_does_not_say_when_it_died_begins_its_week_anew(headers: dict[str, object]) -> None:
    assert dead.left_to_live(headers, NOW) is None


# ---- a worker's ledger -------------------------------------------------------------------------------


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def reporter(told: list[Event]) -> Iterator[Reporter]:
    yield Reporter(told.append, "host/worker-0/1", Mask(["secret-word"]))


def test_a_reason_is_told_without_secrets(reporter: Reporter, told: list[Event]) -> None:
    assert reporter.failed(KEY, failure_of(ServiceUnavailable("echoes secret-word")), 40, None, last=True)
    [event] = told
    assert "secret-word" not in events.encode(event).decode() and event.details["failure"]["reason"] == "echoes ***"
    assert event.details["more"] is False


def test_a_permanent_error_is_tried_three_times_at_once_at_most(reporter: Reporter, told: list[Event]) -> None:
    failure = failure_of(MediaError("broken"))
    assert [reporter.failed(KEY, failure, 40, None, last=False) for _ in range(3)] == [True, True, False]
    assert [one.details["more"] for one in told] == [True, True, False]
    reporter.done(KEY, "muxed", {})
    assert reporter.failed(KEY, failure, 40, None, last=False)


# ---- workers -----------------------------------------------------------------------------------------


def standing(name: str = "h/worker-0/1", held: tuple[str, ...] = (), steps: int = 0, moved: int = 0) -> Event:
    counts = [steps, *[0] * (len(Durations().counts) - 1)]
    took = {"mux": {"counts": counts, "seconds": float(steps)}}
    totals = {"steps": took, "moved": [["fetched", "RWS", moved]], "errors": []}
    who = {"host": "h", "pid": 1, "version": "1", "threads": 2, "started": NOW, "running": [], "out": {}}
    return Event(events.WORKER, name, details={**who, "held": list(held), "totals": totals})


def test_what_a_worker_does_is_counted_once() -> None:
    workers, activity = Workers(), Activity()
    for at, (steps, moved) in enumerate([(5, 100), (7, 130), (7, 130)]):
        activity.absorb(workers.heard(standing(steps=steps, moved=moved), NOW + at))
    totals = activity.snapshot().totals
    assert (sum(totals.steps["mux"].counts), totals.steps["mux"].seconds, totals.moved["fetched", "RWS"]) == (2, 2.0, 30)


def test_what_living_workers_have_in_hand_is_known() -> None:
    workers = Workers()
    workers.heard(standing("a", ("x",)), NOW)
    workers.heard(standing("b", ("y",)), NOW + SILENT_SECONDS)
    assert workers.held(NOW + SILENT_SECONDS) == {"x", "y"}
    assert workers.held(NOW + SILENT_SECONDS + 1) == {"y"}
    workers.gone("b")
    assert workers.held(NOW + SILENT_SECONDS + 1) == frozenset()


def test_a_rate_is_that_of_the_last_ten_minutes() -> None:
    workers = Workers()
    workers.heard(standing("a"), NOW)
    for number in range(30):
        workers.finished("a", "muxed" if number % 3 else "failed", NOW + 10 * number)
    workers.heard(standing("a"), NOW + 300)
    [view] = workers.view(NOW + 300)
    assert (view.muxed, view.failed, view.rate) == (20, 10, 360.0)
    workers.heard(standing("a"), NOW + 1200)
    assert workers.view(NOW + 1200)[0].rate == 0.0
    assert workers.view(NOW + 1200 + FORGOTTEN_SECONDS)
    workers.heard(standing("b"), NOW + 1201 + FORGOTTEN_SECONDS)
    assert [one.name for one in workers.view(NOW + 1201 + FORGOTTEN_SECONDS)] == ["b"]


@pytest.mark.parametrize("missing", ["totals", "held", "host", "threads", "running", "started"])
def test_a_malformed_standing_is_passed_over(missing: str) -> None:
    event = standing()
    del event.details[missing]
    workers = Workers()
    since = workers.heard(event, NOW)
    assert (since.moved, since.errors, workers.view(NOW)) == ({}, {}, ())


def test_totals_of_another_form_are_refused() -> None:
    with pytest.raises(ValueError, match="classes"):
        totals_of({"steps": {"mux": {"counts": [1], "seconds": 1}}, "moved": [], "errors": []})
    assert minus(Totals(), Totals()) == Totals()
