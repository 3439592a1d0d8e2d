"""Polls that read older calls less often: everything is found in time, by a clock of the test. Times are minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from muxer.errors import Forbidden, MediaError, MediaNotFound, MuxerError, QueryIncomplete, ServiceFailed, ServiceUnavailable
from muxer.gir.models import CallRecording
from muxer.gir.rws import RwsClient
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.polling import open_calls, poller
from muxer.polling.sharding import shard_of
from muxer.scheduling.attempts import target_key
from tests.support.clocked_polls import DAV, ClockedPolls
from tests.support.tiers import spread_variants

HOUR = 60.0
LAYOUTS = {
    "single": {},
    "shard": {"processing__muxer_id": str(shard_of("C0", 4)), "processing__total_muxers": "4"},
    "fleet": {"fleet__mode": "broker", "fleet__broker_url": "amqp://unused"},
}
Polls = Callable[..., ClockedPolls]


@pytest.fixture
def polls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Polls:
    return lambda **options: ClockedPolls(tmp_path, monkeypatch, **options)


def fail(run: ClockedPolls, recording: str, error: Exception) -> None:
    """Record that a worker failed at a recording."""
    run.journal.record_failure(target_key(run.sink.targets[recording]), error, run.clock.wall)


def finish(run: ClockedPolls, recording: str) -> None:
    """Record that a worker has muxed a recording."""
    run.rws.muxed.add(recording)
    run.journal.record_done(target_key(run.sink.targets[recording]), run.clock.wall, {}, is_muxed=True)


@pytest.mark.parametrize("layout", spread_variants(LAYOUTS, 3))
@pytest.mark.parametrize(
    ("what", "length", "known", "screen", "age"),
    spread_variants(
        [
            ("a call of 5 hours", 5 * HOUR, 0, 0, 5 * HOUR),
            ("metadata and then the screen", 5, 2 * HOUR, 6 * HOUR, 6 * HOUR),
            ("a screen 9 hours late", 5, 0, 9 * HOUR, 9 * HOUR),
            ("a usual call", 5, 0, 7, 5),
            ("metadata 3 hours late", 5, 3 * HOUR, 0, 3 * HOUR),
        ],
        2,
    ),
)
def test_it_is_found_within_a_tenth_of_its_age(
    polls: Polls, layout: str, what: str, length: float, known: float, screen: float, age: float
) -> None:
    for phase in range(0, 45, 7):  # the polls of a long reach come every 40 minutes
        run = polls(**LAYOUTS[layout])
        run.poll_until(phase)
        start = run.clock.minutes + 1
        call = run.add_call(start, length, start + known if known else 0, start + screen if screen else 0)
        run.poll_until(start + 12 * HOUR)
        waited = run.found_at(call) - run.rws.calls[call].screen
        assert 0 <= waited <= max(5, age / 10), f"{what}, {waited} minutes"


def test_polls_need_a_third_of_the_requests(polls: Polls) -> None:
    """A call every five minutes, all done: the first poll reads the newest calls first and is not counted."""
    requests = []
    for whole in ("1", "0"):
        run = polls(processing__poll_whole_window=whole, processing__query_slice_size="10")
        run.rws.page_size = 10
        run.rws.muxed |= {run.add_call(5.0 * start, 0.4) for start in range(-144, 64)}
        run.poll_once()
        run.rws.pages = run.rws.slices = 0
        run.poll_until(5 * HOUR + 25)
        requests.append(run.rws.pages + run.rws.slices)
    assert requests[0] == pytest.approx(2 * 14.4 * 64, rel=0.05)
    assert requests[1] <= requests[0] * 0.36, "a third, and what a pass needs for its last page"


def test_each_poll_can_read_the_whole_window(polls: Polls) -> None:
    run = polls(processing__poll_whole_window="1")
    run.poll_until(20)
    assert [round(start) for start, _ in run.rws.queries] == [100, 200, 400, 720, 720, 720, 720]
    assert [(one.reach, one.is_whole) for one in run.results] == [(720 * 60, True)] * 4


def test_every_pass_ends_where_the_window_ends(polls: Polls) -> None:
    """The guide: a second node with a window from 24 to 12 hours ago."""
    run = polls(processing__window_past="1440", processing__window_past_older_than="720")
    call = run.add_call(-719)
    run.poll_until(50)
    assert {round(end) for _, end in run.rws.queries} == {720}
    assert {round(start) for start, _ in run.rws.queries} == {820, 920, 1120, 1440}
    assert run.found_at(call) <= 10


def test_the_first_poll_after_a_start_reads_everything(polls: Polls) -> None:
    run = polls()
    run.poll_until(5)
    late = run.add_call(-11 * HOUR, screen=6)
    run.poll_until(10)
    assert run.found_at(late) == float("inf")
    run.poller = run.create_poller()
    run.poll_once()
    assert run.found_at(late) == 10 and run.results[-1].is_whole


@pytest.mark.parametrize("change", [-3 * 3600, 3 * 3600, 100])
def test_a_changed_clock_neither_starves_nor_floods(polls: Polls, change: float) -> None:
    """All is found although calls seem older than they are, or younger, until the clock is right again."""
    run = polls()
    run.poll_until(60)
    late = run.add_call(-4 * HOUR, screen=58)
    run.clock.ahead = change
    run.poll_once()
    run.poll_once()
    assert run.found_at(late) == 60 and run.results[-2].is_whole and not run.results[-1].is_whole
    new = run.add_call(66)
    run.clock.ahead = 0
    run.poll_until(100)
    assert run.found_at(new) <= run.rws.calls[new].screen + 5
    assert sum(one.is_whole for one in run.results) <= 5


def test_a_clock_that_is_adjusted_is_no_reason_to_read_more(polls: Polls) -> None:
    run = polls()
    run.poll_until(10)
    run.clock.ahead = 30
    assert not run.poll_once().is_whole


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_failed_target_is_retried_although_its_call_is_old(polls: Polls, layout: str) -> None:
    run = polls(**LAYOUTS[layout])
    call = run.add_call(-6 * HOUR)
    run.poll_once()
    fail(run, call, MediaNotFound("not there yet"))
    run.rws.queries.clear()
    result = run.poll_once()
    assert [at for _, at in run.sink.submitted] == [0, 5] and run.rws.single == [call]
    assert [round(start) for start, _ in run.rws.queries] == [100]
    assert (result.found, result.ours, result.submitted, result.waiting, run.poller.pending) == (1, 1, 1, 0, 0)


def test_a_target_in_back_off_is_not_read_before_its_time(polls: Polls) -> None:
    run = polls()
    call = run.add_call(-6 * HOUR)
    run.poll_once()
    for _ in range(6):
        fail(run, call, ServiceUnavailable("down"))  # 15 s, 30 s, ... 8 minutes, which began before the second poll
    result = run.poll_once()
    assert run.rws.single == [] and (result.found, result.waiting) == (0, 1)
    assert result.oldest_open == pytest.approx(run.clock.wall_of(-6 * HOUR))
    run.poll_until(20)
    assert [at for _, at in run.sink.submitted] == [0, 15]


def test_a_target_that_is_set_aside_is_read_when_it_is_requeued(polls: Polls) -> None:
    run = polls()
    call = run.add_call(-6 * HOUR)
    run.poll_once()
    for _ in range(3):
        fail(run, call, MediaError("broken"))
    run.poll_until(40)
    assert run.rws.single == [] and len(run.sink.submitted) == 1
    run.journal._failures.clear()  # what the command `retry` does
    run.poll_once()
    assert len(run.sink.submitted) == 2


def test_what_is_queued_running_or_done_is_not_read_again(polls: Polls) -> None:
    run = polls()
    held, done, gone = (run.add_call(-6 * HOUR) for _ in range(3))
    run.poll_once()
    run.sink.held.add(run.sink.targets[held].file_name)
    finish(run, done)
    del run.rws.calls[gone]
    results = [run.poll_once() for _ in range(3)]
    assert run.rws.single == [gone] and len(run.sink.submitted) == 3
    assert [one.waiting for one in results] == [1, 1, 1] and results[-1].oldest_open is not None


def test_a_call_whose_sources_changed_is_read_again(polls: Polls) -> None:
    """The worker found that the target is no longer wanted, and did nothing."""
    run = polls()
    call = run.add_call(-6 * HOUR)
    run.poll_once()
    run.journal.record_done(target_key(run.sink.targets[call]), run.clock.wall, {})
    run.poll_once()
    assert [at for _, at in run.sink.submitted] == [0, 5]


def test_a_recording_that_rws_fails_for_is_read_at_the_next_poll(polls: Polls) -> None:
    run = polls()
    call = run.add_call(-6 * HOUR)
    run.rws.broken.add(call)
    results = [run.poll_once() for _ in range(3)]
    assert [(one.skipped, one.waiting, one.oldest_open) for one in results] == [(1, 0, None)] * 3
    run.rws.broken.clear()
    run.poll_once()
    assert run.found_at(call) == 15


@pytest.mark.parametrize("limit", [500, 1], ids=["by id", "by a longer reach"])
def test_targets_that_wait_for_a_service_resume_when_it_is_available(
    polls: Polls, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(poller, "MAX_SINGLE_READS", limit)
    run = polls()
    calls = [run.add_call(-hours * HOUR) for hours in (3, 3, 5)]
    error = ServiceUnavailable("down")
    error.service = f"WebDAV {DAV}"
    run.circuit_breaker.trip(error)
    results = [run.poll_once() for _ in range(3)]
    assert run.sink.submitted == [] and [one.waiting for one in results] == [3, 3, 3]
    with run.circuit_breaker.call(error.service):
        pass
    run.poll_once()
    assert sorted(run.sink.submitted) == [(call, 15) for call in calls]
    assert len(run.rws.single) == (3 if limit > 3 else 0) and not run.results[-1].is_whole


def test_a_few_targets_try_a_service_that_is_unavailable(polls: Polls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "MAX_TRIAL_READS", 2)
    run = polls()
    for _ in range(5):
        run.add_call(-3 * HOUR)
    error = ServiceUnavailable("down")
    error.service = f"WebDAV {DAV}"
    run.circuit_breaker.trip(error)
    run.poll_once()
    run.circuit_breaker.allow_trial()
    run.poll_once()
    assert len(run.rws.single) == len(run.sink.submitted) == 2


def test_more_open_calls_than_are_remembered_are_found_by_reading_everything(
    polls: Polls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_calls, "MAX_OPEN_CALLS", 2)
    run = polls()
    calls = [run.add_call(-6 * HOUR) for _ in range(3)]
    run.poll_once()
    run.poll_once()
    assert run.results[-1].is_whole
    for call in calls:
        finish(run, call)
    run.poll_once()
    assert not run.poll_once().is_whole


@pytest.mark.parametrize("error", [ServiceUnavailable("down"), QueryIncomplete("cut")])
def test_a_pass_that_failed_is_repeated_by_the_next_poll(polls: Polls, error: Exception) -> None:
    run = polls()
    run.poll_until(40)
    run.rws.errors.append(error)
    with pytest.raises(type(error)):
        run.poll_once()
    assert run.poll_once().is_whole


def test_older_calls_are_read_when_there_is_room_again(polls: Polls) -> None:
    """A fleet whose queues are full reads only the newest calls."""
    run = polls(**LAYOUTS["fleet"])
    old = run.add_call(-6 * HOUR)
    run.sink.is_closed = True
    assert [run.poll_once().is_whole for _ in range(3)] == [False] * 3
    run.sink.is_closed = False
    assert run.poll_once().is_whole and run.found_at(old) == 15


def test_a_short_poll_reports_what_it_read_and_what_is_known_of_older_calls(polls: Polls) -> None:
    run = polls()
    run.add_call(-6 * HOUR)
    run.add_call(-30)
    whole = run.poll_once()
    assert (whole.found, whole.submitted, whole.reach) == (2, 2, 720 * 60)
    for one in run.sink.targets.values():
        run.sink.held.add(one.file_name)
    short = run.poll_once()
    assert (short.found, short.waiting, short.reach, short.is_whole) == (1, 2, 100 * 60, False)
    assert short.oldest_open == pytest.approx(run.clock.wall_of(-6 * HOUR))


def test_nothing_is_read_by_its_id_in_a_migration(polls: Polls) -> None:
    run = polls(advanced__call_recording_query_string="startTime=0&endTime=9999999999999")
    call = run.add_call(-6 * HOUR)
    run.poll_once()
    fail(run, call, MediaNotFound("not there yet"))
    run.poll_once()
    assert run.rws.single == [] and len(run.rws.queries) == 2


def test_older_calls_are_read_although_each_query_is_incomplete(polls: Polls, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest calls are read again within a pass over older ones, which must not end for that."""
    run = polls()
    run.clock.minutes, run.rws.page_size = 1, 1
    calls = [run.add_call(-hours * HOUR) for hours in (0.5, 1, 3, 5, 9, 11)]
    read = run.rws.read_call_recordings

    def read_incomplete(query: str) -> Iterator[list[CallRecording]]:
        yield from read(query)
        raise QueryIncomplete("cut")

    monkeypatch.setattr(run.rws, "read_call_recordings", read_incomplete)
    with pytest.raises(QueryIncomplete):
        run.poll_once()
    assert {call for call, _ in run.sink.submitted} == set(calls)
    # Nothing is known to be read, but the polls are quick: one pass is enough.
    run.rws.queries.clear()
    with pytest.raises(QueryIncomplete):
        run.poll_once()
    assert [round(past) for past, _ in run.rws.queries] == [12 * HOUR]


