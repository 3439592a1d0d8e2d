"""Circuit breaker: which services are unavailable. Recordings that need one are paused, but for one trial in each poll.

An outage costs one log line at each end, and one for each further cause. A single failure is none: one broken file must not
stop the others.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from muxer.errors import (
    AccessDenied,
    AuthenticationFailed,
    FolderMissing,
    MediaNotFound,
    PathForbidden,
    RequestRejected,
    ServiceFailed,
    ServiceUnavailable,
    StorageMisconfigured,
    format_error,
)
from muxer.status.advice import RESTART_AFTER_CHANGE_TEXT
from muxer.status.heartbeat import beat
from muxer.status.service_state import ServiceState

log = logging.getLogger(__name__)

RWS, RCS = "RWS", "RCS"
# Each WebDAV server and each bucket is a service, and metadata name them: their number has no other limit.
MAX_REMEMBERED_SERVICES = 50
# The number of failures in a row that are an outage (our decision); an authentication failure is one at once. A single
# request may cause internal errors of a service, so more of them are needed.
FAILURE_THRESHOLD = 3
INTERNAL_ERROR_THRESHOLD = 10
# A slower failure counts at once, even if the step is repeated: a service without any response is not available.
QUICK_FAILURE_SECONDS = 10.0
# After an authentication failure no request is sent for this long: an account may be locked otherwise (our decision).
LOGIN_BACKOFF_SECONDS = 60.0
# For this long after a request that succeeded only when it was repeated, a service counts as flaky.
FLAKY_SECONDS = 600.0

# What an outage means for the recordings, as logged: in general, and when its cause does not go away by waiting.
PAUSED_EFFECT = "recordings that need it are paused and resume automatically"
CORRECTION_EFFECT = "recordings that need it are paused until the cause is corrected"

_ignored: contextvars.ContextVar[tuple[type[Exception], ...]] = contextvars.ContextVar("ignored", default=())


@dataclass
class _Circuit:
    failures: int = 0
    since: float | None = None
    trials: int = 0
    reason: str = ""
    remedy: str = ""
    needs_correction: bool = False
    # The causes of this outage that were logged, by code and advice.
    logged: set[tuple[str, str]] = field(default_factory=set)


Advise = Callable[[str, ServiceUnavailable | AccessDenied], str]


class CircuitBreaker:
    """The circuits of all services, by name. Safe to use from any thread."""

    def __init__(self, effect: str = PAUSED_EFFECT, advise: Advise = lambda service, error: "") -> None:
        """`effect` is what an outage means for the recordings, as logged. `advise` returns the advice of an error."""
        self._effect, self._advise = effect, advise
        self._lock = threading.Lock()
        self._services: dict[str, _Circuit] = {}
        self._successes: OrderedDict[str, float] = OrderedDict()
        self._recoveries: OrderedDict[str, float] = OrderedDict()
        # By service: until when (`time.monotonic`) no request is sent, and the authentication failure that is the reason.
        self._login_backoffs: dict[str, tuple[float, AuthenticationFailed]] = {}
        # The number of outages so far.
        self.outage_count = 0

    @contextmanager
    def call(self, service: str, *, login_backoff: bool = True, is_public: bool = False) -> Iterator[None]:
        """Record the outcome of a request to `service`. An error of one recording is a success of the service.

        After an authentication failure, calls with `login_backoff` are refused for :data:`LOGIN_BACKOFF_SECONDS`. The
        success of a request that `is_public`, because it needs no login, does not show that the service works.
        """
        beat()
        began, started = time.time(), time.monotonic()
        if login_backoff:
            self._raise_if_backing_off(service)
        try:
            yield
        except (RequestRejected, MediaNotFound, PathForbidden, StorageMisconfigured, FolderMissing):
            if not is_public:
                self._record_success(service)
            raise
        except (ServiceUnavailable, AccessDenied) as error:
            if not error.service:
                error.service, error.began = service, began
            if error.service == service:
                error.advice = error.advice or self._advise(service, error)
                if login_backoff and isinstance(error, AuthenticationFailed):
                    self._start_login_backoff(service, error)
                if not _is_ignored(error, time.monotonic() - started):
                    self._record_failure(service, error)
            raise
        if not is_public:
            self._record_success(service)

    def login_pause(self, service: str) -> float:
        """Return for how many seconds no request is sent to `service`, because it refused the credentials."""
        return max(0.0, self._login_backoffs.get(service, (0.0, None))[0] - time.monotonic())

    def _raise_if_backing_off(self, service: str) -> None:
        """Raise the error of a request that is not sent. It says what to check, nothing of the request that was refused."""
        pause = self.login_pause(service)
        if not pause:
            return
        due, cause = datetime.now(UTC) + timedelta(seconds=pause), self._login_backoffs[service][1]
        hint = str(cause).partition("; ")[2] or "check them"
        refused = f"{service} refused the credentials a moment ago; not tried again yet: {hint}"
        error = AuthenticationFailed(f"{refused}; the next login is tried after {due:%H:%M:%S} UTC")
        error.service, error.began, error.is_counted = service, time.time(), True
        error.advice = cause.advice
        raise error

    def _start_login_backoff(self, service: str, error: AuthenticationFailed) -> None:
        """Start the back-off unless it is active: then `error` only reports it."""
        with self._lock:
            if time.monotonic() >= self._login_backoffs.get(service, (0.0, None))[0]:
                self._login_backoffs[service] = (time.monotonic() + LOGIN_BACKOFF_SECONDS, error)

    @contextmanager
    def ignore_quick_failures(self, *more: type[AccessDenied]) -> Iterator[None]:
        """Do not count quick failures in this block, nor `more` errors: the caller decides which of them is an outage."""
        token = _ignored.set((ServiceUnavailable, *more))
        try:
            yield
        finally:
            _ignored.reset(token)

    def count_failure(self, error: ServiceUnavailable) -> None:
        """Count the last failure of a repeated step, unless `error` was counted before."""
        if error.service and not error.is_counted:
            self._record_failure(error.service, error)

    def record_recovery(self, service: str) -> None:
        """Record that a request to `service` failed and succeeded when it was repeated."""
        with self._lock:
            _remember_time(self._recoveries, service, time.monotonic())

    def is_flaky(self, service: str) -> bool:
        """Whether requests to a service have failed at random in the last :data:`FLAKY_SECONDS`."""
        with self._lock:
            return time.monotonic() - self._recoveries.get(service, float("-inf")) < FLAKY_SECONDS

    def trip(self, error: ServiceUnavailable | AccessDenied) -> None:
        """Open the circuit of the service of `error`, unless a later request to it has succeeded."""
        with self._lock:
            is_up = self._successes.get(error.service, 0.0) > error.began
        if error.service and not is_up and not (error.is_counted and self.is_open(error.service)):
            self._record_failure(error.service, error, enough=1)

    def allow_trial(self) -> None:
        """Allow one trial of each unavailable service."""
        with self._lock:
            for state in self._services.values():
                state.trials = 1

    def is_open(self, service: str) -> bool:
        """Whether `service` is unavailable."""
        with self._lock:
            return service in self._services and self._services[service].since is not None

    def is_any_blocked(self, services: Iterable[str]) -> bool:
        """Whether a recording that needs `services` has to wait."""
        with self._lock:
            return any(self._is_blocked(service) for service in services)

    def try_half_open(self, services: Iterable[str]) -> bool:
        """Return whether a recording that needs `services` may start now; it takes the trials of the unavailable ones."""
        with self._lock:
            needed = list(services)
            if any(self._is_blocked(service) for service in needed):
                return False
            for service in needed:
                if service in self._services:
                    self._services[service].trials = 0
            return True

    def open_circuits(self) -> dict[str, tuple[float, str]]:
        """Return the unavailable services: since when (``time.monotonic``), and why."""
        with self._lock:
            return {name: (state.since, state.reason) for name, state in self._services.items() if state.since is not None}

    def service_states(self) -> tuple[ServiceState, ...]:
        """Return the unavailable services and those that succeeded last, by name."""
        elapsed = time.time() - time.monotonic()
        with self._lock:
            successes = dict(self._successes)
            out = {name: replace(state) for name, state in self._services.items() if state.since is not None}
        is_full = len(successes) >= MAX_REMEMBERED_SERVICES
        names = sorted([*out, *(successes.keys() - out)][:MAX_REMEMBERED_SERVICES])
        return tuple(
            ServiceState(
                name,
                None if state.since is None else state.since + elapsed,
                state.reason,
                successes.get(name),
                is_full or name in successes,
                state.remedy,
                state.needs_correction,
            )
            for name, state in ((name, out.get(name, _Circuit())) for name in names)
        )

    def _is_blocked(self, service: str) -> bool:
        state = self._services.get(service)
        return state is not None and state.since is not None and not state.trials

    def _record_failure(self, service: str, error: ServiceUnavailable | AccessDenied, enough: int | None = None) -> None:
        error.is_counted = True
        with self._lock:
            state = self._services.setdefault(service, _Circuit())
            state.failures += 1
            state.reason, state.remedy = format_error(error), _remedy_for(error)
            state.needs_correction = error.needs_correction
            is_begin = state.since is None
            if is_begin and state.failures < (enough or _failure_threshold(error)):
                return
            if is_begin:
                state.since, state.trials = time.monotonic(), 0
                self.outage_count += 1
            cause = error.code, error.advice
            if cause in state.logged:
                return
            state.logged.add(cause)
        effect = CORRECTION_EFFECT if error.needs_correction and self._effect == PAUSED_EFFECT else self._effect
        if is_begin:
            log.error("%s is unavailable; %s: %s", service, effect, format_error(error))
        else:
            log.error("%s is still unavailable, for another reason; %s: %s", service, effect, format_error(error))

    def _record_success(self, service: str) -> None:
        with self._lock:
            state = self._services.pop(service, None)
            _remember_time(self._successes, service, time.time())
        if state is not None and state.since is not None:
            log.warning("%s is available again after %.0f s", service, time.monotonic() - state.since)


def _remember_time(times: OrderedDict[str, float], service: str, time_now: float) -> None:
    times[service] = time_now
    times.move_to_end(service)
    if len(times) > MAX_REMEMBERED_SERVICES:
        times.popitem(last=False)


def _is_ignored(error: ServiceUnavailable | AccessDenied, seconds: float) -> bool:
    """Whether a failure after `seconds` is not counted, because the caller decides."""
    return isinstance(error, _ignored.get()) and seconds < QUICK_FAILURE_SECONDS


def _remedy_for(error: ServiceUnavailable | AccessDenied) -> str:
    """Return what the administrator can do about an `error`, as a sentence of its own; empty when that is not known."""
    if error.advice == RESTART_AFTER_CHANGE_TEXT:
        return f"see Services; {error.advice}"
    wrong = "correct the credentials; " if isinstance(error, AuthenticationFailed) and error.advice else ""
    return f"{wrong}{error.advice}"


def _failure_threshold(error: ServiceUnavailable | AccessDenied) -> int:
    if isinstance(error, AuthenticationFailed):
        return 1
    return INTERNAL_ERROR_THRESHOLD if isinstance(error, ServiceFailed) else FAILURE_THRESHOLD
