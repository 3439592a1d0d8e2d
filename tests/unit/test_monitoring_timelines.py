"""Timelines of muxed files: view model, texts and SVG drawing (read as XML)."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from muxer.monitoring.timeline_svg import (
    MAX_AXIS_TICKS,
    MAX_LANES_HEIGHT,
    STRIP_WIDTH,
    arrange_lanes,
    render_strip,
    render_timeline,
)
from muxer.status.timeline_view import (
    TimelineAxis,
    TimelineView,
    create_axis,
    merge_parts,
    overlap_text,
    read_timeline,
    screen_text,
    timeline_summary,
)
from tests.support.status_views import piece_view, screen_view, timeline_chain


def parse_timeline(length: float, screens: list[dict], pieces: list[dict]) -> TimelineView:
    timeline = read_timeline({"length": length, "screens": screens, "pieces": pieces})
    assert timeline is not None
    return timeline


def bar_spans(svg: str, kind: str) -> list[tuple[float, float]]:
    """Return the start and end of the bars of a kind, in percent of the drawing."""
    found = [element for element in ElementTree.fromstring(svg).iter("rect") if element.get("class") == kind]
    bars = [(float(item.get("x").rstrip("%")), float(item.get("width").rstrip("%"))) for item in found]
    return [(round(x, 2), round(x + width, 2)) for x, width in bars]


def svg_texts(svg: str) -> list[str]:
    return [element.text for element in ElementTree.fromstring(svg).iter("text")]  # type: ignore[misc]


def screen_texts(timeline: TimelineView) -> list[str]:
    return [screen_text(screen, timeline) for screen in timeline.screens]


WHOLE_TIMELINE = parse_timeline(20, [screen_view(0, 20)], [piece_view(0, 20, 0)])
# The audio starts in the middle of the first file, then there is a gap, and the last file ends after the audio.
GAPS_TIMELINE = parse_timeline(
    80,
    [screen_view(-10, 40), screen_view(50, 40)],
    [piece_view(0, 5, 0, 10, "cut"), piece_view(5, 30, 0, 15), piece_view(30, 50), piece_view(50, 80, 1)],
)
# An overlap of 10 seconds: the earlier file is cut off. An overlap of one second: neither file is cut.
CUT_TIMELINE = parse_timeline(100, [screen_view(0, 60), screen_view(50, 50)], [piece_view(0, 50, 0), piece_view(50, 100, 1)])
TOLERATED_TIMELINE = parse_timeline(
    100, [screen_view(0, 51), screen_view(50, 49)], [piece_view(0, 51, 0), piece_view(51, 100, 1)]
)


def test_a_file_that_covers_the_audio_is_one_bar_in_each_row() -> None:
    svg = render_timeline(WHOLE_TIMELINE, "a")
    assert bar_spans(svg, "audio") == bar_spans(svg, "screen") == bar_spans(svg, "copy") == [(0, 100)]
    assert not bar_spans(svg, "cut") + bar_spans(svg, "overlap") + bar_spans(svg, "padding") + bar_spans(svg, "encode")
    assert svg_texts(svg) == ["1", "1", "0:00", "0:05", "0:10", "0:15", "0:20", "Audio", "Screens", "Result"]
    assert screen_texts(WHOLE_TIMELINE) == ["shown whole"]


def test_parts_outside_the_audio_are_shown_as_cut_off() -> None:
    svg = render_timeline(GAPS_TIMELINE, "a")
    assert create_axis(GAPS_TIMELINE) == TimelineAxis(-10, 90)
    assert bar_spans(svg, "audio") == [(10, 90)]
    assert bar_spans(svg, "screen") == [(0, 40), (60, 100)]
    assert bar_spans(svg, "cut") == [(0, 10), (90, 100)]
    assert (bar_spans(svg, "encode"), bar_spans(svg, "copy"), bar_spans(svg, "padding")) == (
        [(10, 15)],
        [(15, 40), (60, 90)],
        [(40, 60)],
    )
    assert screen_texts(GAPS_TIMELINE) == ["cut off: 10.0 s at its beginning", "cut off: 10.0 s at its end"]
    assert (
        timeline_summary(GAPS_TIMELINE)
        == "1:20 min of audio with 2 screen files: 55.0 s copied, 5.0 s re-encoded, 20.0 s padding."
    )


def test_an_overlap_that_cuts_differs_from_a_tolerated_one() -> None:
    assert bar_spans(render_timeline(CUT_TIMELINE, "a"), "overlap") == [(50, 60)]
    assert bar_spans(render_timeline(CUT_TIMELINE, "a"), "cut") == [(50, 60)]
    assert svg_texts(render_timeline(CUT_TIMELINE, "a"))[:4] == ["1", "2", "1", "2"]
    assert render_timeline(CUT_TIMELINE, "a").index('class="cut"') < render_timeline(CUT_TIMELINE, "a").index(
        'class="on-screen">1<'
    )
    assert [overlap_text(*overlap) for overlap in CUT_TIMELINE.find_overlaps()] == [
        "Screen 1 and screen 2 overlap by 10.0 s at 0:50.0: screen 1 is cut off there."
    ]
    assert bar_spans(render_timeline(TOLERATED_TIMELINE, "a"), "overlap") == [(50, 51)]
    assert not bar_spans(render_timeline(TOLERATED_TIMELINE, "a"), "cut")
    assert [overlap_text(*item) for item in TOLERATED_TIMELINE.find_overlaps()] == [
        "Screen 1 and screen 2 overlap by 1.0 s at 0:50.0: shown one after the other, uncut."
    ]


def test_a_file_whose_middle_is_covered_is_cut_there() -> None:
    timeline = parse_timeline(
        100, [screen_view(0, 100), screen_view(40, 20)], [piece_view(0, 40, 0), piece_view(40, 60, 1), piece_view(60, 100)]
    )
    assert screen_texts(timeline) == ["cut off: 1:00 min at its end", "shown whole"]
    resumed = parse_timeline(
        100,
        [screen_view(0, 100), screen_view(40, 20)],
        [piece_view(0, 40, 0), piece_view(40, 60, 1), piece_view(60, 100, 0, 60)],
    )
    assert screen_texts(resumed) == ["cut off: 20.0 s at 0:40.0", "shown whole"]


def test_a_file_far_outside_the_audio_does_not_shrink_the_audio() -> None:
    timeline = parse_timeline(100, [screen_view(0, 100), screen_view(86_400, 50)], [piece_view(0, 100, 0)])
    assert create_axis(timeline) == TimelineAxis(0, 130)
    assert screen_texts(timeline)[1] == "not shown: it lies outside the audio"
    assert bar_spans(render_timeline(timeline, "a"), "screen")[1] == (100, 100)
    assert create_axis(
        parse_timeline(100, [screen_view(0, 100), screen_view(-86_400, 50)], [piece_view(0, 100, 0)])
    ) == TimelineAxis(-30, 100)


@pytest.mark.parametrize("count", [1, 2, 200])
def test_any_number_of_files_has_its_bars_in_order(count: int) -> None:
    timeline = read_timeline(timeline_chain(count))
    svg = render_timeline(timeline, "a")
    assert len(bar_spans(svg, "screen")) == len(bar_spans(svg, "copy")) == len(bar_spans(svg, "encode")) == count
    assert len(arrange_lanes(timeline.screens)) == 1
    result = sorted(bar_spans(svg, "copy") + bar_spans(svg, "encode") + bar_spans(svg, "padding"))
    assert all(abs(end - begin) < 0.02 for (_, end), (begin, _) in pairwise(result))
    assert result[-1][1] == 100


def test_two_hundred_overlapping_files_fit_into_the_drawing() -> None:
    timeline = parse_timeline(
        100, [screen_view(number / 1000, 90) for number in range(200)], [piece_view(0, 90, 199), piece_view(90, 100)]
    )
    svg = ElementTree.fromstring(render_timeline(timeline, "a"))
    assert len(arrange_lanes(timeline.screens)) == 200
    assert float(svg.get("height")) < MAX_LANES_HEIGHT * 4
    lowest = max(float(element.get("y")) + float(element.get("height")) for element in svg.iter("rect"))
    assert lowest < float(svg.get("height"))
    assert all(0 <= begin <= end <= 100 for begin, end in bar_spans(render_timeline(timeline, "a"), "screen"))


def test_rows_are_few_and_no_file_covers_another() -> None:
    timeline = parse_timeline(
        100, [screen_view(0, 60), screen_view(10, 20), screen_view(30, 30), screen_view(60, 40)], [piece_view(0, 100, 0)]
    )
    assert [[item.number for item in row] for row in arrange_lanes(timeline.screens)] == [[1, 4], [2, 3]]


def test_ticks_are_round_and_few() -> None:
    assert TimelineAxis(-3, 32).tick_times(MAX_AXIS_TICKS) == [0, 10, 20, 30]
    assert TimelineAxis(-130, 3600).tick_times(MAX_AXIS_TICKS) == [0, 900, 1800, 2700, 3600]
    assert TimelineAxis(0, 2.4).tick_times(MAX_AXIS_TICKS) == [0, 1, 2]
    assert len(TimelineAxis(0, 7 * 86_400).tick_times(MAX_AXIS_TICKS)) <= 7


def test_every_second_tick_may_be_hidden_but_not_the_start() -> None:
    texts = [
        element
        for element in ElementTree.fromstring(render_timeline(GAPS_TIMELINE, "a")).iter("text")
        if ":" in element.text  # type: ignore[operator]
    ]
    assert [(text.text, text.get("class")) for text in texts[:3]] == [("0:00", None), ("0:30", "between"), ("1:00", None)]


def test_a_drawing_has_a_text_for_screen_readers() -> None:
    svg = ElementTree.fromstring(render_timeline(GAPS_TIMELINE, "x"))
    assert (svg.get("role"), svg.find("title").text, svg.find("desc").text) == (
        "img",
        "Timeline",
        timeline_summary(GAPS_TIMELINE),
    )
    assert "−0:10.0 to 0:30.0" in svg.find(".//rect[@class='screen']/title").text  # type: ignore[operator]


def test_the_strip_has_a_fixed_size_and_shows_the_most_frequent_kind() -> None:
    assert bars_of_strip(GAPS_TIMELINE) == [("encode", 8), ("copy", 37), ("padding", 30), ("copy", 45)]
    many = bars_of_strip(read_timeline(timeline_chain(200)))
    assert sum(width for _, width in many) == STRIP_WIDTH


def bars_of_strip(timeline: TimelineView) -> list[tuple[str, int]]:
    return [
        (element.get("class"), int(element.get("width")))  # type: ignore[misc]
        for element in ElementTree.fromstring(render_strip(timeline)).iter("rect")
    ]


def test_neighbours_of_the_same_kind_are_merged() -> None:
    timeline = parse_timeline(
        30, [screen_view(0, 30)], [piece_view(0, 10, 0), piece_view(10, 20, 0, 10), piece_view(20, 30, 0, 20, "cut")]
    )
    assert [(part.begin, part.end, part.kind, part.reason) for part in merge_parts(timeline.parts)] == [
        (0, 20, "copy", ""),
        (20, 30, "encode", "cut"),
    ]


@pytest.mark.parametrize(
    "facts",
    [
        *(None, {}, {"length": 0, "screens": [], "pieces": []}, {"length": 5}),
        *({"length": 5, "screens": [{}], "pieces": []}, {"length": "5", "screens": [], "pieces": []}),
        {"length": 5, "screens": [], "pieces": [{"begin": 0, "other": 1}]},
    ],
)
def test_an_unreadable_timeline_is_ignored(facts: dict | None) -> None:
    assert read_timeline(facts) is None


def test_paused_spans_split_the_padding() -> None:
    pieces = [piece_view(0, 10, 0), piece_view(10, 15), piece_view(15, 30, 0, 15), piece_view(30, 40)]
    facts = {"length": 40, "screens": [screen_view(0, 30)], "pieces": pieces}
    timeline = read_timeline(
        {**facts, "paused": [{"begin": 10, "end": 15}, {"begin": 28, "end": 32}, {"begin": 35, "end": 36}]}
    )
    assert timeline is not None
    assert [(part.begin, part.end, part.kind) for part in timeline.parts] == [
        (0, 10, "copy"),
        (10, 15, "paused"),
        (15, 30, "copy"),
        (30, 32, "paused"),
        (32, 35, "padding"),
        (35, 36, "paused"),
        (36, 40, "padding"),
    ]
    assert "7.0 s padding, 8.0 s paused" in timeline_summary(timeline)
    assert bar_spans(render_timeline(timeline, "t"), "paused") == [(25.0, 37.5), (75.0, 80.0), (87.5, 90.0)]
    assert ("paused", 15) in bars_of_strip(timeline)
