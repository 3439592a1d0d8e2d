"""The clients, stores and helpers that a job works with; `muxer.app.assembly` builds them from the configuration."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from muxer.crypto.envelope import Encryptor
from muxer.gir.publish import Publisher
from muxer.gir.rcs import RcsClient
from muxer.gir.rws import RwsClient
from muxer.media.engine import MediaEngine
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.net.step_retry import Repeat
from muxer.pipeline.incomplete_sources import ArrivalTracker
from muxer.pipeline.kept_results import KeptResults
from muxer.pipeline.superseded import SupersededCleaner
from muxer.pipeline.workspace import Workspace
from muxer.status.activity import Activity
from muxer.storage.stores import Stores
from muxer.system.thread_helpers import HelperThreads

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Services:
    """Everything a job works with."""

    rws: RwsClient
    rcs: RcsClient | None
    stores: Stores
    engine: MediaEngine
    encryptor: Encryptor
    publisher: Publisher
    superseded: SupersededCleaner
    workspace: Workspace
    incoming: ArrivalTracker
    results: KeptResults
    repeat: Repeat
    circuit_breaker: CircuitBreaker
    activity: Activity
    helpers: HelperThreads
    stop: threading.Event

    def recover_leftovers(self) -> None:
        """Complete what a terminated process left unfinished in RWS and in the storages."""
        steps = (
            self.publisher.recover_publications,
            self.stores.remove_leftovers,
            self.superseded.recover_deletions,
            self.incoming.prune_notes,
            self.results.prune_files,
        )
        for step in steps:
            try:
                step()
            except OSError as error:
                log.error("files of the temporary folder cannot be used; retrying at the next poll: %s", error)
