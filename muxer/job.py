"""One target, from its media files to its label: a straight line of named steps, each safe to repeat."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from muxer import activity
from muxer.activity import FETCHED, STORED, Activity
from muxer.config.schema import Advanced
from muxer.crypto.envelope import Encryptor
from muxer.errors import AccessDenied, Code, EncryptionMissing, MetadataError, Stopped, StoredElsewhere
from muxer.gir.labels import LABEL
from muxer.gir.models import MediaFile, format_time
from muxer.gir.publish import Publisher
from muxer.gir.rcs import Rcs
from muxer.gir.rws import Certificate, Rws
from muxer.incoming import FetchedFile, IncomingFiles
from muxer.media.engine import Engine, Input, Muxed
from muxer.observe.logs import about
from muxer.outages import RCS, RWS, Outages
from muxer.parallel import Helpers
from muxer.selection import ENCRYPTED, MuxTarget, select
from muxer.storage.base import Place, Stored, place_of
from muxer.storage.stores import Stores
from muxer.superseded import Superseded
from muxer.transfer import Received
from muxer.workspace import Workspace

log = logging.getLogger(__name__)

# Another muxer that has stored a file publishes it within moments; one that has not by then has died.
PUBLISH_WAIT_SECONDS = 15.0
PUBLISH_LOOK_SECONDS = 1.0
# So many files of a recording are fetched at the same time.
FETCHED_AT_ONCE = 4


@dataclass(frozen=True)
class Services:
    """Everything a job talks to."""

    rws: Rws
    rcs: Rcs | None
    stores: Stores
    engine: Engine
    encryptor: Encryptor
    publisher: Publisher
    superseded: Superseded
    workspace: Workspace
    incoming: IncomingFiles
    outages: Outages
    activity: Activity
    helpers: Helpers
    stop: threading.Event

    def finish_left_overs(self) -> None:
        """Finish what a process that died has left half done in RWS and in the storages."""
        self.publisher.repair_left_overs()
        self.stores.remove_left_overs()
        self.superseded.finish_left_overs()
        self.incoming.prune()


@dataclass(frozen=True)
class JobOptions:
    """The options that decide which steps a job takes."""

    label: bool
    delete_superseded: bool
    blank_paused: bool = False

    @classmethod
    def of(cls, advanced: Advanced) -> JobOptions:
        """Given ``[advanced]``, return what it says of jobs."""
        return cls(advanced.mark_screen_recording_label, advanced.delete_superseded, advanced.blank_paused)


@dataclass
class Report:
    """What a job did: the seconds of each step, what the finished line says, and how the muxed file is made up."""

    steps: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    timeline: dict[str, Any] = field(default_factory=dict)
    muxed: bool = False

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step and log its end, good or bad."""
        started, outcome = time.monotonic(), "failed"
        activity.step(name)
        try:
            yield
            outcome = "done"
        finally:
            self.steps[name] = time.monotonic() - started
            activity.step_done(name, self.steps[name])
            log.info("%s %s", name, outcome, extra={"fields": {"step": name, "seconds": self.steps[name]}})


