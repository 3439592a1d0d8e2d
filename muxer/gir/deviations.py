"""What this RWS or RCS does differently from docs/gir-api.md: each kind is logged once per run and counted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from enum import StrEnum

log = logging.getLogger(__name__)


class Deviation(StrEnum):
    """The kinds of deviations, as the metric and `check` show them."""

    NO_LINK = "page without link"
    PAGE_REFUSED = "page refused"
    EMPTY_SCAN = "empty scan page"
    SMALLER_PAGES = "smaller pages"
    NO_BULK = "no bulk query"
    BULK_IGNORES_IDS = "bulk query ignores ids"
    RCS_PATHS = "second paths of RCS"
    LABELS_REFUSED = "labels refused"
    LABEL_PATH = "label path without ops"


# Those that concern the pages of a query of call recordings.
PAGING_DEVIATIONS = (Deviation.NO_LINK, Deviation.PAGE_REFUSED, Deviation.EMPTY_SCAN)


class DeviationLog:
    """The deviations that were seen since the start. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(Deviation, 0)
        self._texts: dict[Deviation, str] = {}

    def record_deviation(self, kind: Deviation, text: str) -> None:
        """Count a deviation of a `kind`. The first `text` of each kind is logged as a warning and kept."""
        with self._lock:
            self._counts[kind] += 1
            is_first = kind not in self._texts
            self._texts.setdefault(kind, text)
        if is_first:
            log.warning("%s", text)

    @property
    def kind_counts(self) -> Mapping[str, int]:
        """The number of deviations of each kind."""
        with self._lock:
            return {str(kind): count for kind, count in self._counts.items()}

    @property
    def first_texts(self) -> Mapping[Deviation, str]:
        """What was logged, for each kind that was seen."""
        with self._lock:
            return dict(self._texts)
