"""Decides how far back each poll looks: the older a call, the more rarely it is read. Pure; times are monotonic seconds.

What arrives when its call is `d` old is found within the poll interval, or within a tenth of `d` if that is longer.
For that, a reach of `r` is read again after a twentieth of `r`: each call in it that the next shorter reach does not cover
is at least `r / 2` old.
"""

from __future__ import annotations

from dataclasses import dataclass

from muxer.config.schema import ProcessingOptions

# The promise: a call is read again after at most this part of its age.
AGE_PARTS = 10
# Each reach is this number of times as long as the one before (docs/developer/performance.md says why).
REACH_RATIO = 2
# A shorter reach saves nothing: the calls of the last hour are read at each poll.
MIN_REACH_SECONDS = 3600.0
MIN_PERIOD_SECONDS = 1.0


@dataclass(frozen=True)
class Reach:
    """A part of the window: it goes back `seconds` from the end of the window and is read again after `period` seconds."""

    seconds: float
    period: float


def plan_reaches(window: float, interval: float) -> tuple[Reach, ...]:
    """Return the reaches of a window, the shortest first, the whole one last; `window` and `interval` are its length and
    the poll interval in seconds."""
    first, reaches = max(interval, MIN_PERIOD_SECONDS), list[Reach]()
    period = first
    while (reach := AGE_PARTS * REACH_RATIO * period) < window:
        if reach > MIN_REACH_SECONDS or not reaches:
            reaches.append(Reach(max(reach, MIN_REACH_SECONDS), period))
        period *= REACH_RATIO
    shorter = [one for one in reaches if one.seconds < window]
    return (*shorter, Reach(window, period if shorter else first))


class PollSchedule:
    """When each reach was last read. What was never read, or not to its end, is due."""

    def __init__(self, window: float, interval: float, *, always_whole: bool = False) -> None:
        """`window` and `interval` are seconds; with `always_whole`, each poll reads the whole window."""
        self.reaches = plan_reaches(window, interval)
        self._interval, self._always_whole = interval, always_whole
        self._read: dict[float, float] = {}
        # The longest reach that a poll has read within half of an interval.
        self._quick_reach = 0.0

    @classmethod
    def from_options(cls, processing: ProcessingOptions) -> PollSchedule:
        """Return the schedule of an instance."""
        window = (processing.window_past - processing.window_past_older_than) * 60
        return cls(window, processing.min_poll_interval * 60, always_whole=processing.poll_whole_window)

    @property
    def shortest(self) -> float:
        """The reach of every poll."""
        return self.reaches[0].seconds

    @property
    def whole(self) -> float:
        """The reach that is the whole window."""
        return self.reaches[-1].seconds

    def due_reach(self, now: float) -> float:
        """Return the longest reach that is due."""
        if self._always_whole:
            return self.whole
        return max((one.seconds for one in self.reaches if self._due_in(one, now) <= 0), default=self.shortest)

    def plan_passes(self, reach: float) -> list[float]:
        """Return the passes of a poll over `reach`. One that may be long reads the newest calls first."""
        shorter = (one.seconds for one in self.reaches if one.seconds < reach)
        return [reach] if reach <= self._quick_reach else [*shorter, reach]

    def record_duration(self, reach: float, seconds: float) -> None:
        """Record how long a poll over `reach` took."""
        shorter = max((one.seconds for one in self.reaches if one.seconds < reach), default=0.0)
        is_quick = seconds <= self._interval / 2
        self._quick_reach = max(self._quick_reach, reach) if is_quick else min(self._quick_reach, shorter)

    def record_pass(self, reach: float, started: float) -> None:
        """Record that a pass over `reach`, which began at `started`, was read to its end. It covers the shorter ones."""
        for one in self.reaches:
            if one.seconds <= reach:
                self._read[one.seconds] = max(started, self._read.get(one.seconds, started))

    def reset(self) -> None:
        """Make the whole window due."""
        self._read.clear()

    def seconds_to_whole(self, now: float) -> float:
        """Return the time until the whole window is due."""
        return 0.0 if self._always_whole else max(0.0, self._due_in(self.reaches[-1], now))

    def _due_in(self, reach: Reach, now: float) -> float:
        """Return the time until a reach is due. Polls come at intervals: half of one decides which of two is nearer."""
        read = self._read.get(reach.seconds)
        return 0.0 if read is None else read + reach.period - self._interval / 2 - now


def next_newest_pass(started: float, ended: float, interval: float) -> float:
    """Return when a long poll reads the newest calls again: after an interval, but half of one is left for older calls."""
    return max(started + interval, ended + interval / 2)
