"""Response delays of the lab's servers, so that a muxer waits as on a real site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Delays:
    """``seconds``: by service, or by service and method, which comes first; ``slow``: how many times longer transfers of a
    recording take, by its id."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    slow: dict[str, float] = field(default_factory=dict)

    def delay_seconds(self, service: str, method: str, path: str) -> float:
        """Return the delay of the response to a request, in seconds."""
        transfer = self.seconds.get(f"{service} {method}")
        if transfer is None:
            return self.seconds.get(service, 0.0)
        return transfer * next((factor for recording, factor in self.slow.items() if recording in path), 1.0)
