"""Pages and screen recordings are read at the same time, in order, and never more at a time than allowed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from muxer.errors import AuthenticationFailed
from muxer.gir.rws import RwsClient
from muxer.polling.lookahead import LookAhead
from tests.support.clocked_polls import ClockedPolls

LIMIT = 4
WAIT_SECONDS = 60
COUNT = 50


class Counter:
    """The number of blocks that run at a time, and the maximum."""

    def __init__(self) -> None:
        self._lock, self.running, self.maximum, self.ended = threading.Lock(), 0, 0, 0

    def __enter__(self) -> None:
        with self._lock:
            self.running += 1
            self.maximum = max(self.maximum, self.running)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.running -= 1
            self.ended += 1


@pytest.fixture
def ahead() -> Iterator[LookAhead]:
    look = LookAhead(LIMIT)
    yield look
    look.close()


def slices_of(count: int, queries: Counter | None = None) -> Iterator[list[int]]:
    for number in range(count):
        with queries or Counter():
            one = [number]
        yield one


def test_results_keep_the_order_of_the_slices(ahead: LookAhead) -> None:
    """The first slice of each four is done last."""
    gates = [threading.Event() for _ in range(COUNT)]

    def fetch(one: list[int]) -> int:
        (number,) = one
        if number % LIMIT == 0 and number + 1 < COUNT:
            assert gates[number + 1].wait(WAIT_SECONDS)
        gates[number].set()
        return 10 * number

    got = list(ahead.read_slices(slices_of(COUNT), fetch))
    assert got == [([number], 10 * number) for number in range(COUNT)]


def test_as_many_queries_as_allowed_run_at_a_time(ahead: LookAhead) -> None:
    queries, together = Counter(), threading.Event()

    def fetch(_: list[int]) -> None:
        with queries:
            if queries.running >= LIMIT - 1:
                together.set()
            assert together.wait(WAIT_SECONDS)

    list(ahead.read_slices(slices_of(3 * (LIMIT - 1), queries), fetch))
    assert LIMIT - 1 <= queries.maximum <= LIMIT and queries.running == 0


def test_no_more_is_read_ahead_than_is_processed(ahead: LookAhead) -> None:
    read = consumed = most = 0

    def count_reads() -> Iterator[list[int]]:
        nonlocal read, most
        for number in range(COUNT):
            read += 1
            most = max(most, read - consumed)
            yield [number]

    for _ in ahead.read_slices(count_reads(), lambda one: one):
        consumed += 1
    assert consumed == COUNT and most <= LIMIT + 2


def test_an_error_of_a_page_follows_what_was_read_before_it(ahead: LookAhead) -> None:
    has_failed = threading.Event()

    def slices() -> Iterator[list[int]]:
        yield from slices_of(3)
        has_failed.set()
        raise ValueError("page 4")

    def fetch(one: list[int]) -> list[int]:
        assert has_failed.wait(WAIT_SECONDS)
        return one

    got: list[list[int]] = []
    with pytest.raises(ValueError, match="page 4"):
        for one, _ in ahead.read_slices(slices(), fetch):
            got.append(one)
    assert got == [[0], [1], [2]]


def test_an_error_of_a_slice_is_raised_in_its_turn_when_nothing_runs_any_more(ahead: LookAhead) -> None:
    queries, got = Counter(), list[list[int]]()

    def fetch(one: list[int]) -> None:
        with queries:
            if one == [2]:
                raise ValueError("slice 2")

    with pytest.raises(ValueError, match="slice 2"):
        for one, _ in ahead.read_slices(slices_of(COUNT), fetch):
            got.append(one)
    assert got == [[0], [1]] and queries.running == 0


def test_a_reader_that_stops_early_leaves_nothing_running(ahead: LookAhead) -> None:
    queries = Counter()

    def fetch(_: list[int]) -> None:
        with queries:
            pass

    reading = ahead.read_slices(slices_of(COUNT), fetch)
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    ended = queries.ended
    assert queries.running == 0 and queries.ended == ended <= LIMIT + 1


def test_one_at_a_time_means_one_after_the_other_in_this_thread() -> None:
    steps: list[str] = []

    def slices() -> Iterator[list[int]]:
        for number in range(2):
            steps.append(f"read {number}")
            yield [number]

    def fetch(one: list[int]) -> None:
        steps.append(f"fetch {one[0]} in {threading.current_thread().name}")

    here = threading.current_thread().name
    for one, _ in LookAhead(1).read_slices(slices(), fetch):
        steps.append(f"process {one[0]}")
    assert steps == [step for n in (0, 1) for step in (f"read {n}", f"fetch {n} in {here}", f"process {n}")]


@pytest.mark.parametrize("limit", ["1", "2", "4"])
def test_a_poll_never_sends_more_queries_at_a_time_than_the_option_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Pages, slices, the newest calls that are read again in between, and calls by their ids."""
    run = ClockedPolls(tmp_path, monkeypatch, advanced__concurrent_queries=limit, processing__query_slice_size="20")
    for start in range(-500, -100):
        run.add_call(start, 1)
    queries, rws = Counter(), run.rws
    fetch_screens, fetch_call, read_pages = rws.fetch_screen_recordings, rws.fetch_call_recording, rws.read_call_recordings

    def read_counted(query: str) -> Iterator[list]:
        pages = read_pages(query)
        while True:
            with queries:
                page = next(pages, None)
            if page is None:
                return
            yield page
            run.clock.minutes += 10  # slow enough for the newest calls to be read again

    def count(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any) -> Any:
            with queries:
                return function(*given)

        return counted

    rws.read_call_recordings = read_counted
    rws.fetch_screen_recordings = count(fetch_screens)
    rws.fetch_call_recording = count(fetch_call)
    first = run.poll_once()
    run.sink.submitted.clear()
    run.poll_once()
    assert first.found == first.submitted == 400 and queries.running == 0
    assert 1 <= queries.maximum <= int(limit)


