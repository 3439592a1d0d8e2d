"""Checks of RCS: connection, version, credentials and the permission to decrypt media."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import fields

from muxer.app.assembly import create_circuit_breaker, create_rcs
from muxer.checks.checklist import Check, Finding, failed_finding, passed_finding, skipped_finding, warning_finding
from muxer.checks.connection import CheckedServer
from muxer.checks.rws import WINDOW_CHECK, RwsChecks
from muxer.config.query_string import parse_version
from muxer.config.schema import Config, RcsOptions
from muxer.errors import AccessDenied, AuthenticationFailed, MediaNotFound, MuxerError, ServiceUnavailable
from muxer.gir import rcs
from muxer.status.advice import advice_for

MIN_RCS_VERSION = (8, 5, 95, 16)
LOGIN, PERMISSION = "RCS login", "RCS decrypt permission"
# No recording has this id.
_UNKNOWN_RECORDING = "recording-muxer-check"
_MAX_TRIED = 5


class RcsChecks:
    """The checks of RCS."""

    def __init__(self, config: Config, seen: RwsChecks, stop: threading.Event) -> None:
        self._config, self._seen, self._stop = config, seen, stop
        self.server = CheckedServer("RCS", config.rcs.base_uri or "", "rcs", config.rcs.trusted_ca)
        self._client: rcs.RcsClient | None = None

    @property
    def _rcs_client(self) -> rcs.RcsClient:
        if self._client is None:
            self._client = create_rcs(self._config, self._stop, create_circuit_breaker(self._config))
        assert self._client is not None
        return self._client

    def create_checks(self) -> Iterator[Check]:
        """Yield the checks in the order of their dependencies."""
        needs = (*(f"[rcs] {one.name}" for one in fields(RcsOptions)), "[htcc] contact_center_id", "[htcc] rws_timeout")
        if self._config.rcs.base_uri is None:
            yield Check("RCS", self._check_need, needs[:1])
            return
        yield from self.server.create_checks(("[rcs] base_uri", "[rcs] trusted_ca"))
        way = (*needs, "RCS address", "RCS TLS")
        yield Check("RCS version", self._check_version, way, "rcs")
        yield Check(LOGIN, self._check_login, (*way, "RCS version"), "rcs")

    def _check_need(self) -> Iterator[Finding]:
        first = next(self._seen.encrypted_media(), None)
        if first is None:
            yield passed_finding("RCS", "not configured: needed only for encrypted recordings, and none was found")
        else:
            advice = "set base_uri, username and password of [rcs]"
            yield failed_finding("RCS", f"not configured, but recording {first[0]} is encrypted", advice)

    def _check_version(self) -> Iterator[Finding]:
        try:
            text = self._rcs_client.fetch_version()
        except ServiceUnavailable as error:
            yield failed_finding("RCS version", str(error), advice_for(error, "rcs"))
            return
        except MuxerError as error:
            yield warning_finding("RCS version", f"unknown: {error}", "make sure that [rcs] base_uri is the address of RCS")
            return
        version = parse_version(text)
        if version is None or version < MIN_RCS_VERSION:
            yield warning_finding(
                "RCS version", text or "unknown", "the Genesys guide asks for 8.5.095.16 or later: update RCS"
            )
        else:
            yield passed_finding("RCS version", text)

    def _check_login(self) -> Iterator[Finding]:
        """Request encrypted media of the recordings without fetching them; without any, one with an unknown id."""
        account = f"as {self._config.rcs.username}"
        unknown = (_UNKNOWN_RECORDING, _UNKNOWN_RECORDING, False, ())
        for recording, media, is_screen, paths in [*self._seen.encrypted_media()][:_MAX_TRIED] or [unknown]:
            reach = self._rcs_client.check_screen_media if is_screen else self._rcs_client.check_call_media
            try:
                reach(recording, media, paths)
            except AuthenticationFailed as error:
                yield failed_finding(LOGIN, f"{account}: {error}", advice_for(error, "rcs"))
                return
            except AccessDenied as error:
                yield passed_finding(LOGIN, account)
                advice = f"grant the user {self._config.rcs.username} the media decrypt permission in the contact center"
                yield failed_finding(PERMISSION, str(error), advice)
                return
            except MediaNotFound:
                continue
            yield passed_finding(LOGIN, account)
            yield passed_finding(PERMISSION, f"RCS plays {media} of recording {recording}")
            return
        yield passed_finding(LOGIN, f"{account}: not rejected")
        yield skipped_finding(PERMISSION, self._unknown_text(), "check again when the window holds an encrypted recording")

    def _unknown_text(self) -> str:
        if next(self._seen.encrypted_media(), None) is None:
            return f"unknown without an encrypted recording, and {WINDOW_CHECK} has found none; it was not denied"
        return "unknown: RCS finds none of the encrypted media; it was not denied"
