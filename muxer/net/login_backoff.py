"""Keeps us from hammering a service that has refused our login: an account may be locked after too many attempts."""

from __future__ import annotations

import time

from muxer.errors import AuthenticationFailed

# After a refused login nothing is sent to that service for this long (our decision).
LOGIN_BACKOFF_SECONDS = 60.0


class LoginBackoff:
    """Remembers which services have refused our login lately. Safe to use from any thread."""

    def __init__(self) -> None:
        self._closed: dict[str, tuple[float, str]] = {}

    def start(self, service: str, error: AuthenticationFailed) -> AuthenticationFailed:
        """Note that a service has refused our login, and return the error that says how."""
        self._closed[service] = (time.monotonic() + LOGIN_BACKOFF_SECONDS, str(error))
        return error

    def raise_if_active(self, service: str) -> None:
        """Raise :class:`AuthenticationFailed` when a service has refused our login a moment ago."""
        until, why = self._closed.get(service, (0.0, ""))
        if time.monotonic() < until:
            raise AuthenticationFailed(f"{service} refused our login a moment ago; not tried again yet: {why}")
