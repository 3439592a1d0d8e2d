"""One target, from its media files to its label: a straight line of named steps, each safe to repeat."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from muxer import activity, files
from muxer.activity import STORED, Activity
from muxer.config.schema import Advanced
from muxer.crypto.envelope import Encryptor
from muxer.errors import AccessDenied, Code, EncryptionMissing, MediaError, MetadataError, Stopped, StoredElsewhere
from muxer.fetching import fetch_decrypted, fetch_source, muxed_place
from muxer.gir.labels import LABEL
from muxer.gir.publish import Publisher
from muxer.gir.rcs import Rcs
from muxer.gir.rws import Certificate, Rws
from muxer.incoming import FetchedFile, IncomingFiles
from muxer.media.engine import Engine, Input, Muxed
from muxer.muxed_names import ENCRYPTED, is_own
from muxer.observe.logs import about
from muxer.outages import RCS, RWS, Outages
from muxer.parallel import Helpers
from muxer.repeat import Repeat
from muxer.results import Result, Results, clear_entry, shown_facts
from muxer.selection import MuxTarget, select
from muxer.storage.base import Place, Stored, place_of
from muxer.storage.stores import Stores
from muxer.superseded import Superseded
from muxer.workspace import Workspace

log = logging.getLogger(__name__)

NO_CERTIFICATE = "a source is encrypted, but RWS has no encryption certificate for the result"
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
    results: Results
    repeat: Repeat
    outages: Outages
    activity: Activity
    helpers: Helpers
    stop: threading.Event

    def finish_left_overs(self) -> None:
        """Finish what a process that died has left half done in RWS and in the storages."""
        finish = (
            self.publisher.repair_left_overs,
            self.stores.remove_left_overs,
            self.superseded.finish_left_overs,
            self.incoming.prune,
            self.results.prune,
        )
        for one in finish:
            try:
                one()
            except OSError as error:
                log.error("files of the temporary folder cannot be used, tried at the next poll: %s", error)


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
                self._services.results.forget(target)
                log.info("the sources have changed since they were read; left to the next poll")
                return report
            again = again and current.published
            if again or not current.published:
                self._make(current, report, current.another_name if again else current.name)
            self._services.results.forget(current)
            may_replace = again and report.muxed and self._options.delete_superseded
            replaced = [one for one in current.twins if is_own(one, current.recording_id)] if may_replace else []
            if current.superseded or replaced:
                by = report.facts.get("file") or next((one.media_id for one in current.twins), "")
                with report.step("delete"):
                    for media in (*current.superseded, *replaced):
                        with self._services.publisher.lock(current.recording_id):
                            self._services.superseded.delete(current.recording_id, media, by)
            if current.label_missing:
                with report.step("label"):
                    label = partial(self._services.rws.label, current.recording_id)
                    report.facts["label"] = LABEL if self._services.repeat("label", label) else "refused"
            self._finish(current, report)
        return report

    def find(self, recording_id: str, name: str) -> MuxTarget | None:
        """Given a recording and the name of a target, read the target as it is now: another muxer may have been faster, or
        new screen files may have come. Return None when it is wanted no longer. Raise the errors of :class:`Rws`."""
        rws, repeat = self._services.rws, self._services.repeat
        screen = repeat("reading the screen recording", partial(rws.screen_recording, recording_id))
        call = repeat("reading the call recording", partial(rws.call_recording, recording_id))
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
                muxed, *_ = self._mux(target, folder, report)
                size = muxed.path.stat().st_size
                with report.step("copy"):
                    keep(muxed.path)
            report.facts |= {"bytes": size, "encrypted": False, **shown_facts(muxed)}
            report.timeline = muxed.timeline.facts()
        return report

    def _mux(self, target: MuxTarget, folder: Path, report: Report) -> tuple[Muxed, datetime, bool]:
        """Fetch and mux; return the muxed file, the only one that is left in the folder, when it begins, and whether a
        source was found to be encrypted although its metadata do not say so."""
        with report.step("fetch"):
            fetched = self._fetched(target, folder)
        while True:
            try:
                audio, *screens = self._judged(target, fetched)
                with report.step("mux"), self._services.incoming.watching(target.recording_id, (audio, *screens)):
                    muxed = self._services.engine.mux(audio, screens, folder)
                    _wipe(folder, muxed.path)
                return muxed, audio.start, any(one.decrypted and not one.media.is_encrypted for one in fetched)
            except MediaError as error:
                number = next((n for n, one in enumerate(fetched) if one.media.media_id == error.source), None)
                clear = None if number is None else fetch_decrypted(self._services, target, fetched[number])
                if number is None or clear is None:
                    raise
                fetched[number] = clear

    def _make(self, target: MuxTarget, report: Report, name: str) -> None:
        """Store and publish the muxed file under a name: the one that an earlier attempt has kept, or a new one."""
        certificates, results = self.certificates(target), self._services.results
        folder_of_screens = muxed_place(target)
        with self._services.workspace.job() as folder:
            made = results.take(target, name, certificates, folder)
            if made is None:
                made = self._made(target, name, certificates, folder, report)
            else:
                log.info("the muxed file that an earlier attempt has kept is used")
            place = _beside_sources(target, folder_of_screens, made.entry["mediaId"])
            try:
                report.muxed = self._store_and_publish(target, made, place, report)
            except Exception:
                if made.is_final:
                    results.keep(target, name, certificates, made)
                raise
            self._services.incoming.forget(target.recording_id, target.sources)
        report.facts |= {"file": made.entry["mediaId"], "bytes": int(made.entry["size"]), "encrypted": bool(certificates)}
        report.facts |= made.facts
        report.timeline = made.timeline

    def _made(
        self, target: MuxTarget, name: str, certificates: Sequence[Certificate], folder: Path, report: Report
    ) -> Result:
        """Fetch, mux and encrypt."""
        self.need_room(target)
        muxed, start, found_encrypted = self._mux(target, folder, report)
        if found_encrypted and not certificates:
            raise EncryptionMissing(NO_CERTIFICATE)
        path, entry = muxed.path, clear_entry(target, muxed, start) | {"mediaId": name}
        if certificates:
            with report.step("encrypt"):
                path, entry = self._encrypt(muxed, entry, certificates, folder)
        entry["size"] = str(path.stat().st_size)
        return Result(path, entry, shown_facts(muxed), muxed.timeline.facts())

    def certificates(self, target: MuxTarget) -> tuple[Certificate, ...]:
        """Return whom to encrypt for, and see to it that an encrypted recording can be read and written at all."""
        certificates = self._services.repeat("reading the certificates", self._services.rws.certificates)
        if target.encrypted and not certificates:
            raise EncryptionMissing(NO_CERTIFICATE)
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
        audio, *screens = self._judged(target, self._fetched(target, folder))
        return audio, screens

    def _fetched(self, target: MuxTarget, folder: Path) -> list[FetchedFile]:
        files = [(target.audio, folder / "audio")]
        files += [(media, folder / f"screen-{number}") for number, media in enumerate(target.screens)]
        return self._services.helpers.run([partial(fetch_source, self._services, target, *one) for one in files])

    def _judged(self, target: MuxTarget, fetched: Sequence[FetchedFile]) -> list[Input]:
        audio, *screens = self._services.incoming.judge(target.recording_id, fetched)
        return [replace(audio, paused=target.paused), *screens]

    def _encrypt(
        self, muxed: Muxed, entry: dict[str, Any], certificates: Sequence[Certificate], folder: Path
    ) -> tuple[Path, dict[str, Any]]:
        path = folder / "muxed.mp4.bin"
        pkcs7 = self._services.encryptor.encrypt(muxed.path, certificates, path)
        _remove_early(muxed.path)
        aliases = [certificate.alias for certificate in certificates if certificate.alias]
        return path, entry | {"mediaId": f"{entry['mediaId']}{ENCRYPTED}", "pkcs7": pkcs7, "certAlias": aliases}

    def _store_and_publish(self, target: MuxTarget, made: Result, place: Place, report: Report) -> bool:
        """Return whether the file is ours that is stored and published now, and not that of another muxer."""
        with self._services.superseded.unpublished(target.recording_id, made.entry["mediaId"], target.sources, place):
            with report.step("store"):
                made.stored = self._store(target, made, place)
            if made.stored is not None:
                with report.step("publish"):
                    self._publish(target, made.entry | {"mediaDescriptor": place.descriptor}, place, made.stored)
        return made.stored is not None

    def _store(self, target: MuxTarget, made: Result, place: Place) -> Stored | None:
        """Upload the file; return None when another muxer has stored and published the same meanwhile."""
        store, repeat = self._services.stores.of(place), self._services.repeat
        tries = iter((PUBLISH_WAIT_SECONDS,))

        def may_replace() -> bool:
            # What this very step has stored, before a request of it failed, is published by nobody.
            if self._is_published_soon(target, place.name, next(tries, 0.0)):
                return False
            log.warning("the file of a muxer that died before it published is replaced: %s", place.name)
            return True

        # Without a tag, the file of another muxer cannot be told from ours.
        known = made.stored if made.stored is not None and made.stored.tag else None
        if known is not None and repeat("looking at the upload", partial(store.describe, place)) == known:
            log.info("an earlier attempt has uploaded the file already")
            return known
        try:
            stored = repeat("upload", partial(store.store, made.path, place, may_replace))
        except StoredElsewhere:
            # When the sources have changed meanwhile, what lies there may never be published: its note must stay.
            if (current := self.find(target.recording_id, target.name)) is None or not current.published:
                raise
            log.info("another muxer has published the same file meanwhile")
            return None
        activity.moved(STORED, place.service, stored.length)
        return stored

    def _is_published_soon(self, target: MuxTarget, name: str, seconds: float) -> bool:
        """Whether another muxer publishes the target within so many seconds; for one that is published already, under this
        `name`."""
        deadline = time.monotonic() + seconds
        while True:
            current = self.find(target.recording_id, target.name)
            if current is None or (current.published and not target.published):
                return True
            if any(name in one.names for one in current.twins):
                return True
            if time.monotonic() >= deadline:
                return False
            if self._services.stop.wait(PUBLISH_LOOK_SECONDS):
                raise Stopped("stopped while waiting for another muxer")

    def _publish(self, target: MuxTarget, entry: dict[str, Any], place: Place, stored: Stored) -> None:
        """Publish the stored file, unless somebody has replaced it since: the envelope must fit the ciphertext."""

        def is_still_ours() -> None:
            describe = partial(self._services.stores.of(place).describe, place)
            if self._services.repeat("looking at the upload", describe) != stored:
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
    return _beside_sources(target, muxed_place(target), name)


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


def _beside_sources(target: MuxTarget, where: Place, name: str) -> Place:
    """Return the place of the muxed file. Raise :class:`MetadataError` when a source bears its name: sources are never
    written over."""
    if any(name in media.names for media in (target.audio, *target.screens)):
        raise MetadataError(f"a source bears the name of the muxed file, {name}")
    return where.beside(name)


def _wipe(folder: Path, kept: Path) -> None:
    """Remove all but one file of a job's folder: media in clear stay on the disk only as long as they are needed."""
    for path in folder.iterdir():
        if path != kept:
            _remove_early(path)


def _remove_early(path: Path) -> None:
    """Delete a file of a job's folder; one that another program holds stays until the end of the job."""
    try:
        files.remove(path)
    except OSError as error:
        log.info("%s is deleted at the end of the job: %s", path, error)
