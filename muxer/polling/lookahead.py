"""Reads the next page while the screen recordings of this one are read, several queries at a time.

The order stays that of the pages. What was read ahead is bounded, so memory does not grow with the window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from typing import Any, TypeVar

from muxer.errors import MuxerError
from muxer.gir.models import CallRecording
from muxer.system.thread_helpers import TaskThreads

Item = TypeVar("Item")
Result = TypeVar("Result")


class LookAhead:
    """Runs up to `limit` queries at a time, in threads of its own; with 1, one after the other in the calling thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._threads = TaskThreads("query", limit)

    def read_slices(
        self, slices: Iterator[Sequence[Item]], fetch: Callable[[Sequence[Item]], Result]
    ) -> Iterator[tuple[Sequence[Item], Result]]:
        """Yield each of the `slices`, which may be empty, with what `fetch` returns for it.

        An error of a slice is raised in its turn; one of `slices` after all slices before it.
        """
        if self._limit == 1:
            for one in slices:
                yield one, fetch(one)
            return
        fetched: deque[tuple[Sequence[Item], Future[Result]]] = deque()
        coming = [self._start_reading(slices)]
        try:
            while coming or fetched:
                wanted = [one for one in coming if not fetched or (len(fetched) < self._limit and not _has_failed(one))]
                first: list[Future[Any]] = [fetched[0][1]] if fetched else []
                wait([*wanted, *first], return_when=FIRST_COMPLETED)
                if wanted and wanted[0].done() and not (fetched and _has_failed(wanted[0])):
                    following = coming.pop().result()
                    if following is not None:
                        fetched.append((following, self._threads.start_task(partial(fetch, following))))
                        coming.append(self._start_reading(slices))
                elif fetched and fetched[0][1].done():
                    one, result = fetched.popleft()
                    yield one, result.result()
        finally:
            # Nothing is left running: with the next queries it would be more than the limit.
            running: list[Future[Any]] = [*coming, *(result for _, result in fetched)]
            wait(running)

    def _start_reading(self, slices: Iterator[Sequence[Item]]) -> Future[Sequence[Item] | None]:
        return self._threads.start_task(partial(next, slices, None))

    def close(self) -> None:
        """Let the threads end."""
        self._threads.close()


def _has_failed(future: Future[Any]) -> bool:
    return future.done() and future.exception() is not None


def split_pages(pages: Iterator[list[CallRecording]], size: int) -> Iterator[Sequence[CallRecording]]:
    """Yield calls in slices across pages; empty ones too, so that the caller gets control."""
    rest: list[CallRecording] = []
    try:
        for page in pages:
            rest += page
            complete = len(rest) // size * size
            yield from (rest[begin : begin + size] for begin in range(0, complete, size))
            if not complete:
                yield []
            rest = rest[complete:]
    except MuxerError:
        if rest:
            yield rest
        raise
    if rest:
        yield rest
