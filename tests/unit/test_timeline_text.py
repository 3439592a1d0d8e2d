"""Drawing a timeline in characters."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxer.commands._shared.timeline_text import MIN_CELLS, StyledLine, draw_timeline
from muxer.status.timeline_view import read_timeline

FACTS = {
    "length": 40.0,
    "screens": [
        {"name": "a.mp4", "start": -10.0, "length": 20.0},
        {"name": "b.mp4", "start": 8.0, "length": 12.0},
    ],
    "pieces": [
        {"begin": 0.0, "end": 2.0, "screen": 0, "offset": 10.0, "reason": "starts between keyframes"},
        {"begin": 2.0, "end": 8.0, "screen": 0, "offset": 12.0, "reason": None},
        {"begin": 8.0, "end": 20.0, "screen": 1, "offset": 0.0, "reason": None},
        {"begin": 20.0, "end": 40.0, "screen": None, "offset": 0.0, "reason": None},
    ],
}


def draw(facts: dict[str, Any], width: int, **how: Any) -> list[StyledLine]:
    timeline = read_timeline(facts)
    assert timeline is not None
    return draw_timeline(timeline, width, **how)


def draw_lines(facts: dict[str, Any], width: int = 59, **how: Any) -> list[str]:
    return ["".join(text for text, _ in line).rstrip() for line in draw(facts, width, **{"unicode": False, **how})]


def test_the_whole_drawing() -> None:
    assert draw_lines(FACTS) == [
        "                  0:00           0:15           0:30",
        "                  |              |              |",
        "audio             ----------------------------------------",
        "1 a.mp4 xxxxxxxxxx##======xx",
        "2 b.mp4                   ============",
        "result            ##==================....................",
        "overlap                   !!",
        "        - audio  = copied  # re-encoded  . padding, black  x not shown  ! screen files overlap",
    ]


def test_paused_spans_are_drawn_within_the_padding() -> None:
    lines = draw_lines({**FACTS, "paused": [{"begin": 25.0, "end": 30.0}]})
    assert "result            ##==================.....ooooo.........." in lines
    assert "o paused, black" in lines[-1]


def test_the_scale_marks_are_at_their_times() -> None:
    times, marks, audio, *_ = draw_lines(FACTS)
    assert times.index("0:00") == marks.index("|", times.index("0:00")) == audio.index("-")


def test_a_piece_shorter_than_a_cell_is_visible() -> None:
    pieces = [
        {"begin": 0.0, "end": 1800.0, "screen": 0, "offset": 0.0, "reason": None},
        {"begin": 1800.0, "end": 1800.1, "screen": None, "offset": 0.0, "reason": None},
        {"begin": 1800.1, "end": 3600.0, "screen": 0, "offset": 1800.1, "reason": None},
    ]
    facts = {"length": 3600.0, "screens": [{"name": "a", "start": 0.0, "length": 3600.0}], "pieces": pieces}
    [result] = [line for line in draw_lines(facts) if line.startswith("result")]
    assert result.count(".") == 1


def test_an_assumed_timeline_does_not_show_what_is_copied() -> None:
    lines = draw_lines(FACTS, assumed=True)
    assert "+ shown" in lines[-1] and "copied" not in lines[-1]


def test_a_file_far_outside_the_audio_leaves_the_audio_readable() -> None:
    facts = {"length": 10.0, "screens": [{"name": "a", "start": -1e6, "length": 1e6 + 5}], "pieces": []}
    [audio] = [line for line in draw_lines(facts) if line.startswith("audio")]
    assert audio.count("-") > 20


def test_the_drawing_in_unicode_has_colours() -> None:
    spans = [span for line in draw(FACTS, 59, unicode=True) for span in line]
    assert ("▒▒", "yellow") in spans and ("▲▲", "magenta") in spans


@pytest.mark.parametrize("name", ["\x1b[2Jevil\n", "naïve…", "x" * 300])
def test_names_cannot_control_the_terminal_and_keep_their_column(name: str) -> None:
    facts = {**FACTS, "screens": [{**FACTS["screens"][0], "name": name}, FACTS["screens"][1]]}  # type: ignore[index]
    lines = draw_lines(facts, 100)
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert len({line.index(sign) for line in lines if (sign := "--") in line and line.startswith("audio")}) == 1


times = st.floats(-1e5, 1e5).map(lambda item: round(item, 3))
lengths = st.floats(0.001, 1e5).map(lambda item: round(item, 3))


@given(lengths, st.lists(st.tuples(times, lengths), max_size=5), st.integers(40, 200), st.booleans())
def test_no_line_is_longer_than_the_terminal(
    length: float, screens: list[tuple[float, float]], width: int, unicode: bool
) -> None:
    screen_facts = [{"name": f"screen-{start}", "start": start, "length": long} for start, long in screens]
    pieces = [{"begin": 0.0, "end": length, "screen": None, "offset": 0.0, "reason": None}]
    facts = {"length": length, "screens": screen_facts, "pieces": pieces}
    *lines, _legend = draw_lines(facts, width, unicode=unicode)
    assert max(map(len, lines)) <= width
    assert max(map(len, lines)) >= MIN_CELLS