class Job:
    """Does what one target still needs."""

    def __init__(self, services: Services, options: JobOptions) -> None:
        self._services = services
        self._options = options

    def run(self, target: MuxTarget, *, again: bool = False, fresh: bool = False) -> Report:
        """Given a target, do what it needs and return what was done. Raise the errors of :mod:`muxer.errors`.

        It is read again before anything is done, unless it is ``fresh``, which means that it was read just now.

        With ``again``, one that is published already is made once more: stored under another name and published, and only
        then the earlier one is deleted, so that there is a playable file at any moment.
        """
        report = Report()
        with about(target.recording_id):
            with report.step("check"):
                current = target if fresh else self.find(target.recording_id, target.name)
            if current is None:
                log.info("the sources have changed since they were read; left to the next poll")
                return report
            again = again and current.published
            if again or not current.published:
                self._make(current, report, current.another_name if again else current.name)
            replaced = current.twins if again and report.muxed and self._options.delete_superseded else ()
            if current.superseded or replaced:
                by = report.facts.get("file") or next((one.media_id for one in current.twins), "")
                with report.step("delete"):
                    for media in (*current.superseded, *replaced):
                        with self._services.publisher.lock(current.recording_id):
                            self._services.superseded.delete(current.recording_id, media, by)
            if current.label_missing:
                with report.step("label"):
                    report.facts["label"] = LABEL if self._services.rws.label(current.recording_id) else "refused"
            self._finish(current, report)
        return report

    def find(self, recording_id: str, name: str) -> MuxTarget | None:
        """Given a recording and the name of a target, read the target as it is now: another muxer may have been faster, or
        new screen files may have come. Return None when it is wanted no longer. Raise the errors of :class:`Rws`."""
        screen = self._services.rws.screen_recording(recording_id)
        call = self._services.rws.call_recording(recording_id)
        if call is None:
            return None
        selection = select(call, screen, **vars(self._options))
        return next((one for one in selection.targets if one.name == name), None)

    def make_clear(self, target: MuxTarget, keep: Callable[[Path], None]) -> Report:
        """Given a target, make its muxed file, hand it to ``keep`` in clear, and return what was done. Nothing is stored or
        published. Raise the errors of :mod:`muxer.errors`."""
        report = Report()
        with about(target.recording_id):
            self.need_rcs(target)
            self.need_room(target)
            with self._services.workspace.job() as folder:
                muxed, _ = self._muxed(target, folder, report)
                size = muxed.path.stat().st_size
                with report.step("copy"):
                    keep(muxed.path)
            report.facts |= {"bytes": size, "encrypted": False, **_told(muxed)}
            report.timeline = muxed.timeline.facts()
        return report

    def _muxed(self, target: MuxTarget, folder: Path, report: Report) -> tuple[Muxed, datetime]:
        """Fetch and mux; return the muxed file, the only one that is left in the folder, and when it begins."""
        with report.step("fetch"):
            audio, screens = self.fetch(target, folder)
        with report.step("mux"), self._services.incoming.watching(target.recording_id, (audio, *screens)):
            muxed = self._services.engine.mux(audio, screens, folder)
            _wipe(folder, muxed.path)
        return muxed, audio.start

    def _make(self, target: MuxTarget, report: Report, name: str) -> None:
        """Fetch, mux, encrypt, store and publish, under a name."""
        certificates = self.certificates(target)
        folder_of_screens = _place(target)
        self.need_room(target)
        with self._services.workspace.job() as folder:
            muxed, start = self._muxed(target, folder, report)
            path, entry = muxed.path, _entry(target, muxed, start) | {"mediaId": name}
            if certificates:
                with report.step("encrypt"):
                    path, entry = self._encrypt(muxed, entry, certificates, folder)
            entry["size"] = str(path.stat().st_size)
            place = _beside_sources(target, folder_of_screens, entry["mediaId"])
            entry["mediaDescriptor"] = place.descriptor
            stored = self._store_and_publish(target, path, entry, place, report)
            self._services.incoming.forget(target.recording_id, target.sources)
        report.muxed = stored
        report.facts |= {"file": entry["mediaId"], "bytes": int(entry["size"]), "encrypted": bool(certificates)}
        report.facts |= _told(muxed)
        report.timeline = muxed.timeline.facts()

    def certificates(self, target: MuxTarget) -> tuple[Certificate, ...]:
        """Return whom to encrypt for, and see to it that an encrypted recording can be read and written at all."""
        certificates = self._services.rws.certificates()
        if target.encrypted and not certificates:
            raise EncryptionMissing("a source is encrypted, but RWS has no encryption certificate for the result")
        self.need_rcs(target)
        return certificates

    def need_rcs(self, target: MuxTarget) -> None:
        """Raise :class:`AccessDenied` when a source is encrypted and there is no RCS to decrypt it."""
        if target.encrypted and self._services.rcs is None:
            raise AccessDenied("a source is encrypted, but [rcs] base_uri is empty", code=Code.NO_RCS)

    def need_room(self, target: MuxTarget) -> None:
        """Raise :class:`~muxer.errors.LocalResourceError` when the disk has no room for a target."""
        self._services.workspace.disk.check(media.size for media in (target.audio, *target.screens))

    def fetch(self, target: MuxTarget, folder: Path) -> tuple[Input, list[Input]]:
        """Fetch all sources, some at the same time; none is being written any more when this returns or raises. Each is
        returned with what is known about its arrival."""
        files = [(target.audio, folder / "audio")]
        files += [(media, folder / f"screen-{number}") for number, media in enumerate(target.screens)]
        fetched = self._services.helpers.run([partial(self._fetch_one, target, *one) for one in files])
        audio, *screens = self._services.incoming.judge(target.recording_id, fetched)
        return replace(audio, paused=target.paused), screens

    def _fetch_one(self, target: MuxTarget, media: MediaFile, path: Path) -> FetchedFile:
        """Fetch one source in clear: encrypted ones through RCS, others from their storage, or through RWS."""
        services = self._services
        if media.start is None:
            raise MetadataError(f"{media.media_id} has no usable startTime", code=Code.NO_START_TIME)
        is_call, decrypted = media is target.audio, media.is_encrypted and services.rcs is not None
        if decrypted and services.rcs is not None:
            play = services.rcs.play_call if is_call else services.rcs.play_screen
            service, length = RCS, play(target.recording_id, media.media_id, path, media.paths)
        elif (place := _source_place(media)) is not None:
            service, length = place.service, services.stores.of(place).fetch(place, path)
        elif media.uri is not None:
            service, length = RWS, services.rws.download(media.uri, path)
        else:
            raise MetadataError(f"{media.media_id} has neither a media descriptor nor a mediaUri", code=Code.NO_PLACE)
        activity.moved(FETCHED, service, length)
        log.info("fetched", extra={"fields": {"media": media.media_id, "bytes": length}})
        # A storage that does not state when a file was modified may return its length alone.
        received = length if isinstance(length, Received) else Received(length)
        return FetchedFile(media, path, received, is_call, decrypted)

    def _encrypt(
        self, muxed: Muxed, entry: dict[str, Any], certificates: tuple[Certificate, ...], folder: Path
    ) -> tuple[Path, dict[str, Any]]:
        path = folder / "muxed.mp4.bin"
        pkcs7 = self._services.encryptor.encrypt(muxed.path, certificates, path)
        muxed.path.unlink()
        aliases = [certificate.alias for certificate in certificates if certificate.alias]
        return path, entry | {"mediaId": f"{entry['mediaId']}{ENCRYPTED}", "pkcs7": pkcs7, "certAlias": aliases}

    def _store_and_publish(
        self, target: MuxTarget, path: Path, entry: dict[str, Any], place: Place, report: Report
    ) -> bool:
        """Return whether the file is ours that is stored and published now, and not that of another muxer."""
        with self._services.superseded.unpublished(target.recording_id, entry["mediaId"], target.sources, place):
            with report.step("store"):
                stored = self._store(target, path, place)
            if stored is not None:
                with report.step("publish"):
                    self._publish(target, entry, place, stored)
        return stored is not None

    def _store(self, target: MuxTarget, path: Path, place: Place) -> Stored | None:
        """Upload the file; return None when another muxer has stored and published the same meanwhile."""

        def may_replace() -> bool:
            if self._is_published_soon(target, place.name):
                return False
            log.warning("the file of a muxer that died before it published is replaced: %s", place.name)
            return True

        try:
            stored = self._services.stores.of(place).store(path, place, may_replace)
        except StoredElsewhere:
            # When the sources have changed meanwhile, what lies there may never be published: its note must stay.
            if (current := self.find(target.recording_id, target.name)) is None or not current.published:
                raise
            log.info("another muxer has published the same file meanwhile")
            return None
        activity.moved(STORED, place.service, stored.length)
        return stored

    def _is_published_soon(self, target: MuxTarget, name: str) -> bool:
        """Whether another muxer publishes the target within moments; for one that is published already, under this name."""
        deadline = time.monotonic() + PUBLISH_WAIT_SECONDS
        while time.monotonic() < deadline:
            current = self.find(target.recording_id, target.name)
            if current is None or (current.published and not target.published):
                return True
            if any(name in one.names for one in current.twins):
                return True
            if self._services.stop.wait(PUBLISH_LOOK_SECONDS):
                raise Stopped("stopped while waiting for another muxer")
        return False

    def _publish(self, target: MuxTarget, entry: dict[str, Any], place: Place, stored: Stored) -> None:
        """Publish the stored file, unless somebody has replaced it since: the envelope must fit the ciphertext."""

        def is_still_ours() -> None:
            if self._services.stores.of(place).describe(place) != stored:
                raise StoredElsewhere(f"{place.name} was replaced by another muxer before it was published")

        self._services.publisher.publish(target.recording_id, target.region, entry, is_still_stored=is_still_ours)

    def _finish(self, target: MuxTarget, report: Report) -> None:
        report.facts = {"agent": target.agent, "sources": len(target.sources)} | report.facts
        seconds = {f"{name}_seconds": round(value, 3) for name, value in report.steps.items()}
        report.facts |= {"seconds": round(sum(report.steps.values()), 3)} | seconds
        log.info("recording muxed" if report.muxed else "recording brought up to date", extra={"fields": report.facts})


