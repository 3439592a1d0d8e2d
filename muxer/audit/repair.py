"""Hands findings to the normal job: it muxes again, publishes, labels, deletes what is superseded. No source is touched."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import groupby

from muxer.audit.call_rules import has_stated_length
from muxer.audit.file_look import FileLook
from muxer.audit.findings import Finding, FindingKind
from muxer.audit.ledger import AuditLedger
from muxer.audit.pace import Pace
from muxer.audit.source_check import check_sources
from muxer.errors import MuxerError, Stopped, format_error
from muxer.gir.models import MediaFile
from muxer.gir.muxed_names import is_muxed_file
from muxer.gir.targets import MuxTarget
from muxer.log.setup import recording_context
from muxer.pipeline.job import Job
from muxer.pipeline.services import Services

log = logging.getLogger(__name__)

# What is wrong with a muxed file itself: it is made again.
MUX_AGAIN = frozenset(
    (
        FindingKind.FILE_MISSING,
        FindingKind.WRONG_LENGTH,
        FindingKind.NOT_ENCRYPTED,
        FindingKind.WRONG_RECIPIENT,
        FindingKind.DAMAGED,
    )
)
# What may have been wrong with the storage for a while.
ABOUT_STORAGE = frozenset((FindingKind.FILE_MISSING, FindingKind.WRONG_LENGTH))
# What the job does for a target that needs work.
FINISH = frozenset((FindingKind.MISSING, FindingKind.LABEL_MISSING, FindingKind.SUPERSEDED_LEFT))
REPAIRABLE = MUX_AGAIN | FINISH | {FindingKind.PUBLISHED_TWICE}
LABEL_REFUSED = "published and complete, but RWS refuses the label"
REPAIRED, CORRECTED, DELETED = "repaired", "nothing to do: it was corrected in the meantime", "deleted"
# What a finding that is closed ends with.
CLOSED = (REPAIRED, CORRECTED, DELETED)


class Repairer:
    """Repairs the findings of an audit, one recording after the other."""

    def __init__(
        self, services: Services, job: Job, ledger: AuditLedger, pace: Pace, *, delete_superseded: bool = True
    ) -> None:
        """`delete_superseded` is the option of `[advanced]`: without it, no file is deleted."""
        self._services, self._job, self._ledger = services, job, ledger
        self._delete_superseded = delete_superseded
        self._look = FileLook(services, pace)

    def repair_findings(self) -> Iterator[tuple[Finding, str]]:
        """Repair everything that can be repaired, and yield each finding with what was done. Raises Stopped."""
        rows = (finding for finding, done in self._ledger.read_findings() if done not in CLOSED)
        for recording, group in groupby(rows, key=lambda finding: finding.recording):
            findings = list(group)
            wanted = [finding for finding in findings if finding.kind in REPAIRABLE]
            with recording_context(recording):
                results = self._repair_recording(recording, wanted, findings)
            for finding, what in zip(wanted, results, strict=True):
                self._ledger.record_repair(finding, what)
                yield finding, what

    def _repair_recording(self, recording: str, wanted: Sequence[Finding], findings: Sequence[Finding]) -> list[str]:
        """Return what was done about each of the `wanted` of all open `findings` of a recording."""
        try:
            names = [self._target_name(recording, finding) for finding in wanted]
        except Stopped:
            raise
        except MuxerError as error:
            return [f"not repaired: {format_error(error)}"] * len(wanted)
        results: dict[str, str] = {}
        for name in dict.fromkeys(names):
            try:
                results[name] = (
                    self._repair_target(recording, name, findings) if name else "its sources are no longer in RWS"
                )
            except Stopped:
                raise
            except MuxerError as error:
                results[name] = f"not repaired: {format_error(error)}"
        return [results[name] for name in names]

    def _target_name(self, recording: str, finding: Finding) -> str:
        """Return the target that a finding is about, empty when no target has it any more."""
        if finding.target:
            return finding.target
        for target in self._job.read_targets(recording):
            if any(media.media_id == finding.file for media in target.covering_files):
                return target.file_name
        return ""

    def _repair_target(self, recording: str, name: str, findings: Sequence[Finding]) -> str:
        target = self._job.find_target(recording, name)
        if target is None:
            return "nothing to do: its sources have changed, or are no longer in RWS"
        wrong = self._find_wrong_files(target, findings)
        bad = [media for media in target.covering_files if media.media_id in wrong]
        good = [media for media in target.covering_files if media not in bad]
        if not target.needs_work and not bad and len(target.same_source_files) < 2:
            return CORRECTED
        if bad and not good and not target.same_source_files:
            return "not repaired: the muxed file has more sources than RWS shows now, and would lose some"
        is_muxed_again = bool(bad) and not good
        if (is_muxed_again or len(target.same_source_files) > 1) and (doubt := self._find_doubt(target, findings)):
            return f"not repaired: {doubt}"
        report = None
        if is_muxed_again or target.needs_work:
            report = self._job.run(target, again=is_muxed_again)
        if left := self._delete_extra_files(recording, name, wrong):
            return left
        return LABEL_REFUSED if report is not None and report.facts.get("label") == "refused" else REPAIRED

    def _find_wrong_files(self, target: MuxTarget, findings: Sequence[Finding]) -> set[str]:
        """Return the mediaIds of the muxed files that are wrong, without those that are stored by now as they should be."""
        kinds: dict[str, set[FindingKind]] = {}
        for one in findings:
            if one.kind in MUX_AGAIN:
                kinds.setdefault(one.file, set()).add(one.kind)
        files = {media.media_id: media for media in target.covering_files}
        return {
            name
            for name, of in kinds.items()
            if not (of <= ABOUT_STORAGE and name in files and self._is_stored(files[name]))
        }

    def _find_doubt(self, target: MuxTarget, findings: Sequence[Finding]) -> str:
        """Return why no stored file of a target may be replaced or deleted; empty when it may be, or when none is stored."""
        files = {media.media_id: media for media in (*target.covering_files, *target.same_source_files)}
        unchecked = {one.file: one.detail for one in findings if one.kind is FindingKind.UNCHECKED}
        if doubted := next((name for name in files if name in unchecked), ""):
            return f"{doubted} could not be checked: {unchecked[doubted]}"
        looks = {name: self._look.look_at_result(media) for name, media in files.items()}
        for name, look in looks.items():
            if look is not None and look.unknown:
                return f"{name} could not be checked: {look.unknown}"
        if not any(look is None or look.info is not None for look in looks.values()):
            return ""
        known = {one.file: one.detail for one in findings if one.kind is FindingKind.SOURCE_DAMAGED}
        errors = {name: known[name] for name in target.source_ids if name in known}
        errors = errors or check_sources(self._services, target).errors
        if not errors:
            return ""
        return f"a source is damaged: {'; '.join(f'{name}: {detail}' for name, detail in errors.items())}"

    def _delete_extra_files(self, recording: str, name: str, wrong: set[str]) -> str:
        """Delete the wrong muxed files of a target that has a right one, and of several right ones all but one.

        Returns why one is left; empty when none is.
        """
        target = self._job.find_target(recording, name)
        if target is None or not target.same_source_files:
            return ""
        right = [media for media in target.covering_files if media.media_id not in wrong and self._is_stored(media)]
        if not right:
            return ""
        kept, left = max(right, key=lambda media: (len(media.muxed_from or ()), media.media_id == name)), ""
        for media in target.same_source_files:
            if media.media_id == kept.media_id:
                continue
            with self._services.publisher.recording_lock(recording):
                if media.known_names & kept.known_names or self._location_of(media) == self._location_of(kept):
                    self._services.rws.delete_media(recording, media.media_id)
                elif not is_muxed_file(media, recording):
                    left = f"not deleted: {media.media_id} has no name that the muxer gives to a file of this recording"
                elif not self._delete_superseded:
                    left = f"not deleted: {media.media_id} stays, because [advanced] delete_superseded is 0"
                else:
                    self._services.superseded.delete_file(recording, media, kept.media_id)
        return left

    @staticmethod
    def _location_of(media: MediaFile) -> object:
        return None if media.media_descriptor is None else dict(media.media_descriptor)

    def _is_stored(self, media: MediaFile) -> bool:
        look = self._look.look_at_result(media)
        return look is not None and look.info is not None and has_stated_length(media, look.info)
