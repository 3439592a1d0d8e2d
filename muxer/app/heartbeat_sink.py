"""The executor of the targets as a poll sees it: while the poll waits for workers, its heartbeat is paused."""

from __future__ import annotations

from muxer.gir.targets import MuxTarget
from muxer.scheduling.executor import TargetExecutor, TargetSink
from muxer.status.heartbeat import Heartbeat


class HeartbeatPausingSink(TargetSink):
    """An executor for the poll, which pauses the heartbeat while the poll waits for the workers."""

    def __init__(self, executor: TargetExecutor, heartbeat: Heartbeat) -> None:
        self._executor, self._heartbeat = executor, heartbeat

    def begin_poll(self) -> None:
        self._executor.begin_poll()

    def submit(self, target: MuxTarget) -> bool:
        with self._heartbeat.pause_while_waiting(for_workers=True):
            return self._executor.submit(target)

    def holds(self, name: str) -> bool:
        return self._executor.holds(name)

    def mark_finished(self, target: MuxTarget) -> None:
        self._executor.mark_finished(target)

    def flush(self) -> int:
        with self._heartbeat.pause_while_waiting(for_workers=True):
            return self._executor.flush()

    @property
    def needs_targets_now(self) -> bool:
        return self._executor.needs_targets_now

    def rejects_older_than(self, minutes: float) -> bool:
        return self._executor.rejects_older_than(minutes)
