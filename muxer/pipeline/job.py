"""Process one target, from its media files to its label: named steps in a row, each safe to repeat."""

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

from muxer.errors import AccessDenied, Code, EncryptionMissing, MediaError, MetadataError
from muxer.gir.labels import LABEL
from muxer.gir.muxed_names import ENCRYPTED_SUFFIX, is_muxed_file
from muxer.gir.rws import Certificate
from muxer.gir.targets import MuxTarget, TargetOptions
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
MAX_PARALLEL_FETCHES = 4


@dataclass
class JobReport:
    """What a job did: the seconds of each step, the fields of its finished line, and the timeline of the muxed file."""

    steps: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    timeline: dict[str, Any] = field(default_factory=dict)
    muxed: bool = False
    # RWS does not show the target any more: its sources have changed, or are gone.
    is_outdated: bool = False

    @contextmanager
    def time_step(self, name: str) -> Iterator[None]:
        """Time a step and log whether it succeeded."""
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
    """Runs the steps that one target still needs."""

    def __init__(self, services: Services, options: TargetOptions) -> None:
        self._services = services
        self._options = options
        self._store = ResultStore(services, self.find_target)

    def run(self, target: MuxTarget, *, again: bool = False, fresh: bool = False) -> JobReport:
        """Run the steps that `target` needs and report them. Raises the errors of muxer.errors.

        The target is read from RWS again unless `fresh`. `again` muxes a published target once more: under another name,
        before the earlier file is deleted, so that a playable file exists at any time.
        """
        report = JobReport()
        with recording_context(target.recording_id):
            with report.time_step("check"):
                # Sources that RWS lost at an earlier publication would look as if they had been deleted.
                restored = self._services.publisher.settle_publication(target.recording_id)
                current = target if fresh and not restored else self.find_target(target.recording_id, target.file_name)
            if current is None:
                self._services.results.forget_target(target)
                log.info("the sources have changed since they were read")
                report.is_outdated = True
                return report
            again = again and current.published
            if again or not current.published:
                self._mux_and_publish(current, report, current.next_free_name if again else current.file_name)
            self._services.results.forget_target(current)
            may_replace = again and report.muxed and self._options.delete_superseded
            same = current.same_source_files
            replaced = [media for media in same if is_muxed_file(media, current.recording_id)] if may_replace else []
            if current.superseded or replaced:
                replaced_by = report.facts.get("file") or next((media.media_id for media in same), "")
                with report.time_step("delete"):
                    for media in (*current.superseded, *replaced):
                        with self._services.publisher.recording_lock(current.recording_id):
                            self._services.superseded.delete_file(current.recording_id, media, replaced_by)
            if current.label_missing:
                with report.time_step("label"):
                    label = partial(self._services.rws.add_label, current.recording_id)
                    report.facts["label"] = LABEL if self._services.repeat("label", label) else "refused"
            self._log_finished(current, report)
        return report

    def find_target(self, recording_id: str, name: str) -> MuxTarget | None:
        """Read the target `name` of a recording as it is now; None when it is no longer wanted."""
        return next((target for target in self.read_targets(recording_id) if target.file_name == name), None)

    def read_targets(self, recording_id: str) -> Sequence[MuxTarget]:
        """Read the targets of a recording as they are now."""
        rws, repeat = self._services.rws, self._services.repeat
        screen = repeat("reading the screen recording", partial(rws.fetch_screen_recording, recording_id))
        call = repeat("reading the call recording", partial(rws.fetch_call_recording, recording_id))
        return () if call is None else self._options.select_targets(call, screen).targets

    def make_clear(self, target: MuxTarget, keep: Callable[[Path], None]) -> JobReport:
        """Mux `target` and pass the unencrypted file to `keep`. Nothing is uploaded or published."""
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
        """Return the muxed file, when it begins, and whether a source was encrypted contrary to its metadata."""
        with report.time_step("fetch"):
            fetched = fetch_files(self._services, target, folder)
        while True:
            try:
                audio, *screens = check_arrival(self._services, target, fetched)
                with report.time_step("mux"), self._services.incoming.track_muxing(target.recording_id, (audio, *screens)):
                    muxed = self._services.engine.mux(audio, screens, folder)
                    _remove_others(folder, muxed.path)
                return muxed, audio.start, any(file.decrypted and not file.media.is_encrypted for file in fetched)
            except MediaError as error:
                number = next((n for n, file in enumerate(fetched) if file.media.media_id == error.source), None)
                decrypted = None if number is None else fetch_decrypted(self._services, target, fetched[number])
                if number is None or decrypted is None:
                    raise
                fetched[number] = decrypted

    def _mux_and_publish(self, target: MuxTarget, report: JobReport, name: str) -> None:
        """Upload and publish the muxed file as `name`: the kept one of an earlier attempt, or a new one."""
        certificates, results = self.read_certificates(target), self._services.results
        screen_location = muxed_location(target)
        with self._services.workspace.job_folder() as folder:
            result = results.take_result(target, name, certificates, folder)
            if result is None:
                result = self._create_result(target, name, certificates, folder, report)
            else:
                log.info("reusing the muxed file of an earlier attempt")
            location = _location_next_to_sources(target, screen_location, result.entry["mediaId"])
            try:
                report.muxed = self._store_and_publish(target, result, location, report)
            except Exception:
                if result.is_final:
                    results.store_result(target, name, certificates, result)
                raise
            self._services.incoming.forget_files(target.recording_id, target.source_ids)
        media_id, size = result.entry["mediaId"], int(result.entry["size"])
        report.facts |= {"file": media_id, "bytes": size, "encrypted": bool(certificates)}
        report.facts |= result.facts
        report.timeline = result.timeline

    def _create_result(
        self, target: MuxTarget, name: str, certificates: Sequence[Certificate], folder: Path, report: JobReport
    ) -> MuxResult:
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
        """Return the certificates to encrypt for. Raises EncryptionMissing or AccessDenied when there are none."""
        certificates = self._services.repeat("reading the certificates", self._services.rws.fetch_certificates)
        if target.is_encrypted and not certificates:
            raise EncryptionMissing(NO_CERTIFICATE_TEXT)
        self.require_rcs(target)
        return certificates

    def require_rcs(self, target: MuxTarget) -> None:
        """Raise AccessDenied when a source is encrypted and there is no RCS to decrypt it."""
        if target.is_encrypted and self._services.rcs is None:
            what = "a source is encrypted, but [rcs] base_uri is empty; set the options of [rcs], then restart the muxer"
            raise AccessDenied(what, code=Code.NO_RCS)

    def require_room(self, target: MuxTarget) -> None:
        """Raise LocalResourceError when the disk has too little space for `target`."""
        self._services.workspace.disk.ensure_room(media.stated_size for media in (target.audio, *target.screens))

    def fetch_sources(self, target: MuxTarget, folder: Path) -> tuple[MediaInput, list[MediaInput]]:
        """Fetch all sources of `target` to `folder`. Returns the audio and the screens, each with its arrival."""
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

    def _store_and_publish(self, target: MuxTarget, result: MuxResult, location: MediaLocation, report: JobReport) -> bool:
        """Return True when our file is uploaded and published, False when another muxer has published the same."""
        with self._services.superseded.track_unpublished(
            target.recording_id, result.entry["mediaId"], target.source_ids, location
        ):
            with report.time_step("store"):
                result.stored = self._store.upload_result(target, result, location)
            if result.stored is not None:
                with report.time_step("publish"):
                    self._store.publish_result(
                        target, result.entry | {"mediaDescriptor": location.media_descriptor}, location, result.stored
                    )
        return result.stored is not None

    def _log_finished(self, target: MuxTarget, report: JobReport) -> None:
        report.facts = {"agent": target.agent, "sources": len(target.source_ids)} | report.facts
        seconds = {f"{name}_seconds": round(value, 3) for name, value in report.steps.items()}
        report.facts |= {"seconds": round(sum(report.steps.values()), 3)} | seconds
        log.info("recording muxed" if report.muxed else "recording brought up to date", extra={"fields": report.facts})