def test_older_recordings_that_rws_fails_for_are_no_outage(polls: Polls, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read by their ids, without others between them that RWS does not fail for."""

    class Session:
        def get(self, _: str, **options: Any) -> dict[str, Any]:
            raise ServiceFailed("500")

    run = polls()
    for _ in range(25):
        run.rws.broken.add(run.add_call(-6 * HOUR))
    run.add_call(-6 * HOUR, screen=HOUR)
    run.poll_once()
    client = RwsClient(Session(), "cc")
    monkeypatch.setattr(run.rws, "fetch_screen_recordings", client.fetch_screen_recordings)
    short = run.poll_once()
    assert (short.skipped, short.is_whole) == (25, False)


@pytest.mark.parametrize("error", [ServiceFailed("500"), Forbidden("403")])
def test_bad_recordings_next_to_each_other_are_no_outage(
    polls: Polls, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run, breaker = polls(), CircuitBreaker()
    bad = {run.add_call(-HOUR) for _ in range(3)}
    good = [run.add_call(-HOUR) for _ in range(10)]

    class Session:
        def get(self, target: str, **_: object) -> dict[str, Any]:
            ids = target.rpartition("=")[2].split(",") if "?ids=" in target else [target.rpartition("/")[2]]
            with breaker.call("RWS"):
                if bad & set(ids):
                    raise error
            found = [{"id": one, "mediaFiles": []} for one in ids]
            return {"recordings": found} if "?ids=" in target else {"recording": found[0]}

    monkeypatch.setattr(run.rws, "fetch_screen_recordings", RwsClient(Session(), "cc").fetch_screen_recordings)
    result = run.poll_once()
    assert (result.skipped, result.without_screen, breaker.outage_count) == (len(bad), len(good), 0)


@pytest.mark.parametrize("error", [ServiceFailed("500"), Forbidden("403")])
@pytest.mark.parametrize(("count", "is_outage"), [(10, False), (40, True)])
def test_calls_behind_slices_of_bad_recordings_are_read(
    polls: Polls, monkeypatch: pytest.MonkeyPatch, error: Exception, count: int, is_outage: bool
) -> None:
    run = polls(processing__query_slice_size="10")
    kinds = ["good"] * 10 + ["bad"] * count + ["good"] * 10
    bad = {one for one, kind in [(run.add_call(-HOUR), kind) for kind in kinds] if kind == "bad"}

    class Session:
        def get(self, target: str, **_: object) -> dict[str, Any]:
            ids = target.rpartition("=")[2].split(",") if "?ids=" in target else [target.rpartition("/")[2]]
            if bad & set(ids):
                raise error
            found = [{"id": one, "mediaFiles": []} for one in ids]
            return {"recordings": found} if "?ids=" in target else {"recording": found[0]}

    monkeypatch.setattr(run.rws, "fetch_screen_recordings", RwsClient(Session(), "cc").fetch_screen_recordings)
    with pytest.raises(type(error)) if is_outage else nullcontext():
        result = run.poll_once()
        assert (result.skipped, result.without_screen) == (count, 20)


@pytest.mark.parametrize("error", [ServiceFailed("500"), Forbidden("403")])
@pytest.mark.parametrize(("count", "is_outage"), [(2, False), (3, True), (5, True)])
def test_a_poll_whose_screen_recordings_all_fail_has_failed(
    polls: Polls, monkeypatch: pytest.MonkeyPatch, error: Exception, count: int, is_outage: bool
) -> None:
    class Session:
        def get(self, _: str, **options: Any) -> dict[str, Any]:
            raise error

    run = polls()
    for _ in range(count):
        run.add_call(-HOUR)
    monkeypatch.setattr(run.rws, "fetch_screen_recordings", RwsClient(Session(), "cc").fetch_screen_recordings)
    with pytest.raises(type(error)) if is_outage else nullcontext():
        assert run.poll_once().skipped == count


def warned_reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the reasons of the warnings so far, and forget them."""
    reasons = [record.getMessage().rpartition(": ")[2] for record in caplog.records if record.levelname == "WARNING"]
    caplog.clear()
    return reasons


def test_a_call_that_rws_refuses_is_warned_of_once_and_when_the_reason_changes(
    polls: Polls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run, error = polls(), Forbidden("403 A")
    call = run.add_call(-6 * HOUR)
    run.poll_once()
    fetch = run.rws.fetch_call_recording

    def refuse(recording_id: str) -> CallRecording | None:
        fetch(recording_id)
        raise error

    monkeypatch.setattr(run.rws, "fetch_call_recording", refuse)
    for reason in ("403 A", "403 B"):
        error = Forbidden(reason)
        for _ in range(12):
            run.poll_once()
        assert warned_reasons(caplog) == [reason], "also after polls over the whole window, which find it"
    assert set(run.rws.single) == {call} and len(run.rws.single) > 18
    for function in (fetch, refuse):
        monkeypatch.setattr(run.rws, "fetch_call_recording", function)
        run.poll_once()
        run.poll_once()
    assert warned_reasons(caplog) == ["403 B"], "it was readable meanwhile"


def test_a_screen_recording_that_rws_fails_for_is_warned_of_once(polls: Polls, caplog: pytest.LogCaptureFixture) -> None:
    run = polls()
    run.rws.broken.add(run.add_call(-10))
    for _ in range(3):
        assert run.poll_once().skipped == 1
    assert warned_reasons(caplog) == ["500"]
    run.rws.broken.clear()
    assert run.poll_once().skipped == 0


@pytest.mark.parametrize("error", [ServiceFailed("500"), Forbidden("403")])
def test_one_call_that_rws_does_not_return_by_its_id_does_not_fail_the_poll(
    polls: Polls, monkeypatch: pytest.MonkeyPatch, error: MuxerError
) -> None:
    run = polls()
    bad, good = run.add_call(-6 * HOUR), run.add_call(-7 * HOUR)
    run.poll_once()
    for call in (bad, good):
        fail(run, call, MediaNotFound("not there yet"))
    fetch = run.rws.fetch_call_recording

    def fetch_or_fail(recording_id: str) -> CallRecording | None:
        if recording_id == bad:
            raise error
        return fetch(recording_id)

    monkeypatch.setattr(run.rws, "fetch_call_recording", fetch_or_fail)
    assert not run.poll_once().is_whole
    assert [call for call, _ in run.sink.submitted].count(good) == 2


def test_the_backlog_includes_older_calls_although_full_queues_end_the_poll(
    polls: Polls, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = polls(**LAYOUTS["fleet"])
    run.add_call(-6 * HOUR)
    run.poll_until(40)
    # The queues become full during the pass over the newest calls.
    read = run.rws.read_call_recordings

    def read_and_fill(query: str) -> Iterator[list[CallRecording]]:
        run.sink.is_closed = True
        return read(query)

    monkeypatch.setattr(run.poller._schedule, "_quick_reach", 0.0)
    monkeypatch.setattr(run.rws, "read_call_recordings", read_and_fill)
    for _ in range(2):
        result = run.poll_once()
        assert (result.waiting, result.oldest_open) == (1, pytest.approx(run.clock.wall_of(-6 * HOUR)))
        assert not result.is_whole
