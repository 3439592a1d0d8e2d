"""Fetch the sources of a muxed file, decrypted, from wherever they are stored; and find the location of the muxed file."""

from __future__ import annotations

import filecmp
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from muxer.errors import AccessDenied, Code, MediaNotFound, MetadataError, Permanent
from muxer.gir.models import MediaFile
from muxer.gir.rcs import RcsClient
from muxer.gir.targets import MuxTarget
from muxer.media.engine import MediaInput
from muxer.net.circuit_breaker import RCS, RWS
from muxer.net.transfer import ReceivedLength
from muxer.pipeline.incomplete_sources import FetchedFile
from muxer.pipeline.services import Services
from muxer.status import activity
from muxer.status.activity import FETCHED
from muxer.storage.base import MediaLocation, parse_descriptor
from muxer.system import files

log = logging.getLogger(__name__)


def fetch_files(services: Services, target: MuxTarget, folder: Path) -> list[FetchedFile]:
    """Fetch all sources of `target` to `folder`, several at a time. No download is running when this returns or raises."""
    files = [(target.audio, folder / "audio")]
    files += [(media, folder / f"screen-{number}") for number, media in enumerate(target.screens)]
    return services.helpers.run_tasks([partial(fetch_source, services, target, *file) for file in files])


def check_arrival(services: Services, target: MuxTarget, fetched: Sequence[FetchedFile]) -> list[MediaInput]:
    """Return the fetched files as inputs of the media engine, the audio first, each with what is known of its arrival."""
    audio, *screens = services.incoming.check_arrival(target.recording_id, fetched)
    return [replace(audio, paused=target.paused), *screens]


def fetch_source(services: Services, target: MuxTarget, media: MediaFile, path: Path) -> FetchedFile:
    """Fetch one source: encrypted ones through RCS, others from their storage or through RWS, with retries.

    Raises MetadataError without a start time or a location, else the error of the service.
    """
    if media.start is None:
        raise MetadataError(f"{media.media_id} has no usable startTime", code=Code.NO_START_TIME)
    is_call, decrypted = media is target.audio, media.is_encrypted and services.rcs is not None
    if decrypted and services.rcs is not None:
        service, fetch = RCS, _rcs_fetcher(services.rcs, target, media, path)
    elif (location := source_location(media)) is not None:
        service, fetch = location.service_name, partial(services.stores.for_location(location).download_file, location, path)
    elif media.media_uri is not None:
        service, fetch = RWS, partial(services.rws.download_media, media.media_uri, path)
    else:
        raise MetadataError(f"{media.media_id} has neither a media descriptor nor a mediaUri", code=Code.NO_LOCATION)
    length = services.repeat(f"fetch of {media.media_id}", fetch)
    activity.count_transfer(FETCHED, service, length)
    log.info("fetched", extra={"fields": {"media": media.media_id, "bytes": length}})
    # A storage that does not state when a file was modified may return its length alone.
    received = length if isinstance(length, ReceivedLength) else ReceivedLength(length)
    return FetchedFile(media, path, received, is_call, decrypted)


def fetch_decrypted(services: Services, target: MuxTarget, fetched: FetchedFile) -> FetchedFile | None:
    """Fetch a source through RCS: it may be encrypted contrary to its metadata. None when RCS has no other content."""
    media = fetched.media
    if services.rcs is None or fetched.decrypted:
        return None
    path = fetched.path.with_name(f"{fetched.path.name}-decrypted")
    try:
        play = _rcs_fetcher(services.rcs, target, media, path)
        received = services.repeat(f"fetch of {media.media_id} through RCS", play)
    except (MediaNotFound, AccessDenied, Permanent) as error:
        log.info("%s is unusable as stored and cannot be fetched through RCS: %s", media.media_id, error)
        return None
    activity.count_transfer(FETCHED, RCS, received)
    if filecmp.cmp(path, fetched.path, shallow=False):
        return None
    files.replace_file(path, fetched.path)
    log.warning("%s is encrypted although its metadata do not state it; it was fetched through RCS", media.media_id)
    return replace(fetched, received=received, decrypted=True)


def _rcs_fetcher(rcs: RcsClient, target: MuxTarget, media: MediaFile, path: Path) -> Callable[[], ReceivedLength]:
    play = rcs.play_call if media is target.audio else rcs.play_screen
    return partial(play, target.recording_id, media.media_id, path, media.relative_paths)


def source_location(media: MediaFile) -> MediaLocation | None:
    """Return the location of a source; None when only RWS has it. A mediaUri makes up for an unusable descriptor."""
    if media.media_descriptor is None:
        return None
    try:
        return parse_descriptor(media.media_descriptor)
    except MetadataError as error:
        if media.media_uri is None:
            raise
        log.info("%s is fetched by its mediaUri: %s", media.media_id, error)
        return None


def muxed_location(target: MuxTarget) -> MediaLocation:
    """Return the first location of a screen file: the muxed file goes next to it. Raises MetadataError."""
    reason, code = "no screen file has a media descriptor", Code.NO_LOCATION
    for media in target.screens:
        if media.media_descriptor is not None:
            try:
                return parse_descriptor(media.media_descriptor)
            except MetadataError as error:
                reason, code = str(error), error.code or code
    raise MetadataError(f"the muxed file cannot be stored next to a screen file: {reason}", code=code)