def result_location(target: MuxTarget, name: str) -> MediaLocation:
    """Return where to store the muxed file. Raises MetadataError without a location, or when a source is there."""
    return _location_next_to_sources(target, muxed_location(target), name)


def needed_services(target: MuxTarget) -> frozenset[str]:
    """Return the names of the services that processing `target` needs, as far as its metadata state them."""
    services = {RWS}
    for media in (target.audio, *target.screens):
        if media.is_encrypted:
            services.add(RCS)
        if media.media_descriptor is not None and not (media.is_encrypted and media is target.audio):
            with contextlib.suppress(MetadataError):
                services.add(parse_descriptor(media.media_descriptor).service_name)
    return frozenset(services)


def _location_next_to_sources(target: MuxTarget, screen_location: MediaLocation, name: str) -> MediaLocation:
    """Return the location of the muxed file. Raises MetadataError when it would overwrite a source."""
    if any(name in media.known_names for media in (target.audio, *target.screens)):
        raise MetadataError(f"a source has the name of the muxed file: {name}")
    return screen_location.sibling(name)


def _remove_others(folder: Path, kept: Path) -> None:
    """Remove all files of a job's folder except `kept`, so that unencrypted media stay only while needed."""
    for path in folder.iterdir():
        if path != kept:
            _remove_early(path)


def _remove_early(path: Path) -> None:
    """Delete a file of a job's folder. A file that another program holds open stays until the end of the job."""
    try:
        files.remove_file(path)
    except OSError as error:
        log.info("%s cannot be deleted before the end of the job: %s", path, error)
