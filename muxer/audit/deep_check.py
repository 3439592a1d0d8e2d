"""Compares a stored muxed file with one that is made now from the same sources."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from muxer.audit.auditor import AuditedCall
from muxer.audit.call_rules import CallVerdict, latest_end
from muxer.audit.file_look import is_of_one_file
from muxer.audit.findings import Finding, FindingKind
from muxer.audit.pace import Pace
from muxer.audit.source_check import check_sources
from muxer.errors import (
    Code,
    EncryptionError,
    LocalResourceError,
    MediaError,
    MediaIncomplete,
    MediaNotFound,
    MuxerError,
    ServiceFailed,
    Stopped,
)
from muxer.gir.models import CallRecording, MediaFile, to_microseconds
from muxer.gir.targets import MuxTarget
from muxer.media.comparison import Comparison, shorten_text
from muxer.net.circuit_breaker import RCS
from muxer.pipeline.job import Job
from muxer.pipeline.services import Services
from muxer.storage.base import parse_descriptor

# A damaged file is described by its first differences.
MAX_DIFFERENCES = 5
_NOT_COMPARED = (
    FindingKind.SOURCE_MISSING,
    FindingKind.SOURCE_DAMAGED,
    FindingKind.FILE_MISSING,
    FindingKind.WRONG_LENGTH,
)
# A source of a call that ended before does not grow any more (our decision).
MAX_ARRIVAL = timedelta(days=1)
_UNDECIDED = "it is not shown whether it or a source was changed, so it is not muxed again: compare both with a backup"
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


def _source_of(error: MuxerError, target: MuxTarget) -> str:
    """Return the mediaId of the source that an error is about, empty when it is about none."""
    source = error.source if isinstance(error, (MediaIncomplete, MediaError)) else ""
    return source if source in target.source_ids else ""


def _ended_long_ago(target: MuxTarget) -> bool:
    ends = [latest_end(media) for media in (target.audio, *target.screens) if media.start is not None]
    return bool(ends) and max(ends) < datetime.now(UTC) - MAX_ARRIVAL


@dataclass(frozen=True)
class _Outcome:
    """Where a muxed file differs, whether that shows it to be wrong, and the errors of sources by mediaId."""

    differences: Sequence[str] = ()
    is_damaged: bool = False
    damaged_sources: Mapping[str, str] = field(default_factory=dict)
    compared: int = 1


@dataclass(frozen=True)
class _Result:
    """The findings about a muxed file, and the number of files that were compared: 0 or 1."""

    findings: tuple[Finding, ...] = ()
    compared: int = 0


class DeepCheck:
    """Compares muxed files with their sources."""

    def __init__(self, services: Services, job: Job, pace: Pace) -> None:
        self._services, self._job, self._pace = services, job, pace
        # Whether RCS has decrypted a muxed file: then it works.
        self._has_decrypted = False

    def compare_call(self, audited: AuditedCall) -> CallVerdict:
        """Return the verdict of a call with what a comparison finds; a file that is missing or cut is a finding already.

        Raises Stopped, the error of a service that is unavailable, and LocalResourceError when this machine lacks something.
        """
        verdict, call = audited.verdict, audited.call
        wrong = {one.file for one in verdict.findings if one.kind in _NOT_COMPARED}
        for target in audited.selection.targets:
            if wrong & set(target.source_ids):
                continue
            for media in target.covering_files:
                if media.media_id in wrong:
                    continue
                with self._services.activity.track_target(call.id, target.agent, target.file_name):
                    result = self._compare_result(call, target, media)
                known = {(one.kind, one.file) for one in verdict.findings}
                new = tuple(one for one in result.findings if (one.kind, one.file) not in known)
                compared = verdict.compared + result.compared
                verdict = replace(verdict, findings=(*verdict.findings, *new), compared=compared)
        return verdict

    def _compare_result(self, call: CallRecording, target: MuxTarget, media: MediaFile) -> _Result:
        """Return the findings about a muxed file and its sources, and whether it was compared."""
        started = None if call.start is None else to_microseconds(call.start) / 1e6
        finding = partial(Finding, recording=call.id, target=target.file_name, started=started)
        about_file = partial(finding, file=media.media_id)
        if not _has_same_sources(media, target):
            text = "it cannot be compared: it has more sources than RWS shows now"
            return _Result((about_file(FindingKind.UNCHECKED, detail=text),))
        try:
            outcome = self._compare_file(target, media)
        except Stopped:
            raise
        except MuxerError as error:
            if self._ends_audit(error, target):
                raise
            if (source := _source_of(error, target)) and _ended_long_ago(target):
                # The cause is without the promise to wait until the file has grown.
                text = shorten_text(str(error.__cause__ or error))
                return _Result((finding(FindingKind.SOURCE_DAMAGED, file=source, detail=text),))
            text = f"it cannot be compared with its sources: {shorten_text(str(error))}"
            return _Result((about_file(FindingKind.UNCHECKED, detail=text),))
        if outcome.damaged_sources:
            kind = FindingKind.SOURCE_DAMAGED
            text = "the muxed file differs from what it gives"
            rows = outcome.damaged_sources.items()
            return _Result(
                tuple(finding(kind, file=name, detail=f"{error}; {text}") for name, error in rows), outcome.compared
            )
        if not outcome.differences:
            return _Result(compared=1)
        text = "; ".join(outcome.differences[:MAX_DIFFERENCES])
        if outcome.is_damaged:
            return _Result((about_file(FindingKind.DAMAGED, detail=text),), outcome.compared)
        return _Result((about_file(FindingKind.UNCHECKED, detail=f"{text}; {_UNDECIDED}"),), compared=1)

    def _ends_audit(self, error: MuxerError, target: MuxTarget) -> bool:
        """Whether an error would concern the following files, too."""
        if isinstance(error, LocalResourceError):
            disk, sources = self._services.workspace.disk, (target.audio, *target.screens)
            lacks_something = isinstance(error.__cause__, OSError) or error.code is Code.DISK_FULL
            return disk.could_fit(one.stated_size for one in sources) and (lacks_something or not disk.has_room())
        circuits = self._services.circuit_breaker.open_circuits()
        return any(not is_of_one_file(error, service) for service in circuits)

    def _compare_file(self, target: MuxTarget, media: MediaFile) -> _Outcome:
        """Return where a stored muxed file differs from one that is made now, and which of both is wrong."""
        found: list[Comparison] = []
        with self._services.workspace.job_folder() as folder:
            stored = folder / "stored.mp4"
            failure = self._try_fetch(target, media, stored)

            def compare(reference: Path) -> None:
                nonlocal failure
                if failure is not None:  # Once more: RCS may have failed for a moment, and has decrypted the sources since.
                    failure = self._try_fetch(target, media, stored)
                if failure is None:
                    found.append(self._services.engine.compare_files(stored, reference, folder))

            for _ in target.source_ids:
                self._pace.await_turn()
            report = self._job.make_clear(target, compare)
        if failure is not None:
            works = self._has_decrypted or target.is_encrypted
            if not works or self._services.circuit_breaker.is_open(RCS):
                raise failure
            found.append(Comparison((f"RCS cannot decrypt it: {shorten_text(str(failure))}",), proves_damage=True))
        [comparison] = found
        if not comparison.differences:
            return _Outcome()
        for _ in target.source_ids:
            self._pace.await_turn()
        sources = check_sources(self._services, target)
        # Sources that were cut off, or that give an encoded file, do not prove that a foreign file is the wrong one.
        as_foreign = comparison.is_foreign and sources.have_stated_sizes and report.facts.get("method") == "copy"
        is_damaged = comparison.proves_damage or (as_foreign and "missing" not in report.facts)
        return _Outcome(comparison.differences, is_damaged, sources.errors, int(failure is None))

    def _try_fetch(self, target: MuxTarget, media: MediaFile, path: Path) -> MuxerError | None:
        """Fetch a stored muxed file; return the error of RCS when it may be that of this file alone."""
        try:
            self._fetch_result(target, media, path)
        except (ServiceFailed, EncryptionError) as error:
            if not media.is_encrypted or self._services.rcs is None:
                raise
            return error
        self._has_decrypted = self._has_decrypted or media.is_encrypted
        return None

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
