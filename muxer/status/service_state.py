"""The state of a service, as the circuit breaker knows it, and its text when the service was never reached. Pure."""

from __future__ import annotations

from dataclasses import dataclass

UNREACHED_TEXT = "it has never worked since the start of the muxer: run `check`, which shows the cause"


@dataclass(frozen=True)
class ServiceState:
    """State of a service; times in epoch seconds. `since` is when it became unavailable, None while it is available.

    `is_reached`: it has worked since the start of this process, or that is not remembered. `remedy`: what the administrator
    can do, empty when that is not known; `needs_correction`: it stays unavailable until that is done.
    """

    name: str
    since: float | None
    reason: str
    last_success: float | None
    is_reached: bool = True
    remedy: str = ""
    needs_correction: bool = False

    @property
    def full_reason(self) -> str:
        """Why it is unavailable, and what to do when it has never worked."""
        return self.reason if self.is_reached else f"{self.reason}; {UNREACHED_TEXT}"