def result_place(target: MuxTarget, name: str) -> Place:
    """Given a target and the name of its muxed file, return where that is stored. Raise :class:`MetadataError` when the
    metadata name no place, or a source bears that name."""
    return _beside_sources(target, _place(target), name)


def services_of(target: MuxTarget) -> frozenset[str]:
    """Given a target, return the names of the services that making it needs, as far as its metadata tell."""
    services = {RWS}
    for media in (target.audio, *target.screens):
        if media.is_encrypted:
            services.add(RCS)
        if media.descriptor is not None and not (media.is_encrypted and media is target.audio):
            with contextlib.suppress(MetadataError):
                services.add(place_of(media.descriptor).service)
    return frozenset(services)


def _place(target: MuxTarget) -> Place:
    """Return a place beside the first screen file that lies in a storage."""
    reason, code = "no screen file has a media descriptor", Code.NO_PLACE
    for media in target.screens:
        if media.descriptor is not None:
            try:
                return place_of(media.descriptor)
            except MetadataError as error:
                reason, code = str(error), error.code or code
    raise MetadataError(f"there is no place for the muxed file beside a screen file: {reason}", code=code)


def _source_place(media: MediaFile) -> Place | None:
    """Return the place of a source, or None when it is known to RWS only: a descriptor that cannot be used does not matter
    where there is a mediaUri."""
    if media.descriptor is None:
        return None
    try:
        return place_of(media.descriptor)
    except MetadataError as error:
        if media.uri is None:
            raise
        log.info("%s is fetched by its mediaUri: %s", media.media_id, error)
        return None


