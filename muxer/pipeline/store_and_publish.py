"""Uploads a muxed file and publishes it, while other muxers may do the same."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from muxer.errors import Stopped, StoredByOtherMuxer
from muxer.gir.targets import MuxTarget
from muxer.pipeline.kept_results import MuxResult
from muxer.pipeline.services import Services
from muxer.status import activity
from muxer.status.activity import STORED
from muxer.storage.base import MediaLocation, ObjectInfo

log = logging.getLogger(__name__)

# Another muxer that has uploaded a file publishes it within moments; one that has not by then has died.
PUBLISH_WAIT_SECONDS = 15.0
PUBLISH_CHECK_INTERVAL = 1.0


class ResultStore:
    """Uploads and publishes muxed files. `find_target` reads a target again: :meth:`Job.find_target`."""

    def __init__(self, services: Services, find_target: Callable[[str, str], MuxTarget | None]) -> None:
        self._services = services
        self._find_target = find_target

    def upload_result(self, target: MuxTarget, result: MuxResult, location: MediaLocation) -> ObjectInfo | None:
        """Upload the muxed file to `location`. Returns None when another muxer has published the same file since."""
        store, repeat = self._services.stores.for_location(location), self._services.repeat
        tries = iter((PUBLISH_WAIT_SECONDS,))

        def may_replace() -> bool:
            # No one publishes what this step itself has uploaded before one of its requests failed.
            if self._is_published_soon(target, location.name, next(tries, 0.0)):
                return False
            log.warning("the unpublished file of a muxer that died is replaced: %s", location.name)
            return True

        # Without an ETag, the file of another muxer cannot be distinguished from ours.
        uploaded = result.stored if result.stored is not None and result.stored.tag else None
        if uploaded is not None and repeat("looking at the upload", partial(store.head, location)) == uploaded:
            log.info("an earlier attempt has already uploaded the file")
            return uploaded
        try:
            stored = repeat("upload", partial(store.upload_file, result.path, location, may_replace))
        except StoredByOtherMuxer:
            # When the sources have changed since, that file may never be published: its intent record must stay.
            if (current := self._find_target(target.recording_id, target.file_name)) is None or not current.published:
                raise
            log.info("another muxer has published the same file")
            return None
        activity.count_transfer(STORED, location.service_name, stored.length)
        return stored

    def _is_published_soon(self, target: MuxTarget, name: str, seconds: float) -> bool:
        """Return whether another muxer publishes the target within `seconds`, under `name` if it is published already."""
        deadline = time.monotonic() + seconds
        while True:
            current = self._find_target(target.recording_id, target.file_name)
            if current is None or (current.published and not target.published):
                return True
            if any(name in media.known_names for media in current.same_source_files):
                return True
            if time.monotonic() >= deadline:
                return False
            if self._services.stop.wait(PUBLISH_CHECK_INTERVAL):
                raise Stopped("stopped while waiting for another muxer")

    def publish_result(self, target: MuxTarget, entry: dict[str, Any], location: MediaLocation, stored: ObjectInfo) -> None:
        """Publish the uploaded file. Raises StoredByOtherMuxer when it was replaced since: its envelope must fit it."""

        def check_still_ours() -> None:
            head = partial(self._services.stores.for_location(location).head, location)
            if self._services.repeat("looking at the upload", head) != stored:
                raise StoredByOtherMuxer(f"{location.name} was replaced by another muxer before it was published")

        self._services.publisher.publish_entry(target.recording_id, target.region, entry, is_still_stored=check_still_ours)
