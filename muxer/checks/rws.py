"""RWS: login, contact center, version, CSRF, clock, and what the query of the muxer finds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from muxer import window
from muxer.checks.advice import remedy
from muxer.checks.checklist import Check, Finding, failed, ok, warning
from muxer.checks.connection import Server
from muxer.config.schema import Config, Htcc
from muxer.errors import LoginRefused, NotFound, QueryIncomplete, ServiceUnavailable
from muxer.gir.deviations import PAGING, Deviation
from muxer.gir.models import CallRecording, ScreenRecording
from muxer.gir.rws import Rws
from muxer.gir.session import csrf_token
from muxer.outages import RWS, Outages
from muxer.queries import Queries
from muxer.services import rws_of
from muxer.sharding import effective_id, takes

# What the Genesys guide asks for.
LEAST_VERSION = (8, 5, 205, 32)
MOST_SKEW_SECONDS = 60
# So long the pages of the window are counted, and so many recordings are looked at closely.
COUNT_SECONDS = 20.0
QUERY_SECONDS = 120.0
LOOKED_AT = 50
HTCC = tuple(f"[htcc] {one.name}" for one in fields(Htcc))
_QUERY = (
    *("[processing] window_past", "[processing] window_past_older_than", "[advanced] pagination"),
    *("[advanced] call_recording_query_string", "[advanced] call_recording_extra_query_string"),
)
_SHARDING = tuple(f"[processing] {name}" for name in ("muxer_id", "total_muxers", "muxer_type"))
WINDOW = "RWS window"
PAGES = "RWS pages"


class OfRws:
    """The checks of RWS. ``calls`` and ``screens`` are what the query found first: other checks look at their media."""

    def __init__(self, config: Config, stop: threading.Event) -> None:
        """Given the configuration, and what ends requests that wait."""
        self._config, self._stop = config, stop
        self.server = Server("RWS", config.htcc.base_uri or "", "htcc", config.htcc.trusted_ca)
        self.calls: list[CallRecording] = []
        self.screens: dict[str, ScreenRecording] = {}
        self._made: Rws | None = None
        self._incomplete = ""

    @property
    def rws(self) -> Rws:
        """The client; it is made when it is first needed, with options that can be used."""
        if self._made is None:
            self._made = rws_of(self._config, self._stop, Outages())
        return self._made

    def checks(self) -> Iterator[Check]:
        """Yield them in the order in which they build on each other."""
        yield from self.server.checks(HTCC)
        way = ("RWS address", "RWS TLS")
        yield Check("RWS version", self._version, (*HTCC, *way), "htcc")
        there = (*HTCC, *way, "RWS version")
        yield Check("RWS clock", self._clock, there, "htcc")
        yield Check("RWS CSRF token", self._csrf, there, "htcc")
        yield Check("RWS login", self._login, there, "htcc")
        logged_in = (*there, "RWS contact center", "RWS login")
        yield Check(WINDOW, self._window, (*logged_in, *_QUERY, *_SHARDING), "htcc", QUERY_SECONDS)
        batch = "[processing] batch_read_screen_recording_metadata"
        yield Check("RWS screen recordings", self._screens, (*logged_in, batch), "htcc", QUERY_SECONDS)

    def _version(self) -> Iterator[Finding]:
        """The first request, without a login: it also shows whether what answers is RWS at all."""
        try:
            found = self.rws.version()
        except LoginRefused as error:
            advice = "RWS tells its version without a login, so this is probably none: correct [htcc] base_uri"
            yield failed("RWS version", str(error), advice)
            return
        except ServiceUnavailable as error:
            advice = remedy(error, "htcc")
            if not self.server.is_tls and self.server.speaks_tls():
                advice = "the port speaks TLS: write https:// in [htcc] base_uri"
            yield failed("RWS version", str(error), advice)
            return
        least = ".".join(map(str, LEAST_VERSION))
        if found is None:
            advice = "see whether [htcc] base_uri leads to RWS, and not to another web server or a proxy"
            yield warning("RWS version", "RWS tells no version that can be read; it is taken for an old one", advice)
        elif found < LEAST_VERSION:
            text = ".".join(map(str, found))
            yield warning("RWS version", text, f"the Genesys guide asks for {least} or later: update RWS")
        else:
            yield ok("RWS version", ".".join(map(str, found)))

    def _clock(self) -> Iterator[Finding]:
        before = datetime.now(UTC)
        date = self.rws.headers().get("Date", "")
        here = before + (datetime.now(UTC) - before) / 2
        try:
            there = parsedate_to_datetime(date)
        except ValueError:
            yield ok("RWS clock", "RWS does not tell its time")
            return
        skew = round((here - there.astimezone(UTC)).total_seconds())
        if abs(skew) > MOST_SKEW_SECONDS:
            text = f"the clock of this machine is {abs(skew)} s {'ahead of' if skew > 0 else 'behind'} that of RWS"
            yield warning("RWS clock", text, "set both by NTP: the window of the query is reckoned from the clock here")
        else:
            yield ok("RWS clock", f"{abs(skew)} s apart")

    def _csrf(self) -> Iterator[Finding]:
        token = csrf_token(self.rws.headers(), RWS)
        yield ok("RWS CSRF token", f"in use ({', '.join(token)})" if token else "RWS asks for none")

    def _login(self) -> Iterator[Finding]:
        """One page of one recording; an answer that is no refusal of the login says that the login is right."""
        try:
            with suppress(QueryIncomplete):  # the check of the pages tells
                next(self.rws.call_recordings(window.window_query(datetime.now(UTC), 1, 0, 1, "")), None)
        except NotFound as error:
            yield ok("RWS login", self._account)
            center = self._config.htcc.contact_center_id
            advice = "correct [htcc] contact_center_id; if it is right, the path in [htcc] base_uri may be wrong"
            yield failed("RWS contact center", f"RWS does not know {center}: {error}", advice)
        except LoginRefused as error:
            yield failed("RWS login", f"{self._account}: {error}", remedy(error, "htcc"))
        else:
            yield ok("RWS login", self._account)
            yield ok("RWS contact center", self._config.htcc.contact_center_id)

    @property
    def _account(self) -> str:
        return f"as {self._config.htcc.username}"

    def _window(self) -> Iterator[Finding]:
        query = Queries(self._config, self.rws).query()
        found, ours, whole = self._count(query)
        yield from self._paging()
        more = "" if whole else " or more (not counted to the end)"
        text = f"{self._span()}: {found} call recordings{more}"
        if not found and self._incomplete:
            return
        if not found:
            yield warning(WINDOW, text, self._nothing_found())
            return
        yield ok(WINDOW, text)
        mine = effective_id(self._config.processing)
        if mine is not None:
            share = f"{ours} of {found} belong to shard {mine} of {self._config.processing.total_muxers}"
            advice = "with more recordings that would be odd: compare muxer_id, muxer_type and total_muxers of all instances"
            yield ok("shard", share) if ours else warning("shard", share, advice)

    def _count(self, query: str, *, is_repeated: bool = False) -> tuple[int, int, bool]:
        """Walk through the query; return how many recordings it finds, how many are ours, and whether that is all. The first
        ones are kept. `is_repeated` is True after a page was refused: RWS may refuse it always."""
        found = ours = 0
        self.calls = []
        deadline = time.monotonic() + COUNT_SECONDS
        try:
            for page in self.rws.call_recordings(query):
                mine = [call for call in page if takes(self._config.processing, call.id)]
                self.calls += (mine or page)[: LOOKED_AT - len(self.calls)]
                found, ours = found + len(page), ours + len(mine)
                if time.monotonic() > deadline:
                    return found, ours, False
        except QueryIncomplete as error:
            self._incomplete = str(error)
            return found, ours, False
        except ServiceUnavailable:
            if is_repeated or not found:
                raise
            return self._count(query, is_repeated=True)
        return found, ours, True

    def _paging(self) -> Iterator[Finding]:
        """Report how RWS continues a page, when it does so in a way that the muxer does not know."""
        seen = self.rws.deviations.texts
        advice = "the muxer reads them in another way, which takes longer: see docs/gir-api.md, section 9, and report it"
        yield from (failed(PAGES, seen[kind], advice) for kind in PAGING if kind in seen)
        if self._incomplete:
            yield failed(PAGES, self._incomplete, "recordings are missed: do what the text says, and report it")

    def _span(self) -> str:
        if self._config.advanced.call_recording_query_string:
            return "[advanced] call_recording_query_string"
        processing, now = self._config.processing, datetime.now().astimezone()
        ends = (now - timedelta(minutes=one) for one in (processing.window_past, processing.window_past_older_than))
        return "from {:%Y-%m-%d %H:%M} to {:%Y-%m-%d %H:%M %Z}".format(*ends)

    def _nothing_found(self) -> str:
        """Say what to look at when a query finds nothing; ask once more without the further parameters."""
        advanced, processing = self._config.advanced, self._config.processing
        if advanced.call_recording_query_string:
            return "correct [advanced] call_recording_query_string: times are epoch milliseconds"
        past, older = processing.window_past, processing.window_past_older_than
        bare = window.window_query(datetime.now(UTC), past, older, 1, "")
        if any(self.rws.call_recordings(bare)):
            return (
                "there are recordings in that time, but none with [advanced] call_recording_extra_query_string (built in: "
                "calls whose screen was recorded): see whether screens are recorded, or correct that option"
            )
        return (
            "if calls were recorded in that time: correct [processing] window_past and window_past_older_than (minutes "
            "before now), [htcc] contact_center_id, or the clock; RWS shows the recordings of its own region only"
        )

    def _screens(self) -> Iterator[Finding]:
        """Read the screen recordings of what was found; without any, ask for one that nobody has."""
        check, bulk = "RWS screen recordings", self._config.processing.batch_read_screen_recording_metadata
        problems: list[str] = []
        ids = [call.id for call in self.calls] or ["recording-muxer-check"]
        self.screens = self.rws.screen_recordings(ids, bulk, lambda one, error: problems.append(f"{one}: {error}"))
        how = "one by one" if not bulk else "in bulk"
        text = f"read {how}: {len(self.screens)} of the first {len(self.calls)} call recordings have one"
        if problems:
            advice = "the muxer skips these and asks again at each poll: look into the log of RWS"
            yield warning(check, f"{text}; RWS fails for {len(problems)}: {problems[0]}", advice)
        elif bulk and not self.rws.reads_in_bulk:
            advice = "nothing is lost; set [processing] batch_read_screen_recording_metadata = 0 to spare the attempt"
            ignores_ids = Deviation.BULK_IGNORES_IDS in self.rws.deviations.texts
            what = "RWS ignores the ids of the bulk query" if ignores_ids else "RWS has no bulk query"
            yield warning(check, f"{what}; they are read one by one", advice)
        else:
            yield ok(check, text)

    def encrypted(self) -> Iterator[tuple[str, str, bool, tuple[str, ...]]]:
        """Yield recording, mediaId, whether it is a screen file, and relative paths, of all encrypted media seen."""
        for call in self.calls:
            yield from ((call.id, one.media_id, False, one.paths) for one in call.audio if one.is_encrypted)
            if (screen := self.screens.get(call.id)) is not None:
                yield from ((call.id, one.media_id, True, one.paths) for one in screen.screens if one.is_encrypted)
