"""The last 24 hours as three charts and a table with their numbers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from muxer.journal.history import HourCounts
from muxer.journal.journal import BacklogSample
from muxer.monitoring import charts
from muxer.monitoring.charts import HOUR_SECONDS, ChartFrame, ChartSeries
from muxer.monitoring.view import StatusView
from muxer.status.formatting import format_megabytes, format_span, format_time

# The width of one step in the charts of samples. The muxer writes a sample every minute.
STEP_SECONDS = 600


@dataclass(frozen=True)
class HourLine:
    """A row of the table: an hour, what ended in it, and its largest backlog (None when unknown)."""

    start: float
    muxed: int
    failed: int
    written: str
    backlog: int | None
    oldest: str | None


@dataclass(frozen=True)
class HistoryCharts:
    """The charts and the table. `muxed` and `failed` are totals, `most` is the largest backlog."""

    muxed: int
    failed: int
    most: int
    charts: tuple[tuple[str, str], ...]
    lines: tuple[HourLine, ...]


def create_charts(view: StatusView) -> HistoryCharts:
    """Return the charts of the last 24 hours and the running one."""
    frame = ChartFrame(view.hours[0].start, view.hours[-1].start + HOUR_SECONDS)
    lines = tuple(_hour_line(hour, view.samples) for hour in reversed(view.hours))
    muxed, failed = sum(hour.muxed for hour in view.hours), sum(hour.failed for hour in view.hours)
    most = max((backlog for sample in view.samples if (backlog := _backlog_size(sample)) is not None), default=0)
    titled = (
        ("Recordings finished, by hour", _throughput_chart(view.hours, frame, muxed, failed)),
        ("Backlog: waiting, queued and running", _backlog_chart(view.samples, frame, most)),
        ("Age of the oldest unmuxed call", _age_chart(view.samples, frame)),
    )
    return HistoryCharts(muxed, failed, most, titled, lines)


def _hour_line(hour: HourCounts, samples: Sequence[BacklogSample]) -> HourLine:
    in_hour = [sample for sample in samples if hour.start <= sample.at < hour.start + HOUR_SECONDS]
    oldest = format_span(max(map(_oldest_age, in_hour))) if in_hour else None
    backlog = max(map(_backlog_size, in_hour)) if in_hour else None
    size = format_megabytes(hour.bytes) if hour.bytes else "0"
    return HourLine(hour.start, hour.muxed, hour.failed, size, backlog, oldest)


def _throughput_chart(hours: Sequence[HourCounts], frame: ChartFrame, muxed: int, failed: int) -> str:
    best = max(hours, key=lambda hour: hour.muxed)
    peak = f", most of them ({best.muxed}) in the hour from {format_time(best.start)} UTC" if muxed else ""
    description = f"{muxed} muxed files{peak}; {failed} failed and not muxed yet."
    done = ChartSeries("done", tuple(hour.muxed for hour in hours))
    not_done = ChartSeries("failed", tuple(hour.failed for hour in hours))
    return charts.bar_chart("throughput", "Recordings finished, by hour", description, frame, (done, not_done))


def _backlog_chart(samples: Sequence[BacklogSample], frame: ChartFrame, most: int) -> str:
    description = f"At most {most} at a time; {_backlog_size(samples[-1])} now." if samples else "No numbers yet."
    running = max_per_step([(sample.at, float(sample.running + sample.queued)) for sample in samples], frame)
    waiting = max_per_step([(sample.at, float(sample.waiting)) for sample in samples], frame)
    stack = (ChartSeries("held", running), ChartSeries("waiting", waiting))
    heights = (above + below for above, below in zip(_known_values(running), _known_values(waiting), strict=True))
    top = charts.round_axis_top(max(heights, default=0))
    return charts.area_chart("backlog", "Backlog", description, frame, stack, top)


def _age_chart(samples: Sequence[BacklogSample], frame: ChartFrame) -> str:
    ages = max_per_step([(sample.at, _oldest_age(sample)) for sample in samples], frame)
    most = max(_known_values(ages), default=0)
    now = format_span(_oldest_age(samples[-1])) if samples else ""
    description = f"At most {format_span(most)}; {now} now." if samples else "No numbers yet."
    stack, top = (ChartSeries("age", ages),), charts.round_axis_seconds(most)
    return charts.area_chart("age", "Age of the oldest call", description, frame, stack, top, format_span)


def max_per_step(numbers: Sequence[tuple[float, float]], frame: ChartFrame) -> tuple[float | None, ...]:
    """Return the largest number of each step. `numbers` are pairs of time and value; a step without one is None."""
    steps: list[float | None] = [None] * round((frame.end - frame.begin) / STEP_SECONDS)
    for at, value in numbers:
        index = int((at - frame.begin) // STEP_SECONDS)
        if 0 <= index < len(steps):
            steps[index] = max(value, steps[index] or 0.0)
    return tuple(steps)


def _known_values(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _backlog_size(sample: BacklogSample) -> int:
    return sample.running + sample.queued + sample.waiting


def _oldest_age(sample: BacklogSample) -> float:
    return max(0.0, sample.at - sample.oldest_open) if sample.oldest_open is not None else 0.0
