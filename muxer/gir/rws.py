"""The client of Interaction Recording Web Services: one function for each call of gir-api, sections 2 to 7."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from muxer.config import query_string
from muxer.errors import (
    EncryptionMissing,
    Forbidden,
    MediaNotFound,
    MetadataError,
    NotFound,
    RequestRejected,
    ServiceFailed,
    ServiceUnavailable,
    UnknownContactCenter,
    UnreadableResponse,
)
from muxer.gir.deviations import Deviation, DeviationLog
from muxer.gir.labels import LabelClient
from muxer.gir.links import LINK_HEADER, header_link
from muxer.gir.listing import RecordingListing
from muxer.gir.models import CallRecording, Json, ScreenRecording, merge_recordings
from muxer.gir.paging import WAS_RETRIED
from muxer.gir.responses import OK, PARTIAL_SUCCESS
from muxer.gir.session import READ_ATTEMPTS, ServiceSession
from muxer.net.transfer import ReceivedLength
from muxer.status.advice import unknown_center_advice

log = logging.getLogger(__name__)

# The URL must be shorter than 7,500 bytes (gir-api, section 4); 1,000 are reserved for everything but the ids.
MAX_IDS_BYTES = 7500 - 1000
MAX_REMEMBERED_LABELS = 100_000
# Failures in a row that are no outage yet: enough to get from a slice of some hundred recordings to the one that makes
# RWS fail; and recordings in a row for which RWS has an internal error.
MAX_FAILURES_IN_A_ROW, MAX_BAD_IN_A_ROW = 10, 20
# The number of ids missing in a bulk response that are read one by one, to check that RWS reads the ids.
MAX_CROSS_CHECKS = 5
_VERSION_PATH = "api/v2/diagnostics/version"


@dataclass(frozen=True)
class Certificate:
    """A certificate to encrypt muxed files for: its alias in RCS and its PEM text."""

    alias: str
    pem: str


SkipCallback = Callable[[str, Exception], None]


def warn_skipped(recording_id: str, error: Exception) -> None:
    """Log that a recording is skipped."""
    log.warning("the screen recording of %s is skipped: %s", recording_id, error)


class _FailureStreak:
    """Counts failures in a row, to distinguish one bad recording from an outage; `skip` is called for the bad ones."""

    def __init__(self, skip: SkipCallback) -> None:
        self._skip = skip
        self._failures = 0
        self.skipped: set[str] = set()
        # Whether a bulk query had to be sent in parts.
        self.has_parts = False

    def skip_recording(self, recording_id: str, error: Exception) -> None:
        self.skipped.add(recording_id)
        self._skip(recording_id, error)

    def record_failure(self, error: ServiceUnavailable | Forbidden) -> None:
        """Count a failure; raise it when there are too many."""
        self._failures += 1
        if self._failures > (MAX_BAD_IN_A_ROW if isinstance(error, ServiceFailed) else MAX_FAILURES_IN_A_ROW):
            raise error

    def record_success(self) -> None:
        self._failures = 0


class RwsClient(LabelClient):
    """The client of RWS. Safe to use from any thread."""

    def __init__(self, session: ServiceSession, contact_center_id: str) -> None:
        self._session, self._contact_center_id = session, contact_center_id
        contact_center = f"contact-centers/{quote(contact_center_id, safe='')}"
        super().__init__(f"api/v2/ops/{contact_center}", DeviationLog(), MAX_REMEMBERED_LABELS)
        self._screens = f"internal-api/{contact_center}/screen-recordings"
        self._settings = f"{self._ops}/settings/screen-recording-encryption"
        self._listing = RecordingListing(self._fetch_page, self.deviations, partial(self._fetch_page, attempts=1))
        self._bulk, self._ignores_ids = True, False
        # The first bulk query is sent alone: its response shows whether others follow.
        self._first_bulk, self._has_tried_bulk = threading.Lock(), False
        # Whether a bulk query has returned anything that was requested, and the greatest number of recordings in a response
        # that single reads have confirmed.
        self._has_returned, self._confirmed = False, 0
        # How many bulk responses were trusted that lack some of the recordings; and of these, how many a migration knows.
        self._trusted_gaps = self._taken_gaps = 0
        self._version_warned = False
        self._certificates: tuple[Certificate, ...] = ()

    def fetch_version(self) -> tuple[int, int, int, int] | None:
        """Return the version of RWS as four integers, None when it cannot be read (counts as the oldest)."""
        try:
            text = str(self._session.get(_VERSION_PATH, missing=_no_version, is_public=True).get("version") or "")
        except (RequestRejected, UnreadableResponse) as error:
            text = str(error)
        parsed = query_string.parse_version(text)
        if parsed is None and not self._version_warned:
            self._version_warned = True
            log.warning("RWS returns no readable version (%s); it is treated as an old one", text[:200])
        return parsed

    def fetch_headers(self) -> Mapping[str, str]:
        """Return the headers of a response without authentication: the clock of RWS, and its CSRF token, if any."""
        return self._session.fetch_headers(_VERSION_PATH)

    @property
    def reads_in_bulk(self) -> bool:
        """Whether the bulk query of screen recordings has worked so far, or was not tried."""
        return self._bulk

    def read_call_recordings(self, query_string: str) -> Iterator[list[CallRecording]]:
        """Yield the recordings of an encoded query page by page, each id once. Raises QueryIncomplete after the last."""
        for page in self._listing.read_pages(f"{self._ops}/recordings?{query_string}"):
            yield list(_readable_recordings(page))

    def _fetch_page(self, link: str, attempts: int = READ_ATTEMPTS) -> Json:
        """Return the response to a query or link, with the target of its `Link` header among its keys."""
        is_query = urlsplit(link).path.strip("/") == f"{self._ops}/recordings"
        content, headers = self._session.get_with_headers(link, attempts, self._unknown_center if is_query else None)
        if self._session.was_retried:
            content = {**content, WAS_RETRIED: True}
        following = header_link(headers.get("Link", ""))
        return content if following is None else {**content, LINK_HEADER: following}

    def _unknown_center(self, error: NotFound) -> UnknownContactCenter:
        unknown = UnknownContactCenter(f"RWS does not know contact center {self._contact_center_id}: {error}")
        unknown.advice = unknown_center_advice(is_rws=error.status_code != OK)
        return unknown

    def fetch_call_recording(self, recording_id: str) -> CallRecording | None:
        """Return a call recording, None when it does not exist."""
        try:
            content = self._session.get(f"{self._ops}/recordings/{quote(recording_id, safe='')}")
        except NotFound:
            return None
        return CallRecording.from_json(content.get("recording") or content)

    def fetch_screen_recording(self, recording_id: str) -> ScreenRecording | None:
        """Return the screen recording of a call, None when it does not exist."""
        try:
            content = self._session.get(self.screen_path(recording_id))
        except NotFound:
            return None
        return ScreenRecording.from_json(content.get("recording") or content)

    def fetch_screen_recordings(
        self, ids: Sequence[str], bulk: bool = True, skip: SkipCallback = warn_skipped
    ) -> dict[str, ScreenRecording]:
        """Return the existing screen recordings of calls by id. `skip` is called for each that RWS fails for."""
        if bulk and not self._has_tried_bulk:
            with self._first_bulk:
                if not self._has_tried_bulk:
                    try:
                        return self._fetch_slices(ids, bulk, skip)
                    finally:
                        # After an error, too: during an outage the others must not wait for one timeout after the other.
                        self._has_tried_bulk = True
        return self._fetch_slices(ids, bulk, skip)

    def _fetch_slices(self, ids: Sequence[str], bulk: bool, skip: SkipCallback) -> dict[str, ScreenRecording]:
        streak, found = _FailureStreak(skip), list[ScreenRecording]()
        odd = [one for one in ids if not _fits_bulk_query(one)]
        remaining = [one for one in ids if _fits_bulk_query(one)]
        while remaining and bulk and self._bulk:
            slice_ = _fitting_ids(remaining)
            try:
                screens = self._fetch_in_parts(slice_, streak)
            except (RequestRejected, Forbidden) as error:
                self._leave_bulk(Deviation.NO_BULK, f"RWS has no bulk query of screen recordings ({error})")
            else:
                if self._ignores_ids:  # as another thread has found meanwhile
                    break
                if not self._bulk or self._is_understood(slice_, screens, streak):
                    found += screens
                    remaining = remaining[len(slice_) :]
        return merge_recordings([*found, *self._fetch_singly([*remaining, *odd], streak)])

    @property
    def ignores_ids(self) -> bool:
        """Whether RWS was found to ignore the ids of the bulk query."""
        return self._ignores_ids

    @property
    def trusted_gaps(self) -> int:
        """How many bulk responses that lack recordings were trusted so far."""
        return self._trusted_gaps

    def take_missed_screens(self) -> bool:
        """Return, once, whether a bulk response that lacks recordings was trusted, and RWS ignores ids.

        When bulk queries have returned nothing at all, that is unknown: they are not used any more.
        """
        has_gaps, self._taken_gaps = self._trusted_gaps > self._taken_gaps, self._trusted_gaps
        has_missed = has_gaps and (self._ignores_ids or not self._has_returned)
        self._bulk = self._bulk and not has_missed
        return has_missed

    def _leave_bulk(self, kind: Deviation, text: str) -> None:
        self._bulk = False
        self.deviations.record_deviation(kind, f"{text}; reading them one by one")

    def _is_understood(self, ids: Sequence[str], screens: list[ScreenRecording], streak: _FailureStreak) -> bool:
        """Return whether RWS has read the `ids` of a bulk query; some that are missing are read one by one.

        A server may ignore the ids, and return nothing, other recordings, or recordings without their media. Or it cuts
        a long response: then it has more for the ids that are missing. What has arrived in between is added to `screens`.
        """
        wanted = set(ids)
        shown = {one.id for one in screens if one.media or one.id not in wanted}
        missing = [one for one in ids if one not in shown and one not in streak.skipped]
        if shown <= wanted:
            self._has_returned = self._has_returned or bool(shown)
            if not missing:
                return True
            if 0 < len(shown) < self._confirmed:
                self._trusted_gaps += 1
                return True
            sample = missing[:: -(-len(missing) // MAX_CROSS_CHECKS)]
            others = list(self._fetch_singly(sample, streak))
            if shown and len(sample) < len(missing):
                others += self._fetch_in_parts(missing, streak)
            late = {one.id for one in others if one.media}
            # What has arrived in between is there now, where bulk queries have returned anything.
            again = self._fetch_in_parts(ids, streak) if late and self._has_returned else []
            if late <= {one.id for one in again if one.media}:
                screens += (one for one in again if one.id not in shown)
                # Where responses are cut, several together may be longer than one.
                self._confirmed = self._confirmed if streak.has_parts else max(self._confirmed, len(shown))
                self._trusted_gaps += 1
                return True
        what = "returns others than those requested"
        if shown <= wanted:
            what = "leaves out some that exist, or their media"
        self._ignores_ids = True
        self._leave_bulk(Deviation.BULK_IGNORES_IDS, f"the bulk query of screen recordings {what}: RWS ignores its ids")
        return False

    def _fetch_in_parts(self, ids: Sequence[str], streak: _FailureStreak) -> list[ScreenRecording]:
        """Read a slice in bulk; when RWS fails, read its halves, so that one bad recording affects only itself."""
        if not self._bulk:
            return list(self._fetch_singly(ids, streak))
        try:
            screens = self._fetch_in_bulk(ids)
        except ServiceUnavailable as error:
            # An internal error may be that of any recording in the slice: only single ones are counted.
            if not isinstance(error, ServiceFailed):
                streak.record_failure(error)
            if len(ids) == 1:
                return self._fetch_alone(ids[0], error, streak)
            half, streak.has_parts = len(ids) // 2, True
            return [*self._fetch_in_parts(ids[:half], streak), *self._fetch_in_parts(ids[half:], streak)]
        streak.record_success()
        return screens

    def _fetch_alone(self, one: str, error: ServiceUnavailable, streak: _FailureStreak) -> list[ScreenRecording]:
        """Read a screen recording alone, for which the bulk query has failed. When that works, no bulk query follows."""
        screens = list(self._fetch_singly([one], streak))
        if one not in streak.skipped:
            self._leave_bulk(Deviation.NO_BULK, f"RWS fails at the bulk query of screen recordings ({error})")
        return screens

    def _fetch_singly(self, ids: Sequence[str], streak: _FailureStreak) -> Iterator[ScreenRecording]:
        for one in ids:
            try:
                screen = self.fetch_screen_recording(one)
            except (RequestRejected, Forbidden, MetadataError, ServiceUnavailable) as error:
                if isinstance(error, (ServiceUnavailable, Forbidden)):
                    streak.record_failure(error)
                streak.skip_recording(one, error)
                continue
            streak.record_success()
            if screen is not None:
                yield screen

    def _fetch_in_bulk(self, ids: Sequence[str]) -> list[ScreenRecording]:
        joined = ",".join(quote(one, safe="") for one in ids)
        content = self._session.get(f"{self._screens}?ids={joined}", accepted=(OK, PARTIAL_SUCCESS))
        recordings = content.get("recordings")
        found = []
        for raw in recordings if isinstance(recordings, list) else []:
            try:
                found.append(ScreenRecording.from_json(raw))
            except MetadataError as error:
                log.warning("a screen recording is skipped: %s", error)
        return found

    def fetch_certificates(self) -> tuple[Certificate, ...]:
        """Return the certificates to encrypt for, empty without encryption. Raises EncryptionMissing if unreadable."""
        try:
            settings = self._session.get(self._settings).get("settings")
        except NotFound:
            return ()
        named = {
            str(one.get("name", "")).lower(): str(one.get("value") or "")
            for one in (settings if isinstance(settings, list) else [])
            if isinstance(one, dict)
        }
        numbers = sorted((m[1] for name in named if (m := re.fullmatch(r"certificate-(\d{1,9})", name))), key=int)
        certificates = [
            Certificate(named.get(f"certificatealias-{number}", ""), named[f"certificate-{number}"].strip())
            for number in numbers
        ]
        if (settings and not certificates) or not all(certificate.pem for certificate in certificates):
            raise EncryptionMissing("RWS has encryption settings that lack a certificate, or cannot be read")
        self._certificates = tuple(certificates)
        return self._certificates

    def known_certificates(self) -> tuple[Certificate, ...]:
        """Return the certificates that were read last, without a request."""
        return self._certificates

    def post_media(self, recording_id: str, region: str, media_files: Sequence[Json]) -> None:
        """Post media entries (gir-api, section 5) once."""
        body = {"id": recording_id, "region": region, "mediaFiles": list(media_files)}
        self._send_json("POST", self._screens, body)

    def delete_media(self, recording_id: str, media_id: str) -> None:
        """Delete a media entry of a screen recording if it exists."""
        try:
            self._send_json("DELETE", f"{self.screen_path(recording_id)}/content/{quote(media_id, safe='')}")
        except NotFound:
            log.debug("%s: %s is deleted already", recording_id, media_id)

    def download_media(self, uri: str, path: Path) -> ReceivedLength:
        """Stream the clear file at the mediaUri `uri` to `path` and return its length in bytes. Raises MediaNotFound."""
        try:
            return self._session.download_media(uri, path)
        except NotFound as error:
            raise MediaNotFound(f"RWS does not find the media: {error}") from error

    def check_media(self, uri: str) -> None:
        """Check that RWS would deliver the media at the mediaUri `uri`, without reading it. Raises MediaNotFound."""
        try:
            self._session.check_media(uri)
        except NotFound as error:
            raise MediaNotFound(f"RWS does not find the media: {error}") from error

    def _send_json(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        return self._session.write(method, path, body, csrf_sources=(_VERSION_PATH, self._settings))

    def screen_path(self, recording_id: str) -> str:
        """Return the API path of a screen recording."""
        return f"{self._screens}/{quote(recording_id, safe='')}"


def _no_version(error: NotFound) -> UnreadableResponse:
    """Return the error of a server without a version: it is not RWS, so that its response is no sign that RWS works."""
    return UnreadableResponse(str(error))


def _readable_recordings(page: Sequence[object]) -> Iterator[CallRecording]:
    for raw in page:
        try:
            yield CallRecording.from_json(raw)
        except MetadataError as error:
            log.warning("a call recording is skipped: %s", error)


def _fits_bulk_query(one: str) -> bool:
    """Whether an id can be in a list of ids: it contains no comma, and is not too long for a URL."""
    return "," not in one and len(quote(one, safe="")) <= MAX_IDS_BYTES


def _fitting_ids(ids: Sequence[str]) -> list[str]:
    """Return the first ids whose encoded forms fit into one URL, at least one."""
    room = MAX_IDS_BYTES
    fitting: list[str] = []
    for one in ids:
        room -= len(quote(one, safe="")) + 1
        if fitting and room < 0:
            break
        fitting.append(one)
    return fitting
