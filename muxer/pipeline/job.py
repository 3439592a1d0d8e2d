"""One target, from its media files to its label: a straight line of named steps, each safe to repeat."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from muxer.config.schema import AdvancedOptions
from muxer.errors import AccessDenied, Code, EncryptionMissing, MediaError, MetadataError
from muxer.gir.labels import LABEL
from muxer.gir.muxed_names import ENCRYPTED_SUFFIX, is_muxed_file
from muxer.gir.rws import Certificate
from muxer.gir.targets import MuxTarget, select_targets
from muxer.log.setup import recording_context
from muxer.media.analyze.arrival import MediaInput
from muxer.media.engine import MuxedFile
from muxer.net.circuit_breaker import RCS, RWS
from muxer.pipeline.fetch import check_arrival, fetch_decrypted, fetch_files, muxed_location
from muxer.pipeline.kept_results import MuxResult, clear_entry, result_facts
from muxer.pipeline.services import Services
from muxer.pipeline.store_and_publish import ResultStore
from muxer.status import activity
from muxer.storage.base import MediaLocation, parse_descriptor
from muxer.system import files

log = logging.getLogger(__name__)

NO_CERTIFICATE_TEXT = "a source is encrypted, but RWS has no encryption certificate for the result"
# So many files of a recording are fetched at the same time.
MAX_PARALLEL_FETCHES = 4


@dataclass(frozen=True)
class JobOptions:
    """The options that decide which steps a job takes."""

    label: bool
    delete_superseded: bool
    blank_paused: bool = False

    @classmethod
    def from_config(cls, advanced: AdvancedOptions) -> JobOptions:
        """Given ``[advanced]``, return what it says of jobs."""
        return cls(advanced.mark_screen_recording_label, advanced.delete_superseded, advanced.blank_paused)


@dataclass
class JobReport:
    """What a job did: the seconds of each step, what the finished line says, and how the muxed file is made up."""

    steps: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    timeline: dict[str, Any] = field(default_factory=dict)
    muxed: bool = False

    @contextmanager
    def time_step(self, name: str) -> Iterator[None]:
        """Time a step and log its end, good or bad."""
        started, outcome = time.monotonic(), "failed"
        activity.begin_step(name)
        try:
            yield
            outcome = "done"
        finally:
            self.steps[name] = time.monotonic() - started
            activity.count_step(name, self.steps[name])
            log.info("%s %s", name, outcome, extra={"fields": {"step": name, "seconds": self.steps[name]}})


class Job:
    """Does what one target still needs."""

    def __init__(self, services: Services, options: JobOptions) -> None:
        self._services = services
        self._options = options
        self._store = ResultStore(services, self.find_target)

    def run(self, target: MuxTarget, *, again: bool = False, fresh: bool = False) -> JobReport:
        """Given a target, do what it needs and return what was done. Raise the errors of :mod:`muxer.errors`.

        It is read again before anything is done, unless it is ``fresh``, which means that it was read just now.

        With ``again``, one that is published already is made once more: stored under another name and published, and only
        then the earlier one is deleted, so that there is a playable file at any moment.
        """
        report = JobReport()
        with recording_context(target.recording_id):
            with report.time_step("check"):
                current = target if fresh else self.find_target(target.recording_id, target.file_name)
            if current is None:
                self._services.results.forget_target(target)
                log.info("the sources have changed since they were read; left to the next poll")
                return report
            again = again and current.published
            if again or not current.published:
                self._mux_and_publish(current, report, current.next_free_name if again else current.file_name)
            self._services.results.forget_target(current)
            may_replace = again and report.muxed and self._options.delete_superseded
            replaced = (
                [one for one in current.same_source_files if is_muxed_file(one, current.recording_id)] if may_replace else []
            )
            if current.superseded or replaced:
                by = report.facts.get("file") or next((one.media_id for one in current.same_source_files), "")
                with report.time_step("delete"):
                    for media in (*current.superseded, *replaced):
                        with self._services.publisher.recording_lock(current.recording_id):
                            self._services.superseded.delete_file(current.recording_id, media, by)
            if current.label_missing:
                with report.time_step("label"):
                    label = partial(self._services.rws.add_label, current.recording_id)
                    report.facts["label"] = LABEL if self._services.repeat("label", label) else "refused"
            self._log_finished(current, report)
        return report

    def find_target(self, recording_id: str, name: str) -> MuxTarget | None:
        """Given a recording and the name of a target, read the target as it is now: another muxer may have been faster, or
        new screen files may have come. Return None when it is wanted no longer. Raise the errors of :class:`Rws`."""
        rws, repeat = self._services.rws, self._services.repeat
        screen = repeat("reading the screen recording", partial(rws.fetch_screen_recording, recording_id))
        call = repeat("reading the call recording", partial(rws.fetch_call_recording, recording_id))
        if call is None:
            return None
        selection = select_targets(call, screen, **vars(self._options))
        return next((one for one in selection.targets if one.file_name == name), None)

    def make_clear(self, target: MuxTarget, keep: Callable[[Path], None]) -> JobReport:
        """Given a target, make its muxed file, hand it to ``keep`` in clear, and return what was done. Nothing is stored or
        published. Raise the errors of :mod:`muxer.errors`."""
        report = JobReport()
        with recording_context(target.recording_id):
            self.require_rcs(target)
            self.require_room(target)
            with self._services.workspace.job_folder() as folder:
                muxed, *_ = self._fetch_and_mux(target, folder, report)
                size = muxed.path.stat().st_size
                with report.time_step("copy"):
                    keep(muxed.path)
            report.facts |= {"bytes": size, "encrypted": False, **result_facts(muxed)}
            report.timeline = muxed.timeline.journal_facts()
        return report

    def _fetch_and_mux(self, target: MuxTarget, folder: Path, report: JobReport) -> tuple[MuxedFile, datetime, bool]:
        """Fetch and mux; return the muxed file, the only one that is left in the folder, when it begins, and whether a
        source was found to be encrypted although its metadata do not say so."""
        with report.time_step("fetch"):
            fetched = fetch_files(self._services, target, folder)
        while True:
            try:
                audio, *screens = check_arrival(self._services, target, fetched)
                with report.time_step("mux"), self._services.incoming.track_muxing(target.recording_id, (audio, *screens)):
                    muxed = self._services.engine.mux(audio, screens, folder)
                    _remove_others(folder, muxed.path)
                return muxed, audio.start, any(one.decrypted and not one.media.is_encrypted for one in fetched)
            except MediaError as error:
                number = next((n for n, one in enumerate(fetched) if one.media.media_id == error.source), None)
                clear = None if number is None else fetch_decrypted(self._services, target, fetched[number])
                if number is None or clear is None:
                    raise
                fetched[number] = clear

    def _mux_and_publish(self, target: MuxTarget, report: JobReport, name: str) -> None:
        """Store and publish the muxed file under a name: the one that an earlier attempt has kept, or a new one."""
        certificates, results = self.read_certificates(target), self._services.results
        folder_of_screens = muxed_location(target)
        with self._services.workspace.job_folder() as folder:
            made = results.take_result(target, name, certificates, folder)
            if made is None:
                made = self._create_result(target, name, certificates, folder, report)
            else:
                log.info("the muxed file that an earlier attempt has kept is used")
            place = _location_next_to_sources(target, folder_of_screens, made.entry["mediaId"])
            try:
                report.muxed = self._store_and_publish(target, made, place, report)
            except Exception:
                if made.is_final:
                    results.store_result(target, name, certificates, made)
                raise
            self._services.incoming.forget_files(target.recording_id, target.source_ids)
        report.facts |= {"file": made.entry["mediaId"], "bytes": int(made.entry["size"]), "encrypted": bool(certificates)}
        report.facts |= made.facts
        report.timeline = made.timeline

    def _create_result(
        self, target: MuxTarget, name: str, certificates: Sequence[Certificate], folder: Path, report: JobReport
    ) -> MuxResult:
        """Fetch, mux and encrypt."""
        self.require_room(target)
        muxed, start, found_encrypted = self._fetch_and_mux(target, folder, report)
        if found_encrypted and not certificates:
            raise EncryptionMissing(NO_CERTIFICATE_TEXT)
        path, entry = muxed.path, clear_entry(target, muxed, start) | {"mediaId": name}
        if certificates:
            with report.time_step("encrypt"):
                path, entry = self._encrypt_file(muxed, entry, certificates, folder)
        entry["size"] = str(path.stat().st_size)
        return MuxResult(path, entry, result_facts(muxed), muxed.timeline.journal_facts())

    def read_certificates(self, target: MuxTarget) -> tuple[Certificate, ...]:
        """Return whom to encrypt for, and see to it that an encrypted recording can be read and written at all."""
        certificates = self._services.repeat("reading the certificates", self._services.rws.fetch_certificates)
        if target.is_encrypted and not certificates:
            raise EncryptionMissing(NO_CERTIFICATE_TEXT)
        self.require_rcs(target)
        return certificates

    def require_rcs(self, target: MuxTarget) -> None:
        """Raise :class:`AccessDenied` when a source is encrypted and there is no RCS to decrypt it."""
        if target.is_encrypted and self._services.rcs is None:
            raise AccessDenied("a source is encrypted, but [rcs] base_uri is empty", code=Code.NO_RCS)

    def require_room(self, target: MuxTarget) -> None:
        """Raise :class:`~muxer.errors.LocalResourceError` when the disk has no room for a target."""
        self._services.workspace.disk.ensure_room(media.stated_size for media in (target.audio, *target.screens))

    def fetch_sources(self, target: MuxTarget, folder: Path) -> tuple[MediaInput, list[MediaInput]]:
        """Fetch all sources, some at the same time; none is being written any more when this returns or raises. Each is
        returned with what is known about its arrival."""
        audio, *screens = check_arrival(self._services, target, fetch_files(self._services, target, folder))
        return audio, screens

    def _encrypt_file(
        self, muxed: MuxedFile, entry: dict[str, Any], certificates: Sequence[Certificate], folder: Path
    ) -> tuple[Path, dict[str, Any]]:
        path = folder / "muxed.mp4.bin"
        pkcs7 = self._services.encryptor.encrypt_file(muxed.path, certificates, path)
        _remove_early(muxed.path)
        aliases = [certificate.alias for certificate in certificates if certificate.alias]
        return path, entry | {"mediaId": f"{entry['mediaId']}{ENCRYPTED_SUFFIX}", "pkcs7": pkcs7, "certAlias": aliases}

    def _store_and_publish(self, target: MuxTarget, made: MuxResult, place: MediaLocation, report: JobReport) -> bool:
        """Return whether the file is ours that is stored and published now, and not that of another muxer."""
        with self._services.superseded.track_unpublished(
            target.recording_id, made.entry["mediaId"], target.source_ids, place
        ):
            with report.time_step("store"):
                made.stored = self._store.upload_result(target, made, place)
            if made.stored is not None:
                with report.time_step("publish"):
                    self._store.publish_result(
                        target, made.entry | {"mediaDescriptor": place.media_descriptor}, place, made.stored
                    )
        return made.stored is not None

    def _log_finished(self, target: MuxTarget, report: JobReport) -> None:
        report.facts = {"agent": target.agent, "sources": len(target.source_ids)} | report.facts
        seconds = {f"{name}_seconds": round(value, 3) for name, value in report.steps.items()}
        report.facts |= {"seconds": round(sum(report.steps.values()), 3)} | seconds
        log.info("recording muxed" if report.muxed else "recording brought up to date", extra={"fields": report.facts})


def result_location(target: MuxTarget, name: str) -> MediaLocation:
    """Given a target and the name of its muxed file, return where that is stored. Raise :class:`MetadataError` when the
    metadata name no place, or a source bears that name."""
    return _location_next_to_sources(target, muxed_location(target), name)


def needed_services(target: MuxTarget) -> frozenset[str]:
    """Given a target, return the names of the services that making it needs, as far as its metadata tell."""
    services = {RWS}
    for media in (target.audio, *target.screens):
        if media.is_encrypted:
            services.add(RCS)
        if media.media_descriptor is not None and not (media.is_encrypted and media is target.audio):
            with contextlib.suppress(MetadataError):
                services.add(parse_descriptor(media.media_descriptor).service_name)
    return frozenset(services)


def _location_next_to_sources(target: MuxTarget, where: MediaLocation, name: str) -> MediaLocation:
    """Return the place of the muxed file. Raise :class:`MetadataError` when a source bears its name: sources are never
    written over."""
    if any(name in media.known_names for media in (target.audio, *target.screens)):
        raise MetadataError(f"a source bears the name of the muxed file, {name}")
    return where.sibling(name)


def _remove_others(folder: Path, kept: Path) -> None:
    """Remove all but one file of a job's folder: media in clear stay on the disk only as long as they are needed."""
    for path in folder.iterdir():
        if path != kept:
            _remove_early(path)


def _remove_early(path: Path) -> None:
    """Delete a file of a job's folder; one that another program holds stays until the end of the job."""
    try:
        files.remove_file(path)
    except OSError as error:
        log.info("%s is deleted at the end of the job: %s", path, error)
