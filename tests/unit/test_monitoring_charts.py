"""The charts of the status page, read as XML."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from muxer.journal.journal import BacklogSample
from muxer.monitoring import charts
from muxer.monitoring.charts import (
    HEIGHT,
    ChartFrame,
    ChartSeries,
    area_chart,
    bar_chart,
    round_axis_seconds,
    round_axis_top,
)
from muxer.monitoring.history_charts import STEP_SECONDS, create_charts, max_per_step
from muxer.monitoring.svg import svg_text
from muxer.status.formatting import format_span
from tests.support.status_views import HOUR, NOW, muxer_view

FRAME = ChartFrame(12 * HOUR, 36 * HOUR)
PLOT = HEIGHT - charts.TOP - charts.FOOT


def parse_svg(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


@pytest.mark.parametrize(
    ("maximum", "top"), [(0, 2), (1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 20), (61, 80), (125, 150), (1000, 1000)]
)
def test_the_axis_ends_at_a_round_number(maximum: float, top: float) -> None:
    assert round_axis_top(maximum) == top


@pytest.mark.parametrize(("maximum", "top"), [(0, 60), (61, 300), (3601, 7200), (90_000, 172_800), (700_000, 1_209_600)])
def test_an_axis_of_time_ends_at_a_usual_span(maximum: float, top: float) -> None:
    assert round_axis_seconds(maximum) == top


def test_bars_have_the_height_of_their_numbers_and_are_stacked() -> None:
    svg = parse_svg(
        bar_chart("a", "Title", "Words", FRAME, (ChartSeries("done", (0, 10, 5)), ChartSeries("failed", (0, 10, 0))))
    )
    found = {
        (element.get("class"), element.get("x")): (float(element.get("y")), float(element.get("height")))
        for element in svg.iter("rect")
    }
    low, full = HEIGHT - charts.FOOT, {("done", "37.333%"), ("failed", "37.333%"), ("done", "70.667%")}
    assert found.keys() == full
    assert found["done", "37.333%"] == (low - PLOT / 2, PLOT / 2)
    assert found["failed", "37.333%"] == (charts.TOP, PLOT / 2)
    assert found["done", "70.667%"] == (low - PLOT / 4, pytest.approx(PLOT / 4, abs=0.06))


def test_a_chart_has_a_text_for_screen_readers_and_labelled_axes() -> None:
    svg = parse_svg(bar_chart("a", 'A "title" <', "Words & more", FRAME, (ChartSeries("done", (7.0,)),)))
    assert (svg.get("role"), svg.find("title").text, svg.find("desc").text) == ("img", 'A "title" <', "Words & more")
    assert (svg.get("aria-labelledby"), svg.get("aria-describedby")) == (
        svg.find("title").get("id"),
        svg.find("desc").get("id"),
    )
    words = [element.text for element in svg.iter("text")]
    assert words == ["0", "4", "8", "12:00", "18:00", "00:00", "06:00", "12:00"]


def test_attributes_and_texts_are_escaped() -> None:
    svg = parse_svg(svg_text('<b> & "', x="\"><script> & '"))
    assert (svg.text, svg.get("x")) == ('<b> & "', "\"><script> & '")


def test_areas_leave_gaps_for_unknown_values() -> None:
    svg = parse_svg(
        area_chart("a", "Title", "Words", FRAME, (ChartSeries("age", (60.0, None, 120.0, 120.0)),), 120.0, format_span)
    )
    lines = [element.get("d") for element in svg.iter("path") if element.get("class") == "age line"]
    assert sorted(lines) == [f"M0,{PLOT / 2} 1,{PLOT / 2}", "M2,0.0 4,0.0"]  # type: ignore[type-var]
    assert [item.text for item in svg.iter("text")][:3] == ["0 s", "1 min", "2 min"]


def test_a_chart_without_numbers_is_empty() -> None:
    svg = parse_svg(area_chart("a", "Title", "Words", FRAME, (ChartSeries("age", (None,) * 4),), 60.0))
    assert not list(svg.iter("path"))


def test_samples_are_merged_into_steps_of_ten_minutes() -> None:
    found = max_per_step(
        [(0.0, 1.0), (9.0, 5.0), (STEP_SECONDS - 1, 3.0), (2 * STEP_SECONDS, 2.0), (10 * STEP_SECONDS, 9.0)],
        ChartFrame(0, 4 * STEP_SECONDS),
    )
    assert found == (5.0, None, 2.0, None)


def test_the_day_sums_its_hours_and_samples() -> None:
    samples = (BacklogSample(int(NOW) - 3700, 1, 2, 3, NOW - 3700 - 7200), BacklogSample(int(NOW), 0, 4, 0, None))
    day = create_charts(muxer_view(samples=samples))
    assert (day.muxed, day.failed, day.most) == (sum(range(25)), 9, 6)
    newest, before, *rest = day.lines
    assert (newest.muxed, newest.failed, newest.backlog, newest.oldest) == (24, 1, 4, "0 s")
    assert (before.muxed, before.failed, before.backlog, before.oldest) == (23, 0, 6, "2 h")
    assert {(item.backlog, item.oldest) for item in rest} == {(None, None)}
    assert [line.start for line in day.lines] == sorted((one.start for one in day.lines), reverse=True)
    assert re.search(r"300 muxed files, most of them \(24\) in the hour from 01:00 UTC; 9 failed", day.charts[0][1])


def test_a_muxer_that_has_just_started_has_charts() -> None:
    day = create_charts(muxer_view(samples=(), hours=muxer_view().hours[-1:]))
    assert day.most == 0
    assert all(parse_svg(svg) is not None for _, svg in day.charts)
