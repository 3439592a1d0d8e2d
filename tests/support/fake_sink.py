"""A worker pool for tests of the poll: it passes each target to a function and returns its result."""

from __future__ import annotations

from collections.abc import Callable

from muxer.gir.targets import MuxTarget
from muxer.scheduling.executor import TargetSink


class FakeSink(TargetSink):
    def __init__(self, submit: Callable[[MuxTarget], bool]) -> None:
        self._submit = submit

    def submit(self, target: MuxTarget) -> bool:
        return self._submit(target)
