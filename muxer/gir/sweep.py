"""Plans the time windows that replace the pages of an RWS whose next page cannot be reached (gir-api, section 3). Pure.

A query finds no call that lasts across the border of its window. So consecutive windows overlap, and a window whose page may
lack something is halved. All times are milliseconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass

# Times in metadata have whole seconds: a shorter window separates no calls.
MIN_WINDOW_MS = 1000
# No call lasts longer (our decision): long windows need no larger overlap.
MAX_OVERLAP_MS = 12 * 3600 * 1000


@dataclass(frozen=True)
class SweepWindow:
    """A span of time from `start` to `end`."""

    start: int
    end: int

    @property
    def length_ms(self) -> int:
        """Its length in milliseconds."""
        return self.end - self.start

    @property
    def overlap_ms(self) -> int:
        """How far the next window begins before the end of this one, in milliseconds."""
        return min(self.length_ms // 2, MAX_OVERLAP_MS)


class WindowSweep:
    """A walk through the windows of a span. No call up to `covered_ms` long is missed so far.

    `window` is None at the end. `is_complete` is False when a window could not be halved any further.
    """

    def __init__(self, whole: SweepWindow) -> None:
        self._whole = whole
        self.window: SweepWindow | None = whole
        self.covered_ms = whole.length_ms
        self.is_complete = True

    def halve_window(self) -> bool:
        """Continue with the first half of the window. Returns False when it is too short for that."""
        assert self.window is not None
        if self.window.length_ms < 2 * MIN_WINDOW_MS:
            return False
        self.window = SweepWindow(self.window.start, self.window.start + self.window.length_ms // 2)
        return True

    def next_window(self, *, is_whole: bool, is_sparse: bool) -> None:
        """Continue after a window that `is_whole` (read completely) or not; `is_sparse`: the next is twice as long."""
        assert self.window is not None
        self.is_complete = self.is_complete and is_whole
        if self.window.end >= self._whole.end:
            self.window = None
            return
        self.covered_ms = min(self.covered_ms, self.window.overlap_ms)
        start = self.window.end - self.window.overlap_ms
        length = self.window.length_ms * (2 if is_sparse else 1)
        self.window = SweepWindow(start, min(start + length, self._whole.end))
