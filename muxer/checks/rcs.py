"""RCS: the way there, its version, the login, and whether its user may decrypt media."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import fields

from muxer.checks.advice import remedy
from muxer.checks.checklist import Check, Finding, failed, ok, skipped, warning
from muxer.checks.connection import Server
from muxer.checks.rws import WINDOW, OfRws
from muxer.config.schema import Config, Rcs
from muxer.errors import AccessDenied, LoginRefused, MediaNotFound, MuxerError, ServiceUnavailable
from muxer.gir import rcs
from muxer.gir.query import parse_version
from muxer.outages import Outages
from muxer.services import rcs_of

LEAST_VERSION = (8, 5, 95, 16)
LOGIN, PERMISSION = "RCS login", "RCS decrypt permission"
# Nobody has a recording of this id.
_NOBODYS = "recording-muxer-check"
_TRIED = 5


class OfRcs:
    """The checks of RCS."""

    def __init__(self, config: Config, seen: OfRws, stop: threading.Event) -> None:
        """Given the configuration, what the checks of RWS have seen, and what ends requests that wait."""
        self._config, self._seen, self._stop = config, seen, stop
        self.server = Server("RCS", config.rcs.base_uri or "", "rcs", config.rcs.trusted_ca)
        self._made: rcs.Rcs | None = None

    @property
    def _rcs(self) -> rcs.Rcs:
        if self._made is None:
            self._made = rcs_of(self._config, self._stop, Outages())
        assert self._made is not None
        return self._made

    def checks(self) -> Iterator[Check]:
        """Yield them in the order in which they build on each other."""
        needs = (*(f"[rcs] {one.name}" for one in fields(Rcs)), "[htcc] contact_center_id", "[htcc] rws_timeout")
        if self._config.rcs.base_uri is None:
            yield Check("RCS", self._absent, needs[:1])
            return
        yield from self.server.checks(needs)
        way = (*needs, "RCS address", "RCS TLS")
        yield Check("RCS version", self._version, way, "rcs")
        yield Check(LOGIN, self._login, (*way, "RCS version"), "rcs")

    def _absent(self) -> Iterator[Finding]:
        first = next(self._seen.encrypted(), None)
        if first is None:
            yield ok("RCS", "not configured: needed for encrypted recordings only, and none was seen")
        else:
            advice = "set base_uri, username and password of [rcs]"
            yield failed("RCS", f"not configured, but recording {first[0]} is encrypted", advice)

    def _version(self) -> Iterator[Finding]:
        try:
            text = self._rcs.version()
        except ServiceUnavailable as error:
            advice = remedy(error, "rcs")
            if not self.server.is_tls and self.server.speaks_tls():
                advice = "the port speaks TLS: write https:// in [rcs] base_uri"
            yield failed("RCS version", str(error), advice)
            return
        except MuxerError as error:
            yield warning("RCS version", f"not told: {error}", "see whether [rcs] base_uri leads to RCS")
            return
        version = parse_version(text)
        if version is None or version < LEAST_VERSION:
            yield warning("RCS version", text or "not told", "the Genesys guide asks for 8.5.095.16 or later: update RCS")
        else:
            yield ok("RCS version", text)

    def _login(self) -> Iterator[Finding]:
        """Ask for encrypted media that were seen, and fetch none of them; without any, for one that nobody has."""
        account = f"as {self._config.rcs.username}"
        nobodys = (_NOBODYS, _NOBODYS, False, ())
        for recording, media, is_screen, paths in [*self._seen.encrypted()][:_TRIED] or [nobodys]:
            reach = self._rcs.reach_screen if is_screen else self._rcs.reach_call
            try:
                reach(recording, media, paths)
            except LoginRefused as error:
                yield failed(LOGIN, f"{account}: {error}", remedy(error, "rcs"))
                return
            except AccessDenied as error:
                yield ok(LOGIN, account)
                advice = f"give the user {self._config.rcs.username} the media decrypt permission in the contact center"
                yield failed(PERMISSION, str(error), advice)
                return
            except MediaNotFound:
                continue
            yield ok(LOGIN, account)
            yield ok(PERMISSION, f"RCS plays {media} of recording {recording}")
            return
        yield ok(LOGIN, f"{account}: not refused")
        yield skipped(PERMISSION, self._unknown(), "check again when the window holds an encrypted recording")

    def _unknown(self) -> str:
        if next(self._seen.encrypted(), None) is None:
            return f"cannot be told without an encrypted recording, and {WINDOW} has shown none; it was not refused"
        return "cannot be told: RCS finds none of the encrypted media that were seen; it was not refused"
