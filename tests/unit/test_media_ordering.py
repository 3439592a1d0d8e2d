"""Sorting of numbers, without a copy when they are in order."""

from __future__ import annotations

from array import array

from hypothesis import example, given
from hypothesis import strategies as st

from muxer.media.mp4.ordering import is_increasing, sorted_copy

NUMBERS = st.lists(st.integers(-5, 5), max_size=6)


@given(NUMBERS)
@example([])
@example([1, 1])
def test_numbers_are_increasing_if_sorted_without_duplicates(numbers: list[int]) -> None:
    assert is_increasing(array("q", numbers)) == (sorted(set(numbers)) == numbers)


@given(NUMBERS)
def test_increasing_numbers_are_returned_uncopied_and_others_sorted_into_a_copy(numbers: list[int]) -> None:
    values = array("q", numbers)
    ordered = sorted_copy(values)
    assert list(ordered) == sorted(numbers)
    assert (ordered is values) == is_increasing(values)
    assert list(values) == numbers
