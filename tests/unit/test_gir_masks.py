"""Paused spans of a call, from its masks (gir-api, section 3); unclear masks count as paused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxer.gir.masks import MAX_MASKS, read_pauses
from muxer.gir.models import MediaFile

START = datetime(2024, 1, 2, 10, 0, 0, tzinfo=UTC)
SECOND = 1_000_000
Spans = list[tuple[float, float | None]]


def mask_json(at: float, kind: str) -> dict[str, str]:
    return {"time": (START + timedelta(seconds=at)).isoformat(), "type": kind}


def media_with_masks(masks: object, **fields: Any) -> MediaFile:
    known = {"mediaId": "a.mp3", "type": "audio/mp3", "startTime": START.isoformat(), "masks": masks}
    return MediaFile.from_json({**known, **fields})


def pause_spans(masks: object) -> Spans:
    return [
        (begin / SECOND, None if end is None else end / SECOND) for begin, end in read_pauses(media_with_masks(masks)).spans
    ]


def pause_masks(*times: float) -> list[dict[str, str]]:
    return [mask_json(at, "paused") for at in times]


def resume_masks(*times: float) -> list[dict[str, str]]:
    return [mask_json(at, "resume") for at in times]


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ([*pause_masks(5), *resume_masks(8)], [(5, 8)]),
        ([*pause_masks(5, 20), *resume_masks(8, 21)], [(5, 8), (20, 21)]),
        ([*resume_masks(21, 8), *pause_masks(20, 5)], [(5, 8), (20, 21)]),
        ([*pause_masks(5, 6), *resume_masks(8, 10)], [(5, 10)]),
        ([*pause_masks(5, 8), *resume_masks(8, 10)], [(5, 10)]),
        ([*pause_masks(5), *pause_masks(5), *resume_masks(8), *resume_masks(8)], [(5, 8)]),
        ([*pause_masks(5.25)], [(5.25, None)]),
        ([*pause_masks(2, 5), *resume_masks(3)], [(2, 3), (5, None)]),
        ([*pause_masks(5, 6), *resume_masks(8)], [(5, 8)]),
        ([*pause_masks(5, 6, 9), *resume_masks(8, 10)], [(5, 10)]),
        ([*pause_masks(5, 6, 9), *resume_masks(8)], [(5, None)]),
        ([*pause_masks(-9, 40), *resume_masks(2, 99)], [(0, 2), (40, 99)]),
        ([*pause_masks(-9), *resume_masks(-2)], []),
        ([*pause_masks(-9)], [(0, None)]),
        ([*pause_masks(5), *resume_masks(5)], []),
        ([*pause_masks(5), *resume_masks(5.000001)], [(5, 5.000001)]),
        ([], []),
        (None, []),
        ("", []),
        ({}, []),
        (mask_json(5, "paused"), [(5, None)]),
    ],
)
def test_pauses_and_resumes_are_paired_whatever_their_order(masks: object, expected: Spans) -> None:
    assert pause_spans(masks) == expected
    assert read_pauses(media_with_masks(masks)).problems == ()


@pytest.mark.parametrize(
    ("masks", "expected", "problem"),
    [
        (resume_masks(8), [(0, 8)], "a resume without a pause at 8 s"),
        ([*pause_masks(5), *resume_masks(8, 9.5)], [(5, 8)], "a resume without a pause at 9.5 s"),
        ([*pause_masks(5), *resume_masks(8, 30, 31)], [(5, 8)], "a resume without a pause at 30 s, 31 s"),
        ([*resume_masks(3, 4), *pause_masks(6), *resume_masks(8)], [(0, 3), (6, 8)], "a resume without a pause at 3 s, 4 s"),
        ([*pause_masks(5), 7, {"time": "soon", "type": "resume"}], [(5, None)], "2 of 3 masks have no usable time or type"),
        (
            [mask_json(4, "beep"), mask_json(5, ""), {"time": None, "type": 3}],
            [],
            "3 of 3 masks have no usable time or type",
        ),
        ("paused", [], "1 of 1 masks have no usable time or type"),
        (pause_masks(*range(MAX_MASKS + 1)), [(0, None)], f"a.mp3 has {MAX_MASKS + 1} masks, more than {MAX_MASKS}"),
    ],
)
def test_unclear_masks_are_treated_as_paused_and_reported(masks: object, expected: Spans, problem: str) -> None:
    assert pause_spans(masks) == expected
    [reported] = read_pauses(media_with_masks(masks)).problems
    assert problem in reported


@pytest.mark.parametrize("kinds", [("PAUSED", "RESUME"), ("Paused", " resume "), ("pause", "Resumed")])
def test_types_are_read_in_any_case(kinds: tuple[str, str]) -> None:
    assert pause_spans([mask_json(5, kinds[0]), mask_json(8, kinds[1])]) == [(5, 8)]


def test_times_may_have_any_offset() -> None:
    east = (START + timedelta(seconds=5)).astimezone(timezone(timedelta(hours=2))).isoformat()
    assert pause_spans([{"time": east, "type": "paused"}, *resume_masks(8)]) == [(5, 8)]


def test_without_a_start_of_the_file_there_are_no_spans() -> None:
    assert read_pauses(media_with_masks(pause_masks(5), startTime="soon")).spans == ()


@given(st.lists(st.tuples(st.integers(-10, 40), st.booleans()), max_size=12), st.randoms(use_true_random=False))
def test_every_time_between_a_pause_and_its_resume_is_paused(entries: Sequence[tuple[int, bool]], random: Any) -> None:
    masks = [mask_json(at, "resume" if is_resume else "paused") for at, is_resume in entries]
    found = pause_spans(masks)
    random.shuffle(masks)
    assert pause_spans(masks) == found
    assert all(one[1] is not None and one[1] < other[0] for one, other in pairwise(found))
    distinct = set(entries)
    for time in range(41):
        pauses = sum(1 for at, is_resume in distinct if at <= time and not is_resume)
        resumes = sum(1 for at, is_resume in distinct if at <= time and is_resume)
        went_on = distinct and time >= max(distinct)[0] and max(distinct)[1]
        if pauses > resumes and not went_on:
            assert any(begin <= time and (end is None or time < end) for begin, end in found)
        if not any(at > time and is_resume for at, is_resume in distinct) and not pauses:
            assert not any(begin <= time and (end is None or time < end) for begin, end in found)
