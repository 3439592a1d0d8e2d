"""Whether nothing can be muxed until a person corrects something: every recording that is tried fails. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from muxer.errors import Code
from muxer.status.error_help import HELP_BY_CODE, needs_correction
from muxer.status.formatting import iso

# Fewer recordings, and failures within a shorter time after a success, say nothing about the others.
MIN_RECORDINGS = 3
MIN_SECONDS_WITHOUT_SUCCESS = 300.0


@dataclass(frozen=True)
class FailuresSinceMuxed:
    """The number of recordings by code whose last attempt was after `last_muxed`, the end of the last recording muxed.

    None: the journal knows of none.
    """

    last_muxed: float | None = None
    recordings: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CorrectionNeed:
    """How many recordings wait for a correction, the most frequent code, and when the last recording was muxed."""

    count: int
    code: str
    last_muxed: float | None

    @property
    def title(self) -> str:
        """How many recordings wait."""
        return waiting_text(self.count)

    @property
    def cause(self) -> str:
        """The code with its meaning."""
        return f"{self.code}: {HELP_BY_CODE[Code(self.code)].meaning}"

    @property
    def text(self) -> str:
        """The need in one line."""
        last = "none has been muxed yet" if self.last_muxed is None else f"none has been muxed since {iso(self.last_muxed)}"
        return f"{self.title} ({self.cause}), {last}"


def waiting_text(count: int) -> str:
    """Return that `count` recordings wait for a correction."""
    return f"{'1 recording waits' if count == 1 else f'{count} recordings wait'} for a correction"


def find_correction_need(failures: FailuresSinceMuxed, now: float) -> CorrectionNeed | None:
    """Return what waits for a correction while nothing is muxed; None when recordings are muxed, or others fail alone."""
    waiting = {code: count for code, count in failures.recordings.items() if needs_correction(code)}
    last, count = failures.last_muxed, sum(waiting.values())
    if count < MIN_RECORDINGS or (last is not None and now - last < MIN_SECONDS_WITHOUT_SUCCESS):
        return None
    return CorrectionNeed(count, max(waiting, key=waiting.__getitem__), last)
