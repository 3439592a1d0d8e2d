"""The recordings of a day: start times and lengths of calls, and when their screen files are available."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

HOUR, DAY = 3600.0, 86_400.0
# The share of the day's calls that begins in each hour, in per mille: a contact centre that is open round the clock and has
# its busiest hour, a tenth of the day, from ten to eleven.
HOURLY_PROFILE = (5, 4, 3, 3, 4, 7, 15, 35, 65, 90, 100, 95, 80, 80, 85, 85, 75, 60, 40, 25, 18, 12, 8, 6)
# Lengths are log-normal: half of the calls are shorter than 200 s, and the mean is 300 s.
MEAN_SECONDS, SPREAD, LONGEST = 300.0, 0.9, 7200.0
# The seconds from the end of a call until its screen file is in RWS.
UPLOAD_SECONDS = (30.0, 150.0)


@dataclass(frozen=True)
class Day:
    """The recordings of a day in the order in which they end: seconds since midnight at which each begins, ends and is
    ``ready``, with its screen file in RWS."""

    start: Sequence[float]
    end: Sequence[float]
    ready: Sequence[float]

    def __len__(self) -> int:
        return len(self.start)

    def call_seconds(self, recording: int) -> float:
        """Return the length of a call."""
        return self.end[recording] - self.start[recording]


def generate_day(count: int, seed: int = 1, profile: Sequence[float] = HOURLY_PROFILE) -> Day:
    """Return a day with `count` recordings; the same seed gives the same day."""
    chance = random.Random(seed)
    hours = list(accumulate(profile))
    begins = (HOUR * (one + chance.random()) for one in chance.choices(range(len(hours)), cum_weights=hours, k=count))
    calls = sorted((begin + _draw_length(chance), begin) for begin in begins)
    ends, starts = (array("d", column) for column in zip(*calls, strict=True))
    return Day(starts, ends, array("d", (end + chance.uniform(*UPLOAD_SECONDS) for end in ends)))


def _draw_length(chance: random.Random) -> float:
    middle = math.log(MEAN_SECONDS) - SPREAD**2 / 2
    return min(LONGEST, chance.lognormvariate(middle, SPREAD))
