"""Goes through the calls of an audit: reads them from RWS, looks at their files, and records what is wrong.

Only a page and some slices are in memory. Each slice of calls is recorded at once, so that a stopped audit goes on after it.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from muxer.audit.call_rules import (
    CallVerdict,
    Looks,
    Recipients,
    SiteRules,
    count_sizes,
    find_wrong_recipients,
    judge_call,
    wanted_looks,
)
from muxer.audit.file_look import FileLook
from muxer.audit.findings import Finding, FindingKind
from muxer.audit.ledger import HOUR_SECONDS, AuditLedger
from muxer.audit.pace import Pace
from muxer.audit.report import format_epoch
from muxer.audit.scope import AuditScope
from muxer.audit.spans import SLICE_MS, Span
from muxer.config.schema import Config
from muxer.crypto.recipients import certificate_recipient, envelope_recipients
from muxer.errors import EncryptionError, MetadataError, MuxerError, QueryIncomplete, Stopped
from muxer.gir.models import CallRecording, MediaFile, ScreenRecording, to_microseconds
from muxer.gir.rws import Certificate
from muxer.gir.targets import MuxTarget, TargetOptions, TargetSelection
from muxer.log.setup import recording_context
from muxer.net.circuit_breaker import RWS
from muxer.pipeline.services import Services
from muxer.polling.lookahead import LookAhead, split_pages
from muxer.polling.sharding import is_mine
from muxer.polling.window import migration_query
from muxer.status import activity
from muxer.storage.base import parse_descriptor

log = logging.getLogger(__name__)

# Calls whose screen recordings are read, and whose files are looked at, by one thread at a time.
CALLS_AT_A_TIME = 50
STEP = "audit"
MISSED_SCREENS = (
    "RWS turned out late to ignore the ids of the bulk query, so calls before that may have screen recordings that it did "
    "not return: audit again with [processing] batch_read_screen_recording_metadata = 0"
)
# Findings that compare what was read at different times.
_CHANGING = frozenset(
    (
        FindingKind.FILE_MISSING,
        FindingKind.WRONG_LENGTH,
        FindingKind.SOURCE_MISSING,
        FindingKind.SOURCE_DAMAGED,
        FindingKind.LABEL_MISSING,
    )
)


@dataclass(frozen=True)
class AuditedCall:
    """A call with its selection and its verdict."""

    call: CallRecording
    selection: TargetSelection
    has_screens: bool
    verdict: CallVerdict
    # All muxed files in its metadata.
    results: tuple[MediaFile, ...] = ()


@dataclass(frozen=True)
class _SeenCall:
    """A call with what the storages say of its files; `unread` is why its screen recording cannot be read."""

    call: CallRecording
    screen: ScreenRecording | None
    selection: TargetSelection
    unread: str
    looks: Looks = field(default_factory=dict)
    envelopes: Mapping[str, Recipients] = field(default_factory=dict)


class Auditor:
    """Audits the calls of a scope."""

    def __init__(
        self,
        config: Config,
        services: Services,
        ledger: AuditLedger,
        scope: AuditScope,
        pace: Pace,
        compare: Callable[[AuditedCall], CallVerdict] | None = None,
    ) -> None:
        """`compare` looks deeper at a call and returns its verdict with what it found."""
        self._config, self._services, self._ledger, self._scope, self._pace = config, services, ledger, scope, pace
        self._compare = compare
        self._options = TargetOptions.from_config(config.advanced)
        self._look = FileLook(services, pace)
        self._ahead = LookAhead(config.advanced.concurrent_queries)
        self._rules = SiteRules(datetime.now(UTC))
        # By kind of sources: how many have the size in their metadata, less those that have another one.
        self._sizes: Counter[str] = Counter()
        self._sizes_lock = threading.Lock()
        # How many bulk responses with gaps were trusted before, and whether that was also done in this audit.
        self._earlier_gaps, self._trusts_gaps = 0, False

    def audit_calls(self) -> Iterator[None]:
        """Audit everything that was not audited yet. Yields after each part, which is recorded then.

        Raises the error of a service that is unavailable; then a later audit with the same ledger goes on here.
        """
        slices, done = self._scope.divide(), self._ledger.read_fact("slices_done", 0)
        self._pace.await_turn()
        self._rules = self._read_rules()
        self._earlier_gaps = self._services.rws.trusted_gaps
        self._trusts_gaps = self._ledger.read_fact("trusts_gaps", False)
        activity.begin_step(STEP)
        if self._scope.span is not None:
            activity.set_expected_amount(len(slices) * SLICE_MS * 1000)
            activity.add_progress(done * SLICE_MS * 1000)
        try:
            for number in range(done, len(slices)):
                yield from self._audit_slice(slices[number])
                self._ledger.end_slice(number + 1)
        finally:
            self._ahead.close()
        self._record_missed_screens()
        self._judge_recipients()

    def _record_missed_screens(self) -> None:
        """Record whether calls may have been taken for calls without a screen, also for an audit that goes on later.

        Other threads of the process read with the same client: what they have trusted before is not of this audit.
        """
        rws = self._services.rws
        if not self._trusts_gaps and rws.trusted_gaps > self._earlier_gaps:
            self._trusts_gaps = True
            self._ledger.write_facts({"trusts_gaps": True})
        if self._trusts_gaps and rws.ignores_ids:
            self._ledger.add_findings([Finding(FindingKind.UNCHECKED, "", "screen recordings", MISSED_SCREENS)])

    def _read_rules(self) -> SiteRules:
        processing = self._config.processing
        minutes = processing.window_past + processing.window_past_older_than
        certificates = self._services.repeat("reading the certificates", self._services.rws.fetch_certificates)
        current = frozenset(certificate_recipient(one.pem) for one in certificates)
        since = self._scope.encryption.since or _valid_since(certificates)
        return SiteRules(datetime.now(UTC) - timedelta(minutes=minutes), current, since if certificates else None)

    def _audit_slice(self, span: Span | None) -> Iterator[None]:
        query = span.query if span is not None else self._scope.query
        hours: set[int] = set()
        try:
            calls = split_pages(
                self._read_calls(migration_query(query, self._config.advanced.pagination), span), CALLS_AT_A_TIME
            )
            for part, audited in self._ahead.read_slices(calls, self._audit_part):
                self._record_missed_screens()
                if self._compare is None:
                    self._record_part(audited)
                else:  # one after the other: each comparison takes as long as a mux step
                    for one in audited:
                        self._record_part([replace(one, verdict=self._compare(one))])
                activity.add_progress(self._measure_progress(part, hours))
                yield
        except QueryIncomplete as error:
            # The slice is named: those of several slices are findings of their own.
            name = "" if span is None else f"calls that began from {format_epoch(span.start / 1000)}"
            self._ledger.add_findings([Finding(FindingKind.UNCHECKED, "", name, str(error))])
        activity.add_progress((SLICE_MS - len(hours) * HOUR_SECONDS * 1000) * 1000)

    def _measure_progress(self, part: Sequence[CallRecording], hours: set[int]) -> int:
        """Return how much of the slice a part adds, by the hours of its calls: RWS does not say how many calls there are."""
        before, most = len(hours), SLICE_MS // 1000 // HOUR_SECONDS
        hours.update(
            int(one.start.timestamp()) // HOUR_SECONDS for one in part if one.start is not None and len(hours) < most
        )
        return (min(len(hours), most) - before) * HOUR_SECONDS * 1_000_000

    def _read_calls(self, query: str, span: Span | None) -> Iterator[list[CallRecording]]:
        """Yield the calls of a slice that were not audited yet, page by page."""
        self._pace.await_turn()
        for page in self._services.rws.read_call_recordings(query):
            yield [call for call in page if self._is_wanted(call, span)]
            self._pace.await_turn()

    def _is_wanted(self, call: CallRecording, span: Span | None) -> bool:
        start = None if call.start is None else to_microseconds(call.start) // 1000
        in_span = span is None or span.contains(start)
        in_shard = not self._scope.own_shard or is_mine(self._config.processing, call.id)
        return in_span and in_shard and not self._ledger.is_seen(call.id)

    def _audit_part(self, calls: Sequence[CallRecording]) -> list[AuditedCall]:
        if not calls:
            return []
        self._pace.await_turn()
        bulk = self._config.processing.batch_read_screen_recording_metadata
        unread: dict[str, str] = {}

        def note_unread(recording_id: str, error: Exception) -> None:
            unread[recording_id] = str(error)

        screens = self._services.rws.fetch_screen_recordings([call.id for call in calls], bulk, note_unread)
        seen = [self._look_at_call(call, screens.get(call.id), unread.get(call.id, "")) for call in calls]
        # Which sizes are true is known better after all files of a part.
        for one in seen:
            with self._sizes_lock:
                self._sizes.update(count_sizes(one.selection, one.looks))
        return [self._confirm_findings(self._judge(one)) for one in seen]

    def _confirm_findings(self, audited: AuditedCall) -> AuditedCall:
        """Audit a call once more when the muxer may have worked on it since its metadata were read."""
        if not any(one.kind in _CHANGING for one in audited.verdict.findings):
            return audited
        recording_id, rws, repeat = audited.call.id, self._services.rws, self._services.repeat
        self._pace.await_turn()
        try:
            call = repeat("reading the call recording", partial(rws.fetch_call_recording, recording_id))
            screen = repeat("reading the screen recording", partial(rws.fetch_screen_recording, recording_id))
        except Stopped:
            raise
        except MuxerError:
            if self._services.circuit_breaker.is_open(RWS):
                raise
            return audited
        if call is None:
            return AuditedCall(audited.call, TargetSelection((), ()), audited.has_screens, CallVerdict())
        return self._judge(self._look_at_call(call, screen, ""))

    def _look_at_call(self, call: CallRecording, screen: ScreenRecording | None, unread: str) -> _SeenCall:
        if unread:
            return _SeenCall(call, screen, TargetSelection((), ()), unread)
        with recording_context(call.id):
            selection = self._options.select_targets(call, screen, may_label=self._services.rws.wants_label(call.id))
            audio = {target.audio.media_id for target in selection.targets}
            results = {media.media_id for target in selection.targets for media in target.covering_files}
            looks, envelopes = {}, {}
            for media_id, media in wanted_looks(selection).items():
                if media_id in results:
                    look = self._look.look_at_result(media)
                else:
                    look = self._look.look_at_source(call.id, media, is_call=media_id in audio)
                if look is not None:
                    looks[media_id] = look
                if media.pkcs7_envelope is not None and (found := _read_recipients(media.pkcs7_envelope)) is not None:
                    envelopes[media_id] = found
        return _SeenCall(call, screen, selection, "", looks, envelopes)

    def _judge(self, seen: _SeenCall) -> AuditedCall:
        call, screen = seen.call, seen.screen
        if seen.unread:
            text = f"its screen recording cannot be read: {seen.unread}"
            return AuditedCall(call, seen.selection, False, CallVerdict((_unchecked(call, text),)))
        with self._sizes_lock:
            rules = replace(self._rules, true_sizes=frozenset(kind for kind, count in self._sizes.items() if count > 0))
        verdict = judge_call(call, seen.selection, seen.looks, seen.envelopes, rules)
        results = () if screen is None else screen.muxed_files
        return AuditedCall(call, seen.selection, bool(screen and screen.screen_files), verdict, results)

    def _record_part(self, audited: Sequence[AuditedCall]) -> None:
        targets = [target for one in audited for target in one.selection.targets]
        self._ledger.record_calls(
            ((one.call.id, _epoch(one.call), one.has_screens, one.verdict) for one in audited),
            (folder for target in targets for folder in _result_folders(target)),
            (name for one in audited for media in one.results for name in media.known_names),
        )

    def _judge_recipients(self) -> None:
        """Judge the muxed files that are encrypted for others than the current certificates, now that all is read."""
        known = [*self._ledger.read_source_sets(), self._rules.current]
        self._ledger.add_findings(find_wrong_recipients(self._ledger.read_doubtful(), known, self._scope.encryption.former))


def _unchecked(call: CallRecording, text: str) -> Finding:
    return Finding(FindingKind.UNCHECKED, call.id, "", text, started=_epoch(call))


def _epoch(call: CallRecording) -> float | None:
    return None if call.start is None else to_microseconds(call.start) / 1e6


def _read_recipients(envelope: str) -> Recipients | None:
    try:
        return envelope_recipients(envelope)
    except EncryptionError:
        return None


def _valid_since(certificates: Sequence[Certificate]) -> datetime | None:
    """Return the time since when all certificates are valid."""
    from cryptography import x509

    starts = [x509.load_pem_x509_certificate(one.pem.encode()).not_valid_before_utc for one in certificates]
    return max(starts, default=None)


def _result_folders(target: MuxTarget) -> Iterator[str]:
    """Yield the folders in which muxed files of a target are, or would be, as JSON."""
    for media in (*target.covering_files, *target.screens):
        if media.media_descriptor is not None:
            try:
                yield json.dumps(asdict(parse_descriptor(media.media_descriptor).sibling("")), sort_keys=True)
            except MetadataError:
                continue
