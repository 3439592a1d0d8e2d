"""Fetches one source of a muxed file in clear, from wherever it is stored."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from muxer import activity
from muxer.activity import FETCHED
from muxer.errors import Code, MetadataError
from muxer.gir.models import MediaFile
from muxer.incoming import FetchedFile
from muxer.outages import RCS, RWS
from muxer.storage.base import Place, place_of
from muxer.transfer import Received

if TYPE_CHECKING:
    from muxer.job import Services
    from muxer.selection import MuxTarget

log = logging.getLogger(__name__)


def fetch_source(services: Services, target: MuxTarget, media: MediaFile, path: Path) -> FetchedFile:
    """Fetch one source to `path`: encrypted ones through RCS, others from their storage, or through RWS. A request that
    fails is repeated in place.

    Raises the errors of these services, and :class:`MetadataError` when `media` names no location.
    """
    if media.start is None:
        raise MetadataError(f"{media.media_id} has no usable startTime", code=Code.NO_START_TIME)
    is_call, decrypted = media is target.audio, media.is_encrypted and services.rcs is not None
    if decrypted and services.rcs is not None:
        play = services.rcs.play_call if is_call else services.rcs.play_screen
        service, fetch = RCS, partial(play, target.recording_id, media.media_id, path, media.paths)
    elif (place := source_place(media)) is not None:
        service, fetch = place.service, partial(services.stores.of(place).fetch, place, path)
    elif media.uri is not None:
        service, fetch = RWS, partial(services.rws.download, media.uri, path)
    else:
        raise MetadataError(f"{media.media_id} has neither a media descriptor nor a mediaUri", code=Code.NO_PLACE)
    length = services.repeat(f"fetch of {media.media_id}", fetch)
    activity.moved(FETCHED, service, length)
    log.info("fetched", extra={"fields": {"media": media.media_id, "bytes": length}})
    # A storage that does not state when a file was modified may return its length alone.
    received = length if isinstance(length, Received) else Received(length)
    return FetchedFile(media, path, received, is_call, decrypted)


def source_place(media: MediaFile) -> Place | None:
    """Return the place of a source, or None when it is known to RWS only: a descriptor that cannot be used does not matter
    where there is a mediaUri."""
    if media.descriptor is None:
        return None
    try:
        return place_of(media.descriptor)
    except MetadataError as error:
        if media.uri is None:
            raise
        log.info("%s is fetched by its mediaUri: %s", media.media_id, error)
        return None
