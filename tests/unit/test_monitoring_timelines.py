"""Timelines of muxed files: what the journal holds becomes words and a picture, read as XML."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest
from tests.support.views import chain, piece, screen

from muxer.monitoring.drawing import MOST_LANES_HEIGHT, STRIP_WIDTH, Axis, axis_of, draw, lanes, strip, ticks
from muxer.monitoring.timelines import Timeline, merged, overlap_words, read, screen_words, summary


def timeline(length: float, screens: list[dict], pieces: list[dict]) -> Timeline:
    made = read({"length": length, "screens": screens, "pieces": pieces})
    assert made is not None
    return made


def bars(svg: str, kind: str) -> list[tuple[float, float]]:
    """Return begin and end of the bars of a kind, in percent of the picture."""
    found = [one for one in ElementTree.fromstring(svg).iter("rect") if one.get("class") == kind]
    places = [(float(one.get("x").rstrip("%")), float(one.get("width").rstrip("%"))) for one in found]
    return [(round(x, 2), round(x + width, 2)) for x, width in places]


def words(svg: str) -> list[str]:
    return [one.text for one in ElementTree.fromstring(svg).iter("text")]


def told(made: Timeline) -> list[str]:
    return [screen_words(one, made) for one in made.screens]


WHOLE = timeline(20, [screen(0, 20)], [piece(0, 20, 0)])
# The audio begins in the middle of the first file, there is a gap, and the last file goes on after the audio.
GAPS = timeline(
    80,
    [screen(-10, 40), screen(50, 40)],
    [piece(0, 5, 0, 10, "cut"), piece(5, 30, 0, 15), piece(30, 50), piece(50, 80, 1)],
)
# Two files overlap by 10 seconds: the earlier one is cut off. Two overlap by one: they follow each other uncut.
CUT = timeline(100, [screen(0, 60), screen(50, 50)], [piece(0, 50, 0), piece(50, 100, 1)])
TOLERATED = timeline(100, [screen(0, 51), screen(50, 49)], [piece(0, 51, 0), piece(51, 100, 1)])


def test_a_file_that_covers_the_audio_is_one_bar_in_each_row() -> None:
    svg = draw(WHOLE, "a")
    assert bars(svg, "audio") == bars(svg, "screen") == bars(svg, "copy") == [(0, 100)]
    assert not bars(svg, "cut") + bars(svg, "overlap") + bars(svg, "padding") + bars(svg, "encode")
    assert words(svg) == ["1", "1", "0:00", "0:05", "0:10", "0:15", "0:20", "Audio", "Screens", "Result"]
    assert told(WHOLE) == ["shown whole"]


def test_what_lies_outside_the_audio_is_shown_as_cut_off() -> None:
    svg = draw(GAPS, "a")
    assert axis_of(GAPS) == Axis(-10, 90)
    assert bars(svg, "audio") == [(10, 90)]
    assert bars(svg, "screen") == [(0, 40), (60, 100)]
    assert bars(svg, "cut") == [(0, 10), (90, 100)]
    assert (bars(svg, "encode"), bars(svg, "copy"), bars(svg, "padding")) == (
        [(10, 15)],
        [(15, 40), (60, 90)],
        [(40, 60)],
    )
    assert told(GAPS) == ["cut off: 10.0 s at its beginning", "cut off: 10.0 s at its end"]
    assert summary(GAPS) == "1:20 min of audio with 2 screen files: 55.0 s copied, 5.0 s re-encoded, 20.0 s padding."


def test_an_overlap_that_cuts_is_told_from_one_that_is_tolerated() -> None:
    assert bars(draw(CUT, "a"), "overlap") == [(50, 60)]
    assert bars(draw(CUT, "a"), "cut") == [(50, 60)]
    assert words(draw(CUT, "a"))[:4] == ["1", "2", "1", "2"]
    assert draw(CUT, "a").index('class="cut"') < draw(CUT, "a").index('class="on-screen">1<')
    assert [overlap_words(*one) for one in CUT.overlaps] == [
        "Screen 1 and screen 2 overlap by 10.0 s at 0:50.0: screen 1 is cut off there."
    ]
    assert bars(draw(TOLERATED, "a"), "overlap") == [(50, 51)]
    assert not bars(draw(TOLERATED, "a"), "cut")
    assert [overlap_words(*one) for one in TOLERATED.overlaps] == [
        "Screen 1 and screen 2 overlap by 1.0 s at 0:50.0: shown one after the other, uncut."
    ]


def test_a_file_of_which_the_middle_is_covered_is_cut_there() -> None:
    made = timeline(100, [screen(0, 100), screen(40, 20)], [piece(0, 40, 0), piece(40, 60, 1), piece(60, 100)])
    assert told(made) == ["cut off: 1:00 min at its end", "shown whole"]
    resumed = timeline(
        100, [screen(0, 100), screen(40, 20)], [piece(0, 40, 0), piece(40, 60, 1), piece(60, 100, 0, 60)]
    )
    assert told(resumed) == ["cut off: 20.0 s at 0:40.0", "shown whole"]


def test_a_file_far_away_does_not_press_the_audio_together() -> None:
    made = timeline(100, [screen(0, 100), screen(86_400, 50)], [piece(0, 100, 0)])
    assert axis_of(made) == Axis(0, 130)
    assert told(made)[1] == "not shown: it lies outside the audio"
    assert bars(draw(made, "a"), "screen")[1] == (100, 100)
    assert axis_of(timeline(100, [screen(0, 100), screen(-86_400, 50)], [piece(0, 100, 0)])) == Axis(-30, 100)


@pytest.mark.parametrize("count", [1, 2, 200])
def test_any_number_of_files_has_its_bars_in_order(count: int) -> None:
    made = read(chain(count))
    svg = draw(made, "a")
    assert len(bars(svg, "screen")) == len(bars(svg, "copy")) == len(bars(svg, "encode")) == count
    assert len(lanes(made.screens)) == 1
    result = sorted(bars(svg, "copy") + bars(svg, "encode") + bars(svg, "padding"))
    assert all(abs(end - begin) < 0.02 for (_, end), (begin, _) in pairwise(result))
    assert result[-1][1] == 100


def test_two_hundred_files_at_a_time_stay_in_the_picture() -> None:
    made = timeline(100, [screen(number / 1000, 90) for number in range(200)], [piece(0, 90, 199), piece(90, 100)])
    svg = ElementTree.fromstring(draw(made, "a"))
    assert len(lanes(made.screens)) == 200
    assert float(svg.get("height")) < MOST_LANES_HEIGHT * 4
    lowest = max(float(one.get("y")) + float(one.get("height")) for one in svg.iter("rect"))
    assert lowest < float(svg.get("height"))
    assert all(0 <= begin <= end <= 100 for begin, end in bars(draw(made, "a"), "screen"))


def test_rows_are_as_few_as_can_be_and_nothing_lies_over_another() -> None:
    made = timeline(100, [screen(0, 60), screen(10, 20), screen(30, 30), screen(60, 40)], [piece(0, 100, 0)])
    assert [[one.number for one in row] for row in lanes(made.screens)] == [[1, 4], [2, 3]]


def test_ticks_are_round_and_few() -> None:
    assert ticks(Axis(-3, 32)) == [0, 10, 20, 30]
    assert ticks(Axis(-130, 3600)) == [0, 900, 1800, 2700, 3600]
    assert ticks(Axis(0, 2.4)) == [0, 1, 2]
    assert len(ticks(Axis(0, 7 * 86_400))) <= 7


def test_every_second_tick_may_give_way_but_not_the_start() -> None:
    texts = [one for one in ElementTree.fromstring(draw(GAPS, "a")).iter("text") if ":" in one.text]
    assert [(one.text, one.get("class")) for one in texts[:3]] == [("0:00", None), ("0:30", "between"), ("1:00", None)]


def test_a_picture_can_be_heard() -> None:
    svg = ElementTree.fromstring(draw(GAPS, "x"))
    assert (svg.get("role"), svg.find("title").text, svg.find("desc").text) == ("img", "Timeline", summary(GAPS))
    assert "−0:10.0 to 0:30.0" in svg.find(".//rect[@class='screen']/title").text


def test_the_small_picture_has_a_fixed_size_and_shows_what_most_is() -> None:
    assert bars_of_strip(GAPS) == [("encode", 8), ("copy", 37), ("padding", 30), ("copy", 45)]
    many = bars_of_strip(read(chain(200)))
    assert sum(width for _, width in many) == STRIP_WIDTH


def bars_of_strip(made: Timeline) -> list[tuple[str, int]]:
    return [(one.get("class"), int(one.get("width"))) for one in ElementTree.fromstring(strip(made)).iter("rect")]


def test_pieces_of_the_same_kind_are_told_as_one() -> None:
    made = timeline(30, [screen(0, 30)], [piece(0, 10, 0), piece(10, 20, 0, 10), piece(20, 30, 0, 20, "cut")])
    assert [(one.begin, one.end, one.kind, one.reason) for one in merged(made.parts)] == [
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
def test_what_cannot_be_read_is_no_timeline(facts: dict | None) -> None:
    assert read(facts) is None


def test_paused_spans_are_parts_of_their_own_within_the_padding() -> None:
    pieces = [piece(0, 10, 0), piece(10, 15), piece(15, 30, 0, 15), piece(30, 40)]
    facts = {"length": 40, "screens": [screen(0, 30)], "pieces": pieces}
    made = read({**facts, "paused": [{"begin": 10, "end": 15}, {"begin": 28, "end": 32}, {"begin": 35, "end": 36}]})
    assert made is not None
    assert [(one.begin, one.end, one.kind) for one in made.parts] == [
        (0, 10, "copy"),
        (10, 15, "paused"),
        (15, 30, "copy"),
        (30, 32, "paused"),
        (32, 35, "padding"),
        (35, 36, "paused"),
        (36, 40, "padding"),
    ]
    assert "7.0 s padding, 8.0 s paused" in summary(made)
    assert bars(draw(made, "t"), "paused") == [(25.0, 37.5), (75.0, 80.0), (87.5, 90.0)]
    assert ("paused", 15) in bars_of_strip(made)
