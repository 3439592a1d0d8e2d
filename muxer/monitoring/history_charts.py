"""The last 24 hours: three charts, and one table with their numbers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from muxer.journal.journal import BacklogSample
from muxer.monitoring import charts
from muxer.monitoring.charts import HOUR_SECONDS, ChartFrame, ChartSeries
from muxer.monitoring.view import HourCounts, StatusView
from muxer.status.formatting import format_megabytes, format_span, format_time

# A part of the time this long is one step of the charts of samples; muxers write one a minute, some of them are read.
STEP_SECONDS = 600


@dataclass(frozen=True)
class HourLine:
    """A row of the table: an hour, what ended in it, and the most that was there to do; None where nobody knows."""

    start: float
    muxed: int
    failed: int
    written: str
    backlog: int | None
    oldest: str | None


@dataclass(frozen=True)
class HistoryCharts:
    """The charts and the table; ``muxed`` and ``failed`` count all hours, ``most`` is the largest backlog."""

    muxed: int
    failed: int
    most: int
    charts: tuple[tuple[str, str], ...]
    lines: tuple[HourLine, ...]


def create_charts(view: StatusView) -> HistoryCharts:
    """Given a view, return what it tells of the last day: its hours, and the running one."""
    frame = ChartFrame(view.hours[0].start, view.hours[-1].start + HOUR_SECONDS)
    lines = tuple(_hour_line(hour, view.samples) for hour in reversed(view.hours))
    muxed, failed = sum(one.muxed for one in view.hours), sum(one.failed for one in view.hours)
    most = max((backlog for one in view.samples if (backlog := _backlog_size(one)) is not None), default=0)
    drawn = (
        ("Recordings finished, by hour", _throughput_chart(view.hours, frame, muxed, failed)),
        ("Backlog: waiting, queued and running", _backlog_chart(view.samples, frame, most)),
        ("Age of the oldest unmuxed call", _age_chart(view.samples, frame)),
    )
    return HistoryCharts(muxed, failed, most, drawn, lines)


def _hour_line(hour: HourCounts, samples: Sequence[BacklogSample]) -> HourLine:
    here = [one for one in samples if hour.start <= one.at < hour.start + HOUR_SECONDS]
    oldest = format_span(max(map(_oldest_age, here))) if here else None
    backlog = max(map(_backlog_size, here)) if here else None
    return HourLine(
        hour.start, hour.muxed, hour.failed, format_megabytes(hour.bytes) if hour.bytes else "0", backlog, oldest
    )


def _throughput_chart(hours: Sequence[HourCounts], frame: ChartFrame, muxed: int, failed: int) -> str:
    best = max(hours, key=lambda one: one.muxed)
    peak = f", most of them ({best.muxed}) from {format_time(best.start)} UTC on" if muxed else ""
    told = f"{muxed} muxed files{peak}; {failed} that failed and are not done yet."
    stack = (
        ChartSeries("done", tuple(one.muxed for one in hours)),
        ChartSeries("failed", tuple(one.failed for one in hours)),
    )
    return charts.bar_chart("throughput", "Recordings finished, by hour", told, frame, stack)


def _backlog_chart(samples: Sequence[BacklogSample], frame: ChartFrame, most: int) -> str:
    told = f"At most {most} at a time; {_backlog_size(samples[-1])} now." if samples else "No numbers yet."
    running = max_per_step([(one.at, float(one.running + one.queued)) for one in samples], frame)
    waiting = max_per_step([(one.at, float(one.waiting)) for one in samples], frame)
    stack = (ChartSeries("held", running), ChartSeries("waiting", waiting))
    top = charts.round_axis_top(
        max((above + below for above, below in zip(_known_values(running), _known_values(waiting), strict=True)), default=0)
    )
    return charts.area_chart("backlog", "Backlog", told, frame, stack, top)


def _age_chart(samples: Sequence[BacklogSample], frame: ChartFrame) -> str:
    ages = max_per_step([(one.at, _oldest_age(one)) for one in samples], frame)
    told = (
        f"At most {format_span(max(_known_values(ages), default=0))}; {format_span(_oldest_age(samples[-1]))} now."
        if samples
        else "No numbers yet."
    )
    top = charts.round_axis_seconds(max(_known_values(ages), default=0))
    return charts.area_chart("age", "Age of the oldest call", told, frame, (ChartSeries("age", ages),), top, format_span)


def max_per_step(numbers: Sequence[tuple[float, float]], frame: ChartFrame) -> tuple[float | None, ...]:
    """Given numbers at moments, return the largest of each part of the time; None where there is none."""
    found: list[float | None] = [None] * round((frame.end - frame.begin) / STEP_SECONDS)
    for at, value in numbers:
        index = int((at - frame.begin) // STEP_SECONDS)
        if 0 <= index < len(found):
            found[index] = max(value, found[index] or 0.0)
    return tuple(found)


def _known_values(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _backlog_size(sample: BacklogSample) -> int:
    return sample.running + sample.queued + sample.waiting


def _oldest_age(sample: BacklogSample) -> float:
    return max(0.0, sample.at - sample.oldest_open) if sample.oldest_open is not None else 0.0
