"""Compares a stored muxed file with one that is made now from the same sources."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from muxer.audit.auditor import AuditedCall
from muxer.audit.call_rules import CallVerdict
from muxer.audit.file_look import is_of_one_file
from muxer.audit.findings import Finding, FindingKind
from muxer.audit.pace import Pace
from muxer.errors import Code, EncryptionError, LocalResourceError, MediaIncomplete, MediaNotFound, MuxerError, Stopped
from muxer.gir.models import CallRecording, MediaFile, to_microseconds
from muxer.gir.targets import MuxTarget
from muxer.net.circuit_breaker import RCS
from muxer.pipeline.job import Job
from muxer.pipeline.services import Services
from muxer.storage.base import parse_descriptor

# A damaged file is described by its first differences.
MAX_DIFFERENCES = 5
_NOT_COMPARED = (FindingKind.SOURCE_MISSING, FindingKind.FILE_MISSING, FindingKind.WRONG_LENGTH)
_SAMPLE = re.compile(r"(\d{1,9})/(\d{1,9})")


@dataclass(frozen=True)
class Sample:
    """The share of the calls that is compared: the same calls in each audit."""

    part: int = 1
    whole: int = 1

    @classmethod
    def parse(cls, text: str) -> Sample:
        """Parse a share such as ``1/100``. Raises ValueError."""
        found = _SAMPLE.fullmatch(text.strip())
        if found is None or not 0 < int(found[1]) <= int(found[2]):
            raise ValueError(f"{text!r} is no share such as 1/100")
        return cls(int(found[1]), int(found[2]))

    def includes(self, recording_id: str) -> bool:
        """Whether a call is in the sample."""
        digest = hashlib.sha256(recording_id.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.whole < self.part


def _has_same_sources(media: MediaFile, target: MuxTarget) -> bool:
    return set(media.muxed_from or ()) == set(target.source_ids)


class DeepCheck:
    """Compares muxed files with their sources."""

    def __init__(self, services: Services, job: Job, pace: Pace) -> None:
        self._services, self._job, self._pace = services, job, pace

    def compare_call(self, audited: AuditedCall) -> CallVerdict:
        """Return the verdict of a call with what a comparison finds; a file that is missing or cut is a finding already.

        Raises Stopped, the error of a service that is unavailable, and LocalResourceError when this machine lacks something.
        """
        verdict, call = audited.verdict, audited.call
        wrong = {one.file for one in verdict.findings if one.kind in _NOT_COMPARED}
        for target in audited.selection.targets:
            if wrong & set(target.source_ids):
                continue
            files = [media for media in target.covering_files if media.media_id not in wrong]
            with self._services.activity.track_target(call.id, target.agent, target.file_name):
                found = [finding for media in files for finding in self._compare_result(call, target, media)]
            compared = verdict.compared + sum(_has_same_sources(media, target) for media in files)
            verdict = replace(verdict, findings=(*verdict.findings, *found), compared=compared)
        return verdict

    def _compare_result(self, call: CallRecording, target: MuxTarget, media: MediaFile) -> Iterator[Finding]:
        """Yield the finding about a muxed file, if there is one."""
        started = None if call.start is None else to_microseconds(call.start) / 1e6
        finding = partial(Finding, recording=call.id, file=media.media_id, target=target.file_name, started=started)
        if not _has_same_sources(media, target):
            yield finding(FindingKind.UNCHECKED, detail="it cannot be compared: it has more sources than RWS shows now")
            return
        try:
            differences = self._compare_file(target, media)
        except Stopped:
            raise
        except MuxerError as error:
            if isinstance(error, MediaNotFound) and not isinstance(error, MediaIncomplete):
                return  # That a file is missing is found without fetching it.
            if self._ends_audit(error, target):
                raise
            yield finding(FindingKind.UNCHECKED, detail=f"it cannot be compared with its sources: {error}")
            return
        if differences:
            yield finding(FindingKind.DAMAGED, detail="; ".join(differences[:MAX_DIFFERENCES]))

    def _ends_audit(self, error: MuxerError, target: MuxTarget) -> bool:
        """Whether an error would concern the following files, too."""
        if isinstance(error, LocalResourceError):
            disk, sources = self._services.workspace.disk, (target.audio, *target.screens)
            lacks_something = isinstance(error.__cause__, OSError) or error.code is Code.DISK_FULL
            return disk.could_fit(one.stated_size for one in sources) and (lacks_something or not disk.has_room())
        circuits = self._services.circuit_breaker.open_circuits()
        return any(not is_of_one_file(error, service) for service in circuits)

    def _compare_file(self, target: MuxTarget, media: MediaFile) -> list[str]:
        """Return where a stored muxed file differs from one that is made now."""
        differences: list[str] = []
        with self._services.workspace.job_folder() as folder:
            stored = folder / "stored.mp4"
            self._fetch_result(target, media, stored)

            def compare(reference: Path) -> None:
                differences.extend(self._services.engine.compare_files(stored, reference, folder))

            for _ in target.source_ids:
                self._pace.await_turn()
            self._job.make_clear(target, compare)
        return differences

    def _fetch_result(self, target: MuxTarget, media: MediaFile, path: Path) -> None:
        self._pace.await_turn()
        if media.is_encrypted:
            if self._services.rcs is None:
                raise EncryptionError("it is encrypted, and [rcs] base_uri is empty")
            fetch = partial(self._services.rcs.play_screen, target.recording_id, media.media_id, path, media.relative_paths)
            self._services.repeat(f"fetch through {RCS}", fetch)
            return
        if media.media_descriptor is None:
            raise MediaNotFound(f"{media.media_id} has no location")
        location = parse_descriptor(media.media_descriptor)
        store = self._services.stores.for_location(location)
        self._services.repeat("fetch", partial(store.download_file, location, path))
