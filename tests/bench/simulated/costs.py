"""The cost of a recording. Step times are from docs/developer/performance.md; the load of a site is an assumption."""

from __future__ import annotations

from dataclasses import dataclass

# Measured: requests of a job (check 2, certificates 1, publish 3, label 1), and how many come before the media.
RWS_REQUESTS, RWS_FIRST = 7, 3
DAV_REQUESTS = 8
# Measured: ten minutes of call are 28 MB of screen and 2.4 MB of audio.
BYTES_PER_SECOND = (28e6 + 2.4e6) / 600
# Measured: the mux step of 1, 10 and 60 minutes lasts 0.124, 0.168 and 0.436 s.
MUX_SECONDS, MUX_A_SECOND = 0.12, 8.8e-5
# Measured: a call of five minutes needs 0.21 s of processor, 0.15 of them in the mux step.
REST_CPU = 0.06
# Measured: processor time of a poll for each recording in the window.
POLL_CPU = 0.00016


@dataclass(frozen=True)
class Costs:
    """Assumptions about the site: response times of RWS to a job, and to a page or slice of 100 recordings of a poll;
    response times of the storage, the rate of one transfer, the capacity of RWS and storage; a worker's machine."""

    rws_seconds: float = 0.1
    page_seconds: float = 0.2
    dav_seconds: float = 0.02
    stream_bytes: float = 10e6
    rws_capacity: float = 500.0
    storage_capacity: float = 1.25e9
    cores: int = 2
    threads: int = 5

    def job_seconds(self, call_seconds: float, busy: int) -> float:
        """Return the seconds of a call's job while `busy` jobs run in all: the time of its steps,
        or its share of the common resources (the bounds of operational analysis)."""
        moved = 2 * source_bytes(call_seconds)
        alone = RWS_REQUESTS * self.rws_seconds + DAV_REQUESTS * self.dav_seconds + moved / self.stream_bytes
        alone += mux_seconds(call_seconds)
        shared = max(RWS_REQUESTS / self.rws_capacity, moved / self.storage_capacity)
        return max(alone, busy * shared, self.threads * job_cpu_seconds(call_seconds) / self.cores)


def source_bytes(call_seconds: float) -> float:
    """Return the size of the sources of a call, which is also the size of its muxed file."""
    return BYTES_PER_SECOND * call_seconds


def mux_seconds(call_seconds: float) -> float:
    """Return the seconds of the mux step of a call when everything is copied."""
    return MUX_SECONDS + MUX_A_SECOND * call_seconds


def job_cpu_seconds(call_seconds: float) -> float:
    """Return the processor seconds of the job of a call."""
    return mux_seconds(call_seconds) + REST_CPU
