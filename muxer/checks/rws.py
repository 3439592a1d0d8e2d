"""Checks of RWS: credentials, contact center, version, CSRF, clock, and the results of the query of the muxer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from muxer.app.assembly import create_circuit_breaker, create_rws
from muxer.checks.checklist import Check, Finding, failed_finding, passed_finding, warning_finding
from muxer.checks.connection import CheckedServer
from muxer.config.schema import Config, HtccOptions
from muxer.errors import AuthenticationFailed, QueryIncomplete, ServiceUnavailable, UnknownContactCenter
from muxer.gir.deviations import PAGING_DEVIATIONS, Deviation
from muxer.gir.models import CallRecording, ScreenRecording
from muxer.gir.rws import RwsClient
from muxer.gir.session import csrf_header
from muxer.net.circuit_breaker import RWS
from muxer.polling import window
from muxer.polling.poll_query import PollQuery
from muxer.polling.poller import MAX_BAD_RECORDINGS
from muxer.polling.schedule import PollSchedule
from muxer.polling.sharding import effective_shard, is_mine
from muxer.status.advice import advice_for
from muxer.status.formatting import format_span

# Requirement of the Genesys guide.
MIN_RWS_VERSION = (8, 5, 205, 32)
MAX_SKEW_SECONDS = 60
# Limits for counting the pages of the window and for the recordings that are examined.
MAX_COUNT_SECONDS = 20.0
QUERY_TIMEOUT_SECONDS = 120.0
MAX_EXAMINED = 50
HTCC_OPTIONS = tuple(f"[htcc] {one.name}" for one in fields(HtccOptions))
_QUERY_OPTIONS = (
    *("[processing] window_past", "[processing] window_past_older_than", "[advanced] pagination"),
    *("[advanced] call_recording_query_string", "[advanced] call_recording_extra_query_string"),
)
_SHARDING_OPTIONS = tuple(f"[processing] {name}" for name in ("muxer_id", "total_muxers", "muxer_type"))
WINDOW_CHECK = "RWS window"
PAGES_CHECK = "RWS pages"


class RwsChecks:
    """The checks of RWS. `calls` and `screens` are the first results of the query, for the checks of their media."""

    def __init__(self, config: Config, stop: threading.Event) -> None:
        self._config, self._stop = config, stop
        self.server = CheckedServer("RWS", config.htcc.base_uri or "", "htcc", config.htcc.trusted_ca)
        self.calls: list[CallRecording] = []
        self.screens: dict[str, ScreenRecording] = {}
        self._client: RwsClient | None = None
        self._incomplete = ""

    @property
    def rws_client(self) -> RwsClient:
        """The client, created when it is first needed."""
        if self._client is None:
            self._client = create_rws(self._config, self._stop, create_circuit_breaker(self._config))
        return self._client

    def create_checks(self) -> Iterator[Check]:
        """Yield the checks in the order of their dependencies."""
        yield from self.server.create_checks(("[htcc] base_uri", "[htcc] trusted_ca"))
        way = ("RWS address", "RWS TLS")
        yield Check("RWS version", self._check_version, (*HTCC_OPTIONS, *way), "htcc")
        there = (*HTCC_OPTIONS, *way, "RWS version")
        yield Check("RWS clock", self._check_clock, there, "htcc")
        yield Check("RWS CSRF token", self._check_csrf, there, "htcc")
        yield Check("RWS login", self._check_login, there, "htcc")
        logged_in = (*there, "RWS contact center", "RWS login")
        options = (*logged_in, *_QUERY_OPTIONS, *_SHARDING_OPTIONS)
        yield Check(WINDOW_CHECK, self._check_window, options, "htcc", QUERY_TIMEOUT_SECONDS)
        batch = "[processing] batch_read_screen_recording_metadata"
        yield Check("RWS screen recordings", self._check_screens, (*logged_in, batch), "htcc", QUERY_TIMEOUT_SECONDS)

    def _check_version(self) -> Iterator[Finding]:
        """Send the first request, without credentials: it also shows whether the server is RWS."""
        try:
            found = self.rws_client.fetch_version()
        except AuthenticationFailed as error:
            advice = "RWS returns its version without authentication, so this is probably not RWS: correct [htcc] base_uri"
            yield failed_finding("RWS version", str(error), advice)
            return
        except ServiceUnavailable as error:
            yield failed_finding("RWS version", str(error), advice_for(error, "htcc"))
            return
        least = ".".join(map(str, MIN_RWS_VERSION))
        if found is None:
            advice = "make sure that [htcc] base_uri is the address of RWS, not of another web server or a proxy"
            yield warning_finding("RWS version", "RWS returns no readable version; it is treated as an old one", advice)
        elif found < MIN_RWS_VERSION:
            text = ".".join(map(str, found))
            yield warning_finding("RWS version", text, f"the Genesys guide asks for {least} or later: update RWS")
        else:
            yield passed_finding("RWS version", ".".join(map(str, found)))

    def _check_clock(self) -> Iterator[Finding]:
        before = datetime.now(UTC)
        date = self.rws_client.fetch_headers().get("Date", "")
        here = before + (datetime.now(UTC) - before) / 2
        try:
            there = parsedate_to_datetime(date)
        except ValueError:
            yield passed_finding("RWS clock", "RWS does not return its time")
            return
        skew = round((here - there.astimezone(UTC)).total_seconds())
        if abs(skew) > MAX_SKEW_SECONDS:
            text = f"the clock of this machine is {abs(skew)} s {'ahead of' if skew > 0 else 'behind'} that of RWS"
            yield warning_finding(
                "RWS clock", text, "synchronize both by NTP: the window of the query depends on the clock of this machine"
            )
        else:
            yield passed_finding("RWS clock", f"{abs(skew)} s apart")

    def _check_csrf(self) -> Iterator[Finding]:
        token = csrf_header(self.rws_client.fetch_headers(), RWS)
        yield passed_finding("RWS CSRF token", f"in use ({', '.join(token)})" if token else "RWS requires none")

    def _check_login(self) -> Iterator[Finding]:
        """Read one page with one recording; any response but a rejection shows that the credentials are right."""
        try:
            with suppress(QueryIncomplete):  # The check of the pages reports this.
                next(self.rws_client.read_call_recordings(window.window_query(datetime.now(UTC), 1, 0, 1, "")), None)
        except UnknownContactCenter as error:
            yield passed_finding("RWS login", self._account_text)
            yield failed_finding("RWS contact center", str(error), advice_for(error, "htcc"))
        except AuthenticationFailed as error:
            yield failed_finding("RWS login", f"{self._account_text}: {error}", advice_for(error, "htcc"))
        else:
            yield passed_finding("RWS login", self._account_text)
            yield passed_finding("RWS contact center", self._config.htcc.contact_center_id)

    @property
    def _account_text(self) -> str:
        return f"as {self._config.htcc.username}"

    def _check_window(self) -> Iterator[Finding]:
        query = PollQuery(self._config, self.rws_client).build_query()
        found, ours, whole = self._count_recordings(query)
        yield from self._check_paging()
        more = "" if whole else " or more (not counted to the end)"
        text = f"{self._window_text()}: {found} call recordings{more}"
        if not found and self._incomplete:
            return
        if not found:
            yield warning_finding(WINDOW_CHECK, text, self._empty_window_advice())
            return
        yield passed_finding(WINDOW_CHECK, text)
        if not self._config.advanced.call_recording_query_string:
            yield passed_finding("polls", self._polls_text())
        mine = effective_shard(self._config.processing)
        if mine is not None:
            share = f"{ours} of {found} belong to shard {mine} of {self._config.processing.total_muxers}"
            advice = "if the window has many recordings, compare muxer_id, muxer_type and total_muxers of all instances"
            yield passed_finding("shard", share) if ours else warning_finding("shard", share, advice)

    def _count_recordings(self, query: str, *, is_repeated: bool = False) -> tuple[int, int, bool]:
        """Return how many recordings the query finds, how many are ours, and whether that is all; keep the first ones."""
        found = ours = 0
        self.calls = []
        deadline = time.monotonic() + MAX_COUNT_SECONDS
        try:
            for page in self.rws_client.read_call_recordings(query):
                mine = [call for call in page if is_mine(self._config.processing, call.id)]
                self.calls += (mine or page)[: MAX_EXAMINED - len(self.calls)]
                found, ours = found + len(page), ours + len(mine)
                if time.monotonic() > deadline:
                    return found, ours, False
        except QueryIncomplete as error:
            self._incomplete = str(error)
            return found, ours, False
        except ServiceUnavailable:
            if is_repeated or not found:
                raise
            return self._count_recordings(query, is_repeated=True)
        return found, ours, True

    def _check_paging(self) -> Iterator[Finding]:
        """Report when RWS continues a page in a way that the muxer does not know."""
        seen = self.rws_client.deviations.first_texts
        advice = "the muxer reads them in a slower way: see docs/gir-api.md, section 9, and report it"
        yield from (failed_finding(PAGES_CHECK, seen[kind], advice) for kind in PAGING_DEVIATIONS if kind in seen)
        if Deviation.SMALLER_PAGES in seen:
            yield warning_finding(PAGES_CHECK, seen[Deviation.SMALLER_PAGES], "no recording is lost: follow the text")
        if self._incomplete:
            yield failed_finding(PAGES_CHECK, self._incomplete, "recordings are missed: follow the text, and report it")

    def _polls_text(self) -> str:
        """Return how often a poll reads which part of the window."""
        schedule = PollSchedule.from_options(self._config.processing)
        first, last, interval = schedule.reaches[0], schedule.reaches[-1], self._config.processing.min_poll_interval * 60
        if self._config.processing.poll_whole_window or len(schedule.reaches) == 1:
            return f"every {format_span(interval)} over the whole window"
        newest = f"every {format_span(interval)} over the last {format_span(first.seconds)} of the window"
        return f"{newest}, every {format_span(last.period)} over the whole window, see docs/running.md"

    def _window_text(self) -> str:
        if self._config.advanced.call_recording_query_string:
            return "[advanced] call_recording_query_string"
        processing, now = self._config.processing, datetime.now().astimezone()
        ends = (now - timedelta(minutes=one) for one in (processing.window_past, processing.window_past_older_than))
        return "from {:%Y-%m-%d %H:%M} to {:%Y-%m-%d %H:%M %Z}".format(*ends)

    def _empty_window_advice(self) -> str:
        """Return what to check when a query finds nothing; query once more without the extra parameters."""
        advanced, processing = self._config.advanced, self._config.processing
        if advanced.call_recording_query_string:
            return "correct [advanced] call_recording_query_string: times are epoch milliseconds"
        past, older = processing.window_past, processing.window_past_older_than
        bare = window.window_query(datetime.now(UTC), past, older, 1, "")
        if any(self.rws_client.read_call_recordings(bare)):
            return (
                "there are recordings in that time, but none with [advanced] call_recording_extra_query_string (built in: "
                "calls whose screen was recorded): make sure that screens are recorded, or correct that option"
            )
        return (
            "if calls were recorded in that time: correct [processing] window_past and window_past_older_than (minutes "
            "before now), [htcc] contact_center_id, or the clock; RWS shows the recordings of its own region only"
        )

    def _check_screens(self) -> Iterator[Finding]:
        """Read the screen recordings of the calls; without any, one with an unknown id."""
        check, bulk = "RWS screen recordings", self._config.processing.batch_read_screen_recording_metadata
        problems: dict[str, Exception] = {}
        ids = [call.id for call in self.calls] or ["recording-muxer-check"]
        self.screens = self.rws_client.fetch_screen_recordings(ids, bulk, problems.__setitem__)
        if len(problems) == len(ids) > MAX_BAD_RECORDINGS:
            raise problems[ids[0]]  # as a poll does
        how = "one by one" if not bulk else "in bulk"
        text = f"read {how}: {len(self.screens)} of the first {len(self.calls)} call recordings have one"
        if problems:
            advice = "the muxer skips these and reads them again at each poll: check the log of RWS"
            one, error = next(iter(problems.items()))
            yield warning_finding(check, f"{text}; RWS fails for {len(problems)}: {one}: {error}", advice)
        elif bulk and not self.rws_client.reads_in_bulk:
            advice = "no recording is lost; set [processing] batch_read_screen_recording_metadata = 0 to avoid the attempt"
            ignores_ids = Deviation.BULK_IGNORES_IDS in self.rws_client.deviations.first_texts
            what = "RWS ignores the ids of the bulk query" if ignores_ids else "RWS has no bulk query"
            yield warning_finding(check, f"{what}; they are read one by one", advice)
        else:
            yield passed_finding(check, text)

    def encrypted_media(self) -> Iterator[tuple[str, str, bool, tuple[str, ...]]]:
        """Yield recording, mediaId, whether it is a screen file, and relative paths, of all encrypted media seen."""
        for call in self.calls:
            yield from ((call.id, one.media_id, False, one.relative_paths) for one in call.audio if one.is_encrypted)
            if (screen := self.screens.get(call.id)) is not None:
                yield from (
                    (call.id, one.media_id, True, one.relative_paths) for one in screen.screen_files if one.is_encrypted
                )
