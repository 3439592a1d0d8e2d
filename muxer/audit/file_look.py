"""Asks the storages, RCS and RWS whether a file is there, without fetching it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from muxer.audit.call_rules import Look
from muxer.audit.pace import Pace
from muxer.errors import MediaNotFound, MetadataError, MuxerError, ServiceFailed, Stopped
from muxer.gir.models import MediaFile
from muxer.net.circuit_breaker import RCS, RWS
from muxer.pipeline.fetch import source_location
from muxer.pipeline.services import Services
from muxer.storage.base import MediaLocation, parse_descriptor


def is_of_one_file(error: MuxerError, service: str) -> bool:
    """Whether an error may be that of a file, although several in a row count as an outage.

    RCS responds with an internal error for a file that it cannot decrypt. After the loss of a key there are many, and an
    audit must be able to end.
    """
    return service == RCS and isinstance(error, ServiceFailed)


class FileLook:
    """Looks at files. Safe to use from any thread."""

    def __init__(self, services: Services, pace: Pace) -> None:
        self._services, self._pace = services, pace

    def look_at_source(self, recording_id: str, media: MediaFile, *, is_call: bool) -> Look:
        """Return what is known of a source. Raises the error of a service that is unavailable."""
        rcs = self._services.rcs
        if media.is_encrypted:
            if rcs is None:
                return Look(unknown="it is encrypted, and [rcs] base_uri is empty")
            check = rcs.check_call_media if is_call else rcs.check_screen_media
            return self._try_check(RCS, partial(check, recording_id, media.media_id, media.relative_paths))
        try:
            location = source_location(media)
        except MetadataError as error:
            return Look(unknown=str(error))
        if location is not None:
            return self.look_at(location)
        if media.media_uri is not None:
            return self._try_check(RWS, partial(self._services.rws.check_media, media.media_uri))
        return Look(unknown="it has neither a media descriptor nor a mediaUri")

    def look_at_result(self, media: MediaFile) -> Look | None:
        """Return what is known of a muxed file; None when its metadata have no usable location."""
        try:
            return None if media.media_descriptor is None else self.look_at(parse_descriptor(media.media_descriptor))
        except MetadataError:
            return None

    def look_at(self, location: MediaLocation) -> Look:
        """Return what the storage says of the file at `location`."""
        store = self._services.stores.for_location(location)

        def read_head() -> Look:
            info = store.head(location)
            return Look(info is not None, info)

        look = self._try_look(location.service_name, read_head)
        if not look.found and not look.unknown and not store.can_prove_absence(location):
            return Look(unknown="the keys may not list the bucket, so a missing object looks like a forbidden one")
        return look

    def _try_check(self, service: str, check: Callable[[], None]) -> Look:
        def run_check() -> Look:
            check()
            return Look(found=True)

        return self._try_look(service, run_check)

    def _try_look(self, service: str, look: Callable[[], Look]) -> Look:
        """Return what `look` returns or raises. Raises the error of a service that is unavailable for all files."""
        self._pace.await_turn()
        try:
            return self._services.repeat("looking at a file", look)
        except MediaNotFound:
            return Look()
        except Stopped:
            raise
        except MuxerError as error:
            if self._services.circuit_breaker.is_open(service) and not is_of_one_file(error, service):
                raise
            return Look(unknown=str(error))
