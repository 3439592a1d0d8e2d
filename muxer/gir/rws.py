"""The client of Interaction Recording Web Services: one function for each call of gir-api, sections 2 to 7."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from muxer.errors import (
    AlreadyExists,
    EncryptionMissing,
    Forbidden,
    MediaNotFound,
    MetadataError,
    NotFound,
    RequestRejected,
    ServiceUnavailable,
    UnreadableAnswer,
)
from muxer.gir import query
from muxer.gir.answers import OK, PARAMETER_INVALID, PARTIAL_SUCCESS
from muxer.gir.models import CallRecording, Json, ScreenRecording, merged
from muxer.gir.paging import Pages
from muxer.gir.session import Session
from muxer.remembered import Remembered
from muxer.transfer import Received

log = logging.getLogger(__name__)

LABEL = "screenRecording"
# The whole URL must stay below 7,500 bytes (gir-api, section 4); this much is kept for everything but the ids.
MAX_IDS_BYTES = 7500 - 1000
LABEL_PAUSE_SECONDS = 3600.0
REMEMBERED_LABELS = 100_000
# Enough to come from a slice of some hundred recordings down to the one that makes RWS fail.
FAILURES_IN_A_ROW = 9
_VERSION = "api/v2/diagnostics/version"


@dataclass(frozen=True)
class Certificate:
    """A certificate for which muxed files are encrypted: its alias in RCS and the PEM text."""

    alias: str
    pem: str


Skip = Callable[[str, Exception], None]


def warn_of_skipped(recording_id: str, error: Exception) -> None:
    """Log that a recording is left out."""
    log.warning("the screen recording of %s is skipped: %s", recording_id, error)


class _Trouble:
    """Counts failures in a row, to tell one bad recording from a service that is down; ``skip`` is told the bad ones."""

    def __init__(self, skip: Skip) -> None:
        self.skip = skip
        self._failures = 0

    def meet(self, error: ServiceUnavailable) -> None:
        """Note a failure; raise it when there have been too many."""
        self._failures += 1
        if self._failures > FAILURES_IN_A_ROW:
            raise error

    def over(self) -> None:
        """Note a success."""
        self._failures = 0


class Rws:
    """RWS as the muxer sees it. Safe to use from any thread."""

    def __init__(self, session: Session, contact_center_id: str) -> None:
        self._session = session
        contact_center = f"contact-centers/{quote(contact_center_id, safe='')}"
        self._ops = f"api/v2/ops/{contact_center}"
        self._screens = f"internal-api/{contact_center}/screen-recordings"
        self._settings = f"{self._ops}/settings/screen-recording-encryption"
        self._bulk = True
        self._labels_refused_until = 0.0
        self._labelled = Remembered(REMEMBERED_LABELS)
        self._version_warned = False
        self._certificates: tuple[Certificate, ...] = ()
        self._lock = threading.Lock()

    def version(self) -> tuple[int, int, int, int] | None:
        """Return the version of RWS as four integers, None when it cannot be read (older than everything)."""
        try:
            text = str(self._session.get(_VERSION).get("version") or "")
        except (RequestRejected, UnreadableAnswer) as error:
            text = str(error)
        parsed = query.parse_version(text)
        if parsed is None and not self._version_warned:
            self._version_warned = True
            log.warning("RWS tells no version that can be read (%s); it is taken for an old one", text[:200])
        return parsed

    def headers(self) -> Mapping[str, str]:
        """Return the headers of an answer that needs no login: the clock of RWS, and its CSRF token, if any."""
        return self._session.headers(_VERSION)

    @property
    def reads_in_bulk(self) -> bool:
        """Whether the bulk query of screen recordings has worked so far, or was not tried."""
        return self._bulk

    def call_recordings(self, query_string: str) -> Iterator[list[CallRecording]]:
        """Given an encoded query, yield the call recordings that it finds, page by page, each id once.

        A recording that cannot be read is skipped with a warning. Raise the errors of the session.
        """
        for page in Pages(self._session.get, f"{self._ops}/recordings?{query_string}"):
            yield list(_readable(page))

    def call_recording(self, recording_id: str) -> CallRecording | None:
        """Given its id, return one call recording, None when RWS does not know it."""
        try:
            answer = self._session.get(f"{self._ops}/recordings/{quote(recording_id, safe='')}")
        except NotFound:
            return None
        return CallRecording.read(answer.get("recording") or answer)

    def screen_recording(self, recording_id: str) -> ScreenRecording | None:
        """Given the id of a call recording, return its screen recording, None when there is none."""
        try:
            answer = self._session.get(self.screen_path(recording_id))
        except NotFound:
            return None
        return ScreenRecording.read(answer.get("recording") or answer)

    def screen_recordings(
        self, ids: Sequence[str], bulk: bool = True, skip: Skip = warn_of_skipped
    ) -> dict[str, ScreenRecording]:
        """Given ids of call recordings, return the screen recordings that exist, by id.

        In bulk as far as the URL's length allows; a server that does not know the bulk call is asked one by one for the
        rest of the run. ``skip`` is told each recording that RWS fails for, and why.
        """
        found: list[ScreenRecording] = []
        trouble = _Trouble(skip)
        odd = [one for one in ids if not _may_be_bulk(one)]
        remaining = [one for one in ids if _may_be_bulk(one)]
        while remaining and bulk and self._bulk:
            slice_ = _fitting(remaining)
            try:
                found += self._screens_in_parts(slice_, trouble)
            except RequestRejected as error:
                self._bulk = False
                log.warning("RWS has no bulk query of screen recordings (%s); reading them one by one", error)
            else:
                remaining = remaining[len(slice_) :]
        return merged([*found, *self._screens_singly([*remaining, *odd], trouble)])

    def _screens_in_parts(self, ids: Sequence[str], trouble: _Trouble) -> list[ScreenRecording]:
        """Read a slice in bulk; when RWS fails, read its halves, so that one bad recording costs only itself."""
        try:
            screens = self._screens_in_bulk(ids)
        except ServiceUnavailable as error:
            trouble.meet(error)
            if len(ids) == 1:
                trouble.skip(ids[0], error)
                return []
            half = len(ids) // 2
            return [*self._screens_in_parts(ids[:half], trouble), *self._screens_in_parts(ids[half:], trouble)]
        trouble.over()
        return screens

    def _screens_singly(self, ids: Sequence[str], trouble: _Trouble) -> Iterator[ScreenRecording]:
        for one in ids:
            try:
                screen = self.screen_recording(one)
            except (RequestRejected, MetadataError, ServiceUnavailable) as error:
                if isinstance(error, ServiceUnavailable):
                    trouble.meet(error)
                trouble.skip(one, error)
                continue
            trouble.over()
            if screen is not None:
                yield screen

    def _screens_in_bulk(self, ids: Sequence[str]) -> list[ScreenRecording]:
        joined = ",".join(quote(one, safe="") for one in ids)
        answer = self._session.get(f"{self._screens}?ids={joined}", accepted=(OK, PARTIAL_SUCCESS))
        recordings = answer.get("recordings")
        found = []
        for raw in recordings if isinstance(recordings, list) else []:
            try:
                found.append(ScreenRecording.read(raw))
            except MetadataError as error:
                log.warning("a screen recording is skipped: %s", error)
        return found

    def certificates(self) -> tuple[Certificate, ...]:
        """Return the certificates for which muxed files must be encrypted, none when encryption is not configured.

        Raise :class:`EncryptionMissing` when it is, but not in a form that can be read: nothing is then left in clear.
        """
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
        """Return the certificates as they were last read, without asking."""
        return self._certificates

    def post_media(self, recording_id: str, region: str, media_files: Sequence[Json]) -> None:
        """Given a recording and media entries in the form of gir-api section 5, post them once."""
        body = {"id": recording_id, "region": region, "mediaFiles": list(media_files)}
        self._write("POST", self._screens, body)

    def delete_media(self, recording_id: str, media_id: str) -> None:
        """Given a screen recording and one of its muxed files, delete it; one that is gone already is no error."""
        try:
            self._write("DELETE", f"{self.screen_path(recording_id)}/content/{quote(media_id, safe='')}")
        except NotFound:
            log.debug("%s: %s is deleted already", recording_id, media_id)

    def download(self, uri: str, path: Path) -> Received:
        """Given the ``mediaUri`` of a clear file, stream it to ``path`` and return its length in bytes."""
        try:
            return self._session.download(uri, path)
        except NotFound as error:
            raise MediaNotFound(f"RWS does not find the media: {error}") from error

    def wants_label(self, recording_id: str) -> bool:
        """Whether it makes sense to label a call recording: labels are not refused at the moment, and it was not labelled
        a while ago by this process, whatever the list of call recordings shows."""
        with self._lock:
            return time.monotonic() >= self._labels_refused_until and recording_id not in self._labelled

    def label(self, recording_id: str) -> bool:
        """Given a call recording, label it ``screenRecording``; return whether it bears the label now.

        A missing label definition is made first. A label that RWS forbids is only a warning, once an hour.
        """
        if not self.wants_label(recording_id):
            return recording_id in self._labelled
        try:
            try:
                self._post_label(recording_id)
            except RequestRejected as error:
                if not _definition_is_missing(error):
                    raise
                self._define_label()
                self._post_label(recording_id)
        except Forbidden as error:
            with self._lock:
                self._labels_refused_until = time.monotonic() + LABEL_PAUSE_SECONDS
            log.warning("labels are not set for %.0f minutes: %s", LABEL_PAUSE_SECONDS / 60, error)
            return False
        self._labelled.add(recording_id)
        return True

    def _post_label(self, recording_id: str) -> None:
        try:
            self._write("POST", f"{self._ops}/recordings/{quote(recording_id, safe='')}/labels", {"name": LABEL})
        except AlreadyExists:
            log.debug("%s: labelled already", recording_id)

    def _define_label(self) -> None:
        definition = {
            "name": LABEL,
            "displayName": "Screen recording",
            "description": "The call has a muxed screen recording",
        }
        try:
            self._write("POST", f"{self._ops}/recording-label-definitions", definition)
        except AlreadyExists:
            log.debug("the label definition exists already")

    def _write(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        return self._session.write(method, path, body, csrf_sources=(_VERSION, self._settings))

    def screen_path(self, recording_id: str) -> str:
        """Given an id, return the path of its screen recording."""
        return f"{self._screens}/{quote(recording_id, safe='')}"


def _readable(page: Sequence[object]) -> Iterator[CallRecording]:
    for raw in page:
        try:
            yield CallRecording.read(raw)
        except MetadataError as error:
            log.warning("a call recording is skipped: %s", error)


def _may_be_bulk(one: str) -> bool:
    """Whether an id can stand in a list of ids: it holds no comma, and does not fill a URL alone."""
    return "," not in one and len(quote(one, safe="")) <= MAX_IDS_BYTES


def _fitting(ids: Sequence[str]) -> list[str]:
    """Return the first ids whose encoded forms fit into one URL, at least one."""
    room = MAX_IDS_BYTES
    fitting: list[str] = []
    for one in ids:
        room -= len(quote(one, safe="")) + 1
        if fitting and room < 0:
            break
        fitting.append(one)
    return fitting


def _definition_is_missing(error: RequestRejected) -> bool:
    """Tell a missing label definition from a missing recording; for a 404 only the message tells (gir-api, section 6)."""
    if isinstance(error, NotFound):
        return "definition" in str(error).lower().partition("statuscode")[2]
    return error.status_code == PARAMETER_INVALID
