"""Labels of call recordings (gir-api, section 6). A label that RWS refuses is a warning, and never fails a recording."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import quote

from muxer.errors import AlreadyExists, Forbidden, MuxerError, NotFound, RequestRejected, ServiceFailed
from muxer.gir.deviations import Deviation, DeviationLog
from muxer.system.bounded_set import BoundedSet

log = logging.getLogger(__name__)

LABEL = "screenRecording"
LABEL_BACKOFF_SECONDS = 3600.0
# The documented path. The others have the contact center in it, below `ops`.
DOCUMENTED_PATH = "api/v2"
LABEL_REFUSALS = (RequestRejected, Forbidden)
# The number of internal errors, before any label was set, that count as a refusal (our decision): a recording must not fail
# for its label. It equals the attempts of one recording in a migration.
MAX_LABEL_FAILURES = 4
_DEFINED_LABEL = {"name": LABEL, "displayName": "Screen recording", "description": "The call has a muxed screen recording"}


class LabelClient(ABC):
    """The part of the client of RWS that sets labels. It remembers for the run what RWS accepts."""

    def __init__(self, ops_path: str, deviations: DeviationLog, capacity: int) -> None:
        """`ops_path` is the path of the contact center below `ops`; `capacity` limits the remembered recordings."""
        self.deviations = deviations
        self._ops = self._label_path = ops_path
        self._labels_refused_until = 0.0
        self._has_labelled = self._has_tried_all = False
        self._failures = 0
        self._labelled, self._unknown = BoundedSet(capacity), BoundedSet(capacity)
        self._lock, self._fallback_lock = threading.Lock(), threading.Lock()

    @abstractmethod
    def _send_json(self, method: str, path: str, body: Any = None) -> object:
        """Send `body` to `path` once. Raises the errors of RWS."""

    def wants_label(self, recording_id: str) -> bool:
        """Return whether to label a recording: labels are not refused now, and it was not labelled by us."""
        with self._lock:
            is_open = time.monotonic() >= self._labels_refused_until
        return is_open and recording_id not in self._labelled and recording_id not in self._unknown

    def add_label(self, recording_id: str) -> bool:
        """Label a recording ``screenRecording``; a refusal is only logged, for a while. Returns whether it has it now."""
        if not self.wants_label(recording_id):
            return recording_id in self._labelled
        try:
            self._post_with_fallbacks(recording_id)
        except (*LABEL_REFUSALS, ServiceFailed) as error:
            if isinstance(error, ServiceFailed) and not self._always_fails(error):
                raise
            self._record_refusal(recording_id, error)
            return False
        self._has_labelled = True
        self._labelled.add(recording_id)
        return True

    def _always_fails(self, error: ServiceFailed) -> bool:
        """Count an internal `error` of RWS. Returns whether RWS has failed for several labels and never accepted one."""
        self._failures += 1
        return not self._has_labelled and self._failures >= MAX_LABEL_FAILURES

    def _post_with_fallbacks(self, recording_id: str) -> None:
        """Post the label. When RWS refuses it, once per run create its definition first, then use the documented path."""
        is_settled = self._has_labelled or self._has_tried_all
        try:
            self._post_label(recording_id)
        except LABEL_REFUSALS as error:
            if is_settled:
                raise
            with self._fallback_lock:
                # Another worker may have found meanwhile what RWS accepts.
                if self._has_tried_all:
                    self._post_label(recording_id)
                else:
                    self._try_fallbacks(recording_id, error)

    def _try_fallbacks(self, recording_id: str, refusal: MuxerError) -> None:
        log.info("RWS refuses a label, its definition and the path without ops are tried: %s", refusal)
        try:
            if not self._post_after_definition(recording_id):
                self._post_to_documented_path(recording_id, refusal)
        except LABEL_REFUSALS:
            self._has_tried_all = True
            raise
        except MuxerError:
            # An outage does not show what RWS accepts: all is tried again.
            self._label_path = self._ops
            raise
        self._has_tried_all = True

    def _post_after_definition(self, recording_id: str) -> bool:
        try:
            self._define_label()
            self._post_label(recording_id)
        except (*LABEL_REFUSALS, ServiceFailed) as error:
            log.info("the label or its definition is refused: %s", error)
            return False
        return True

    def _post_to_documented_path(self, recording_id: str, refusal: MuxerError) -> None:
        """Post the label to the documented path, and stay with that path. Raises the first `refusal` when it fails, too."""
        self._label_path = DOCUMENTED_PATH
        try:
            self._post_label(recording_id)
        except LABEL_REFUSALS as error:
            self._label_path = self._ops
            log.info("the path without ops refuses the label, too: %s", error)
            raise refusal from error
        self.deviations.record_deviation(
            Deviation.LABEL_PATH, f"labels are set by the path without ops, because RWS refuses: {refusal}"
        )

    def _post_label(self, recording_id: str) -> None:
        """Post the label once; one that is there already is no error."""
        try:
            self._send_json("POST", f"{self._label_path}/recordings/{quote(recording_id, safe='')}/labels", {"name": LABEL})
        except AlreadyExists:
            log.debug("%s: labelled already", recording_id)

    def _define_label(self) -> None:
        try:
            self._send_json("POST", f"{self._ops}/recording-label-definitions", _DEFINED_LABEL)
        except AlreadyExists:
            log.debug("the label definition exists already")

    def _record_refusal(self, recording_id: str, error: MuxerError) -> None:
        """Remember a refusal: that of one recording which RWS does not know, or else of all labels for a while."""
        if isinstance(error, NotFound) and self._has_labelled:
            self._unknown.add(recording_id)
            log.warning("the call recording is not labelled: %s", error)
            return
        with self._lock:
            self._labels_refused_until = time.monotonic() + LABEL_BACKOFF_SECONDS
        text = f"labels are not set for {LABEL_BACKOFF_SECONDS / 60:.0f} minutes: {error}"
        self.deviations.record_deviation(Deviation.LABELS_REFUSED, text)
