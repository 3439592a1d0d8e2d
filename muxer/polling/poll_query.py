"""Builds the query of a poll: of the window, with the parameters that this version of RWS needs, or of a migration."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from muxer.config.query_string import BUILT_IN_EXTRA_QUERY, BUILT_IN_EXTRA_QUERY_SINCE, DISABLED
from muxer.config.schema import Config
from muxer.gir.rws import RwsClient
from muxer.polling import window

log = logging.getLogger(__name__)


class PollQuery:
    """Builds queries for one RWS."""

    def __init__(self, config: Config, rws: RwsClient) -> None:
        self._config, self._rws = config, rws
        self._extra: str | None = None

    def build_query(self, reach: float | None = None) -> str:
        """Return the query of a poll that goes back `reach` minutes, None for the whole window."""
        processing, advanced = self._config.processing, self._config.advanced
        if advanced.call_recording_query_string:
            return window.migration_query(advanced.call_recording_query_string, advanced.pagination)
        past, older = reach or processing.window_past, processing.window_past_older_than
        return window.window_query(datetime.now(UTC), past, older, advanced.pagination, self._extra_parameters())

    def _extra_parameters(self) -> str:
        """Return the extra parameters (guide: call_recording_extra_query_string); RWS is asked its version once."""
        configured = self._config.advanced.call_recording_extra_query_string
        if configured:
            return "" if configured.lower() == DISABLED else configured
        if self._extra is None:
            version = self._rws.fetch_version()
            if version is None:
                return ""
            self._extra = BUILT_IN_EXTRA_QUERY if version >= BUILT_IN_EXTRA_QUERY_SINCE else ""
            log.info("RWS has version %s; extra query: %s", ".".join(map(str, version)), self._extra or "none")
        return self._extra
