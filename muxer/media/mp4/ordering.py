"""Sort numbers, without a copy where they are sorted already: a recording of hours has a hundred thousand frames. Pure."""

from __future__ import annotations

from array import array
from itertools import islice
from operator import lt


def is_increasing(values: array[int]) -> bool:
    """Return whether each value is greater than the one before it."""
    return all(map(lt, values, islice(values, 1, None)))


def sorted_copy(values: array[int]) -> array[int]:
    """Return the values sorted; the same array when they are increasing already."""
    return values if is_increasing(values) else array(values.typecode, sorted(values))
