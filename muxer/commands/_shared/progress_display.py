"""Shows the progress of a command on stderr: bars on a terminal, elsewhere a line for each step and one every minute."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from muxer.log.setup import escape_control
from muxer.status.activity import ActivitySnapshot, RunningTarget
from muxer.status.progress import format_progress, measure_progress
from muxer.system.masking import Mask

LINE_INTERVAL = 60.0


class ProgressDisplay(Protocol):
    """Shows the progress of running jobs."""

    def update_progress(self, snapshot: ActivitySnapshot) -> None:
        """Show the current progress."""

    def write_line(self, line: str) -> None:
        """Print a line."""

    def close(self) -> None:
        """End the display; printed text stays."""


@contextmanager
def open_display(mask: Mask, *, steps: bool) -> Iterator[ProgressDisplay]:
    """Yield a display that also prints warnings of the log, without secrets.

    Where there are no bars, the lines of the command are printed, too, and with `steps` each finished step.
    """
    has_bars = sys.stderr.isatty()
    display: ProgressDisplay = _BarDisplay() if has_bars else _LineDisplay()
    handler = _DisplayHandler(lambda line: display.write_line(mask(line)), steps=steps and not has_bars, lines=not has_bars)
    logger = logging.getLogger("muxer")
    earlier = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield display
    finally:
        display.close()
        logger.removeHandler(handler)
        logger.setLevel(earlier[0])
        logger.propagate = earlier[1]


class _DisplayHandler(logging.Handler):
    """Prints warnings, with `steps` finished steps, and with `lines` what the command logs."""

    def __init__(self, write: Callable[[str], None], *, steps: bool, lines: bool) -> None:
        super().__init__()
        self._write, self._steps, self._lines = write, steps, lines

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "fields", {})
        if record.levelno >= logging.WARNING:
            self._write(f"{record.levelname.lower()}: {escape_control(record.getMessage())}")
        elif self._steps and "step" in fields:
            self._write(f"  {record.getMessage()}, {fields['seconds']:.1f} s")
        elif self._lines and record.name.startswith("muxer.commands"):
            self._write(escape_control(record.getMessage()))


class _LineDisplay:
    def __init__(self) -> None:
        self._due = time.monotonic() + LINE_INTERVAL

    def update_progress(self, snapshot: ActivitySnapshot) -> None:
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + LINE_INTERVAL
        for running in snapshot.running:
            self.write_line(f"{_target_label(running)}: {_progress_text(running, snapshot.at) or 'running'}")

    def write_line(self, line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Do nothing."""


class _BarDisplay:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        text = TextColumn("{task.description}", markup=False)
        columns = (SpinnerColumn(), text, BarColumn(), TextColumn("{task.fields[progress]}"))
        console = Console(stderr=True, highlight=False)
        self._bars = Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False)
        self._tasks: dict[str, tuple[tuple[str, float], Any]] = {}
        self._bars.start()
        self._closed = False

    def update_progress(self, snapshot: ActivitySnapshot) -> None:
        for running in snapshot.running:
            step, (shown, bar) = (running.step, running.step_begun), self._tasks.get(running.file, (None, None))
            if shown is not None and shown != step:
                self._finish_bar(bar)
            if shown != step:
                self._tasks[running.file] = step, self._bars.add_task(_target_label(running), total=None, progress="")
            self._bars.update(
                self._tasks[running.file][1],
                total=running.total or None,
                completed=min(running.done, running.total or running.done),
                progress=_progress_text(running, snapshot.at),
            )
        for file in set(self._tasks) - {running.file for running in snapshot.running}:
            self._finish_bar(self._tasks.pop(file)[1])

    def write_line(self, line: str) -> None:
        self._bars.console.print(line, markup=False, soft_wrap=True)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._bars.stop()

    def _finish_bar(self, task: Any) -> None:
        self._bars.update(task, total=1, completed=1, progress="")


def _target_label(running: RunningTarget) -> str:
    return escape_control(f"{running.agent} {running.step}" if running.agent else running.step)


def _progress_text(running: RunningTarget, now: float) -> str:
    return format_progress(measure_progress(running.done, running.total, running.step_begun, now), running.step)