def test_a_slice_is_read_one_by_one_when_another_thread_finds_that_rws_ignores_ids() -> None:
    """The first response is on its way while another thread reads a slice and gets recordings that it did not ask for."""
    media = {"mediaId": "a.mp4", "type": "video/mp4"}

    class Session:
        is_nested = False

        def get(self, target: str, **_: object) -> dict:
            if "?ids=zeroth" in target:
                return {"recordings": [{"id": "zeroth", "mediaFiles": [media]}]}
            if "?ids=" not in target:
                return {"recording": {"id": target.rpartition("/")[2], "mediaFiles": [media]}}
            if Session.is_nested:
                return {"recordings": [{"id": "never asked for", "mediaFiles": [media]}]}
            Session.is_nested = True
            client.fetch_screen_recordings(["third"])
            return {"recordings": [{"id": "first", "mediaFiles": [media]}]}

    client = RwsClient(Session(), "cc")
    client.fetch_screen_recordings(["zeroth"])  # the first bulk query is sent alone
    assert set(client.fetch_screen_recordings(["first", "second"])) == {"first", "second"}
    assert not client.reads_in_bulk


def test_the_first_bulk_query_is_sent_alone() -> None:
    """Others follow only when its response shows that RWS reads the ids."""
    others_wait, bulk_queries = threading.Barrier(LIMIT), []

    class Session:
        def get(self, target: str, **_: object) -> dict:
            name = target.rpartition("/")[2].rpartition("=")[2]
            if "?ids=" not in target:
                return {"recording": {"id": name, "mediaFiles": []}}
            bulk_queries.append(name)
            return {"recordings": [{"id": "never asked for", "mediaFiles": [{"mediaId": "a.mp4", "type": "video/mp4"}]}]}

    client = RwsClient(Session(), "cc")

    def fetch(name: str) -> list[str]:
        others_wait.wait(WAIT_SECONDS)
        return list(client.fetch_screen_recordings([name]))

    names = [f"r{number}" for number in range(LIMIT)]
    with ThreadPoolExecutor(LIMIT) as threads:
        assert list(threads.map(fetch, names)) == [[name] for name in names]
    assert len(bulk_queries) == 1


def test_after_a_first_bulk_query_that_failed_others_are_sent_together() -> None:
    """Else each of them waits for the timeouts of those before it."""
    together, bulk_queries = threading.Barrier(LIMIT), []

    class Session:
        def get(self, target: str, **_: object) -> dict:
            bulk_queries.append(target)
            if len(bulk_queries) == 1:
                raise AuthenticationFailed("401")
            together.wait(WAIT_SECONDS)
            return {"recordings": [{"id": target.rpartition("=")[2], "mediaFiles": [{"mediaId": "a.mp4"}]}]}

    client = RwsClient(Session(), "cc")
    with pytest.raises(AuthenticationFailed):
        client.fetch_screen_recordings(["r"])
    names = [f"r{number}" for number in range(LIMIT)]
    with ThreadPoolExecutor(LIMIT) as threads:
        found = threads.map(client.fetch_screen_recordings, [[name] for name in names])
        assert [list(one) for one in found] == [[name] for name in names]
