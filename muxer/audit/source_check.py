"""Decodes the sources of a muxed file to their ends: a file is not muxed again from damaged sources."""

from __future__ import annotations

from dataclasses import dataclass

from muxer.gir.targets import MuxTarget
from muxer.pipeline.fetch import fetch_decrypted, fetch_files
from muxer.pipeline.incomplete_sources import FetchedFile
from muxer.pipeline.services import Services


@dataclass(frozen=True)
class SourceState:
    """The first error of each damaged source by mediaId, and whether every source has the size in its metadata."""

    errors: dict[str, str]
    have_stated_sizes: bool


def check_sources(services: Services, target: MuxTarget) -> SourceState:
    """Fetch and decode all sources of a target. Raises the errors of the services."""
    with services.workspace.job_folder() as folder:
        fetched = fetch_files(services, target, folder)
        errors = {one.media.media_id: text for one in fetched if (text := _find_errors(services, target, one))}
        return SourceState(errors, all(one.has_promised_size for one in fetched))


def _find_errors(services: Services, target: MuxTarget, fetched: FetchedFile) -> str:
    streams = "a" if fetched.is_call else "v"
    error = services.engine.find_decode_errors(fetched.path, streams=streams)
    if error and fetch_decrypted(services, target, fetched) is not None:
        return services.engine.find_decode_errors(fetched.path, streams=streams)
    return error
