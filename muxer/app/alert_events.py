"""Finds the events that an administrator is alerted of, by comparing the state of the muxer with that before. Pure.

Each event occurs once: when a problem has lasted long enough, and when one that was reported has ended.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from muxer.journal.correction_need import CorrectionNeed
from muxer.journal.journal import TargetKey
from muxer.journal.retry_policy import Failure
from muxer.monitoring.certificate_expiry import CertificateExpiry
from muxer.status.fleet_status import DISK_SERVICE, FleetStatus

SET_ASIDE, MIGRATION_FAILED = "recording_set_aside", "migration_failed"
SERVICE_OUT, SERVICE_BACK = "service_unavailable", "service_available"
DISK_FULL, DISK_BACK = "disk_full", "disk_available"
CORRECTION_NEEDED, CORRECTION_DONE = "correction_needed", "correction_done"
CERTIFICATE_EXPIRES = "certificate_expires"

CERTIFICATE_NOTICE_SECONDS = 30 * 86_400.0
# Certificates that were reported, and are not reported again.
MAX_REPORTED_CERTIFICATES = 1000

# By kind of condition: the event of its begin, of its end, and the text of the end.
_EVENTS = {
    "service": (SERVICE_OUT, SERVICE_BACK, "available again"),
    "disk": (DISK_FULL, DISK_BACK, "available again"),
    "correction": (CORRECTION_NEEDED, CORRECTION_DONE, "recordings are muxed again or were requeued,"),
}
_CODE = re.compile(r"(?:^|\()(MUX-\d{3})\b")


@dataclass(frozen=True)
class AlertEvent:
    """An event: its kind, the code of an error if there is one, what it is about, and further fields."""

    kind: str
    text: str
    code: str = ""
    subject: dict[str, str | float] = field(default_factory=dict)
    # Names of people that may occur in `text`.
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Condition:
    """A problem that lasts. `kind` is ``service``, ``disk`` or ``correction``, `name` that of the service or the machine."""

    kind: str
    name: str


NEEDS_CORRECTION = Condition("correction", "")


def set_aside_event(key: TargetKey, failure: Failure) -> AlertEvent:
    """Return the event of a recording that is set aside."""
    return AlertEvent(SET_ASIDE, failure.text, failure.code, {"recording": key.recording}, (key.agent,))


def find_conditions(
    out: Mapping[str, tuple[float, str]],
    has_room: bool,
    host: str,
    fleet: FleetStatus | None,
    need: CorrectionNeed | None = None,
) -> dict[Condition, str]:
    """Return the problems of now with their texts. `out` maps unavailable services to since when and why.

    `need`: nothing is muxed until a person corrects something.
    """
    found = {Condition("service", name): reason for name, (_, reason) in out.items()}
    if not has_room:
        found[Condition("disk", host)] = "the disk of temp_dir is nearly full: no new recording is started"
    if need is not None:
        found[NEEDS_CORRECTION] = need.text
    for worker in fleet.live_workers if fleet else ():
        for name, reason in worker.out.items():
            is_disk = name == DISK_SERVICE
            found.setdefault(Condition("disk", worker.host_slot) if is_disk else Condition("service", name), reason)
    return found


class ConditionWatch:
    """Remembers since when each problem lasts, and which were reported."""

    def __init__(self, service_seconds: float) -> None:
        self._service_seconds = service_seconds
        self._since: dict[Condition, float] = {}
        self._reported: set[Condition] = set()

    def compare(self, found: Mapping[Condition, str], now: float, *, is_complete: bool = True) -> Iterator[AlertEvent]:
        """Yield the events since the last call; `now` in seconds of any clock that does not go back.

        If `found` is not complete, what it lacks may still last.
        """
        ended = [known for known in self._since if known not in found] if is_complete else []
        for condition in ended:
            lasted = now - self._since.pop(condition)
            if condition in self._reported:
                self._reported.discard(condition)
                _, end, text = _EVENTS[condition.kind]
                yield _condition_event(condition, end, f"{text} after {lasted:.0f} s")
        for condition, reason in found.items():
            since = self._since.setdefault(condition, now)
            needed = 0.0 if condition.kind == "disk" else self._service_seconds
            if condition not in self._reported and now - since >= needed:
                self._reported.add(condition)
                yield _condition_event(condition, _EVENTS[condition.kind][0], reason)


def _condition_event(condition: Condition, kind: str, text: str) -> AlertEvent:
    code = _CODE.search(text)
    subject: dict[str, str | float] = {condition.kind: condition.name} if condition.name else {}
    return AlertEvent(kind, text, code[1] if code else "", subject)


class ExpiryWatch:
    """Remembers the certificates that were reported."""

    def __init__(self) -> None:
        self._reported: dict[CertificateExpiry, None] = {}

    def compare(self, expiries: Iterable[CertificateExpiry], now: float) -> Iterator[AlertEvent]:
        """Yield an event for each certificate that expires soon, once; `now` in epoch seconds."""
        for expiry in expiries:
            left = expiry.at - now
            if left < CERTIFICATE_NOTICE_SECONDS and expiry not in self._reported:
                self._reported[expiry] = None
                if len(self._reported) > MAX_REPORTED_CERTIFICATES:
                    del self._reported[next(iter(self._reported))]
                days = left / 86_400
                when = f"expires in {days:.0f} days" if left > 0 else f"expired {-days:.0f} days ago"
                at = datetime.fromtimestamp(expiry.at, UTC).isoformat(timespec="seconds")
                about: dict[str, str | float] = {"certificate": f"{expiry.kind} {expiry.name}", "expires": at}
                yield AlertEvent(CERTIFICATE_EXPIRES, f"the certificate {when}", subject=about)
