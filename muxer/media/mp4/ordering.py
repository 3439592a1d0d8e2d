"""Numbers in order, without a copy where they are so already: a recording of hours has a hundred thousand frames. Pure."""

from __future__ import annotations

from array import array
from itertools import islice
from operator import lt


def is_increasing(values: array[int]) -> bool:
    """Whether each of some numbers is greater than the one before it."""
    return all(map(lt, values, islice(values, 1, None)))


def sorted_copy(values: array[int]) -> array[int]:
    """Given numbers, return them in order; the very same when they rise."""
    return values if is_increasing(values) else array(values.typecode, sorted(values))
