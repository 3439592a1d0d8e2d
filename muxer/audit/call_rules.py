"""Judges one call recording: what it should have, by the rule that also selects the work of the muxer. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from muxer.audit.findings import Finding, FindingKind
from muxer.gir.models import CallRecording, MediaFile, to_microseconds
from muxer.gir.targets import MuxTarget, TargetSelection
from muxer.storage.base import ObjectInfo


@dataclass(frozen=True)
class Look:
    """Whether a file is found, its `info` where a storage gives it, or why that is `unknown`."""

    found: bool = False
    info: ObjectInfo | None = None
    unknown: str = ""


METADATA_PROBLEMS = "its metadata are unusable"
# A finding lists the first problems of the metadata of a call.
MAX_SHOWN_PROBLEMS = 5
# A file that lasts longer has a wrong stop time (our decision).
MAX_FILE_LENGTH = timedelta(days=1)

Looks = Mapping[str, Look]
# Issuer and serial number of each recipient.
Recipients = frozenset[bytes]


@dataclass(frozen=True)
class SiteRules:
    """What holds for the whole site.

    `in_force_since` is the time since when every current certificate is valid, None when the site does not encrypt.
    `pending_after` is the time after which the muxer itself still looks at a call. `true_sizes` are the kinds of sources
    whose metadata state their sizes: a server may state wrong ones for calls but not for screens.
    """

    pending_after: datetime
    current: Recipients = frozenset()
    in_force_since: datetime | None = None
    true_sizes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class CallVerdict:
    """The findings of one call, its numbers, and the recipients that only the whole audit can judge."""

    findings: tuple[Finding, ...] = ()
    files: int = 0
    pending: int = 0
    # mediaId and recipients of muxed files that are not the current ones, and the sets of recipients of its screen files.
    doubtful: tuple[tuple[str, Recipients], ...] = ()
    source_sets: frozenset[Recipients] = frozenset()
    # The number of muxed files that were compared with their sources.
    compared: int = 0


def has_stated_length(media: MediaFile, info: ObjectInfo) -> bool:
    """Whether a stored file has the length that its metadata state; any but 0 when they state none."""
    return info.length == media.stated_size if media.stated_size else info.length > 0


def wanted_looks(selection: TargetSelection) -> dict[str, MediaFile]:
    """Return the files to look for in the storages, by mediaId: the muxed files that count, and all sources."""
    found: dict[str, MediaFile] = {}
    for target in selection.targets:
        for media in (*target.covering_files, target.audio, *target.screens):
            found[media.media_id] = media
    return found


def source_kind(target: MuxTarget, media: MediaFile) -> str:
    """Return the kind of metadata that a source has: call or screen."""
    return "call" if media is target.audio else "screen"


def count_sizes(selection: TargetSelection, looks: Looks) -> Counter[str]:
    """Return for each kind of sources how many have the size in their metadata, less those that have another one."""
    found: Counter[str] = Counter()
    for target in selection.targets:
        for media in (target.audio, *target.screens):
            look = looks.get(media.media_id)
            # An empty file shows nothing of what its metadata state.
            if look is not None and look.info is not None and media.stated_size and look.info.length:
                found[source_kind(target, media)] += 1 if look.info.length == media.stated_size else -1
    return found


def judge_call(
    call: CallRecording,
    selection: TargetSelection,
    looks: Looks,
    envelopes: Mapping[str, Recipients],
    rules: SiteRules,
) -> CallVerdict:
    """Return what is wrong with a call.

    `looks` has what the storages say by mediaId; without an entry, a file cannot be looked for. `envelopes` has the
    recipients of encrypted files by mediaId; without an entry, an envelope cannot be read.
    """
    judge = _Judge(call, looks, envelopes, rules)
    if selection.problems:
        judge.add(FindingKind.UNCHECKED, "", f"{METADATA_PROBLEMS}: {_join_problems(selection.problems)}")
    for target in selection.targets:
        judge.judge_target(target)
    screens = [screen for target in selection.targets for screen in target.screens]
    source_sets = frozenset(envelopes[one.media_id] for one in screens if one.media_id in envelopes)
    return CallVerdict(tuple(judge.findings), judge.files, judge.pending, tuple(judge.doubtful), source_sets)


def _join_problems(problems: Sequence[str]) -> str:
    more = len(problems) - MAX_SHOWN_PROBLEMS
    return "; ".join(problems[:MAX_SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")


def _is_envelope_hidden(target: MuxTarget, media: MediaFile) -> bool:
    """Whether a muxed file is encrypted by its other metadata, and RWS shows no envelope of its sources either."""
    is_shown = any(source.pkcs7_envelope is not None for source in (target.audio, *target.screens))
    return not is_shown and (bool(media.raw.get("certAlias")) or (media.is_encrypted and target.is_encrypted))


class _Judge:
    """Collects the findings of one call."""

    def __init__(self, call: CallRecording, looks: Looks, envelopes: Mapping[str, Recipients], rules: SiteRules) -> None:
        self._call, self._looks, self._envelopes, self._rules = call, looks, envelopes, rules
        self._started = None if call.start is None else to_microseconds(call.start) / 1e6
        self._seen: set[tuple[FindingKind, str]] = set()
        self.findings: list[Finding] = []
        self.doubtful: list[tuple[str, Recipients]] = []
        self.files = self.pending = 0

    def add(self, kind: FindingKind, file: str, detail: str, target: str = "") -> None:
        """Add a finding, once for each kind and file."""
        if file and (kind, file) in self._seen:
            return
        self._seen.add((kind, file))
        self.findings.append(Finding(kind, self._call.id, file, detail, target, self._started))

    def judge_target(self, target: MuxTarget) -> None:
        if self._is_pending(target):
            self.pending += target.needs_work
        else:
            self._judge_work(target)
        self._judge_sources(target)
        for media in target.covering_files:
            self.files += 1
            self._judge_file(target, media)

    def _is_pending(self, target: MuxTarget) -> bool:
        return any(latest_end(media) > self._rules.pending_after for media in (target.audio, *target.screens) if media.start)

    def _judge_work(self, target: MuxTarget) -> None:
        """Compare with what the muxer would still have to do."""
        name = target.file_name
        if not target.published:
            count = len(target.screens)
            files = "1 screen file" if count == 1 else f"{count} screen files"
            self.add(FindingKind.MISSING, name, f"the call has {files} of an agent and no muxed file of them", name)
        elif target.label_missing:
            self.add(FindingKind.LABEL_MISSING, "", "its muxed file is published", name)
        for media in target.superseded:
            self.add(FindingKind.SUPERSEDED_LEFT, media.media_id, "a muxed file with more of its sources is published", name)
        if len(target.same_source_files) > 1:
            names = ", ".join(media.media_id for media in target.same_source_files)
            self.add(FindingKind.PUBLISHED_TWICE, target.same_source_files[0].media_id, f"the entries are {names}", name)

    def _judge_sources(self, target: MuxTarget) -> None:
        for media in (target.audio, *target.screens):
            look = self._looks.get(media.media_id)
            if look is None:
                continue
            if look.unknown:
                self.add(FindingKind.UNCHECKED, media.media_id, look.unknown)
            elif not look.found:
                what = "audio" if media is target.audio else "screen"
                self.add(FindingKind.SOURCE_MISSING, media.media_id, f"the {what} file is not where its metadata say")
            elif look.info is not None and not self._is_pending(target):
                self._judge_length(target, media, look.info.length)

    def _judge_length(self, target: MuxTarget, media: MediaFile, length: int) -> None:
        is_short = length < media.stated_size and source_kind(target, media) in self._rules.true_sizes
        if not length or is_short:
            wanted = f" instead of {media.stated_size}" if media.stated_size else ""
            self.add(FindingKind.SOURCE_DAMAGED, media.media_id, f"it is {length} bytes{wanted}", target.file_name)

    def _judge_file(self, target: MuxTarget, media: MediaFile) -> None:
        name, look = target.file_name, self._looks.get(media.media_id)
        if look is None:
            self.add(FindingKind.UNCHECKED, media.media_id, "its metadata have no usable location", name)
        elif look.unknown:
            self.add(FindingKind.UNCHECKED, media.media_id, look.unknown, name)
        elif not look.found:
            self.add(FindingKind.FILE_MISSING, media.media_id, "there is an entry, but no file in the storage", name)
        elif look.info is not None and not has_stated_length(media, look.info):
            detail = f"{look.info.length} bytes are stored, the metadata say {media.stated_size}"
            self.add(FindingKind.WRONG_LENGTH, media.media_id, detail, name)
        self._judge_encryption(target, media)

    def _judge_encryption(self, target: MuxTarget, media: MediaFile) -> None:
        in_force = self._rules.in_force_since is not None and (
            self._call.start is None or self._call.start >= self._rules.in_force_since
        )
        if media.pkcs7_envelope is None:
            if _is_envelope_hidden(target, media):
                return
            if target.is_encrypted:
                self.add(FindingKind.NOT_ENCRYPTED, media.media_id, "a source is encrypted", target.file_name)
            elif in_force:
                detail = "the site's certificates were valid when the call began"
                self.add(FindingKind.NOT_ENCRYPTED, media.media_id, detail, target.file_name)
            return
        recipients = self._envelopes.get(media.media_id)
        if recipients is None:
            self.add(FindingKind.WRONG_RECIPIENT, media.media_id, "its envelope cannot be read", target.file_name)
        elif recipients != self._rules.current and (in_force or self._has_encrypted_screen(target)):
            self.doubtful.append((media.media_id, recipients))

    def _has_encrypted_screen(self, target: MuxTarget) -> bool:
        return any(screen.media_id in self._envelopes for screen in target.screens)


def latest_end(media: MediaFile) -> datetime:
    """Return when a file with a start ends at the latest: a stop time may be wrong, and far in the future."""
    assert media.start is not None
    return min(media.stop or media.start, media.start + MAX_FILE_LENGTH)


def find_wrong_recipients(
    doubtful: Iterable[tuple[str, str, Recipients, float | None]],
    known_sets: Sequence[Recipients],
    former: Recipients = frozenset(),
) -> Iterator[Finding]:
    """Yield a finding for each muxed file whose recipients are none of the `known_sets`, nor all `former` ones.

    `doubtful` has recording, mediaId, recipients and the start of the call. A site changes its certificates: what is not
    encrypted for those of today may be for those that were in force, which screen files of the same audit have.
    """
    known = set(known_sets)
    for recording, media_id, recipients, started in doubtful:
        if recipients not in known and not recipients <= former:
            unknown = len(recipients - frozenset[bytes]().union(*known))
            detail = (
                f"{unknown} of its {len(recipients)} recipients are unknown" if unknown else "some recipients are missing"
            )
            yield Finding(FindingKind.WRONG_RECIPIENT, recording, media_id, detail, started=started)
