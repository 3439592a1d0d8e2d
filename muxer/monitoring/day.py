"""The last 24 hours: three charts, and one table with their numbers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from muxer.journal import Sample
from muxer.monitoring import charts
from muxer.monitoring.charts import HOUR, Frame, Series
from muxer.monitoring.view import Hour, View
from muxer.monitoring.words import clock, megabytes, span

# A part of the time this long is one step of the charts of samples; muxers write one a minute, some of them are read.
STEP = 600


@dataclass(frozen=True)
class Line:
    """A row of the table: an hour, what ended in it, and the most that was there to do; None where nobody knows."""

    start: float
    muxed: int
    failed: int
    written: str
    backlog: int | None
    oldest: str | None


@dataclass(frozen=True)
class Day:
    """The charts and the table; ``muxed`` and ``failed`` count all hours, ``most`` is the largest backlog."""

    muxed: int
    failed: int
    most: int
    charts: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]


def day(view: View) -> Day:
    """Given a view, return what it tells of the last day: its hours, and the running one."""
    frame = Frame(view.hours[0].start, view.hours[-1].start + HOUR)
    lines = tuple(_line(hour, view.samples) for hour in reversed(view.hours))
    muxed, failed = sum(one.muxed for one in view.hours), sum(one.failed for one in view.hours)
    most = max((backlog for one in view.samples if (backlog := _backlog(one)) is not None), default=0)
    drawn = (
        ("Recordings finished, by hour", _throughput(view.hours, frame, muxed, failed)),
        ("Backlog: waiting, queued and running", _backlog_chart(view.samples, frame, most)),
        ("Age of the oldest unmuxed call", _age_chart(view.samples, frame)),
    )
    return Day(muxed, failed, most, drawn, lines)


def _line(hour: Hour, samples: Sequence[Sample]) -> Line:
    here = [one for one in samples if hour.start <= one.at < hour.start + HOUR]
    oldest = span(max(map(_age, here))) if here else None
    backlog = max(map(_backlog, here)) if here else None
    return Line(hour.start, hour.muxed, hour.failed, megabytes(hour.bytes) if hour.bytes else "0", backlog, oldest)


def _throughput(hours: Sequence[Hour], frame: Frame, muxed: int, failed: int) -> str:
    best = max(hours, key=lambda one: one.muxed)
    peak = f", most of them ({best.muxed}) from {clock(best.start)} UTC on" if muxed else ""
    told = f"{muxed} muxed files{peak}; {failed} that failed and are not done yet."
    stack = (Series("done", tuple(one.muxed for one in hours)), Series("failed", tuple(one.failed for one in hours)))
    return charts.bars("throughput", "Recordings finished, by hour", told, frame, stack)


def _backlog_chart(samples: Sequence[Sample], frame: Frame, most: int) -> str:
    told = f"At most {most} at a time; {_backlog(samples[-1])} now." if samples else "No numbers yet."
    running = steps([(one.at, float(one.running + one.queued)) for one in samples], frame)
    waiting = steps([(one.at, float(one.waiting)) for one in samples], frame)
    stack = (Series("held", running), Series("waiting", waiting))
    top = charts.nice(
        max((above + below for above, below in zip(_known(running), _known(waiting), strict=True)), default=0)
    )
    return charts.area("backlog", "Backlog", told, frame, stack, top)


def _age_chart(samples: Sequence[Sample], frame: Frame) -> str:
    ages = steps([(one.at, _age(one)) for one in samples], frame)
    told = (
        f"At most {span(max(_known(ages), default=0))}; {span(_age(samples[-1]))} now."
        if samples
        else "No numbers yet."
    )
    top = charts.nice_span(max(_known(ages), default=0))
    return charts.area("age", "Age of the oldest call", told, frame, (Series("age", ages),), top, span)


def steps(numbers: Sequence[tuple[float, float]], frame: Frame) -> tuple[float | None, ...]:
    """Given numbers at moments, return the largest of each part of the time; None where there is none."""
    found: list[float | None] = [None] * round((frame.end - frame.begin) / STEP)
    for at, value in numbers:
        index = int((at - frame.begin) // STEP)
        if 0 <= index < len(found):
            found[index] = max(value, found[index] or 0.0)
    return tuple(found)


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _backlog(sample: Sample) -> int:
    return sample.running + sample.queued + sample.waiting


def _age(sample: Sample) -> float:
    return max(0.0, sample.at - sample.oldest_open) if sample.oldest_open is not None else 0.0