def _beside_sources(target: MuxTarget, where: Place, name: str) -> Place:
    """Return the place of the muxed file. Raise :class:`MetadataError` when a source bears its name: sources are never
    written over."""
    if any(name in media.names for media in (target.audio, *target.screens)):
        raise MetadataError(f"a source bears the name of the muxed file, {name}")
    return where.beside(name)


def _told(muxed: Muxed) -> dict[str, Any]:
    """Return what the finished line says of a muxed file."""
    method = "; ".join(muxed.reasons) or "copy"
    seconds = {"length": muxed.length / 1e6, "padding": muxed.padding / 1e6, "sync": muxed.shift / 1e6}
    blanked = {"paused": muxed.paused / 1e6} if muxed.paused else {}
    missing = {"missing": "; ".join(muxed.missing)} if muxed.missing else {}
    return {**seconds, **blanked, "method": method, **missing}


def _wipe(folder: Path, kept: Path) -> None:
    """Remove all but one file of a job's folder: media in clear stay on the disk only as long as they are needed."""
    for path in folder.iterdir():
        if path != kept:
            path.unlink()


def _entry(target: MuxTarget, muxed: Muxed, start: datetime) -> dict[str, Any]:
    """Return the media entry of a clear muxed file (gir-api, section 5), without its place and size."""
    screen = target.screens[0]
    milliseconds = round(muxed.length / 1000)
    parameters: dict[str, Any] = {"region": screen.region or target.region}
    if screen.contact:
        parameters["contact"] = dict(screen.contact)
    return {
        "mediaId": target.name,
        "type": "video/mp4",
        "startTime": format_time(start),
        "stopTime": format_time(start + timedelta(milliseconds=milliseconds)),
        "duration": str(milliseconds),
        "parameters": parameters | {"muxed_mediaIds": list(target.sources)},
    }
