"""What is told of a plan: one target as plain data, for ``--json`` and for people. Pure."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from muxer.config.schema import ProcessingOptions
from muxer.errors import MetadataError
from muxer.gir.models import MediaFile, format_time, to_microseconds
from muxer.gir.rws import Certificate
from muxer.gir.targets import MuxTarget
from muxer.media.media_info import require_video
from muxer.media.plan import timeline
from muxer.media.plan.mux_plan import Plan
from muxer.polling.sharding import effective_shard, shard_of
from muxer.storage.base import MediaLocation, parse_descriptor

# What a frame lasts, as long as nobody has looked into the file.
ASSUMED_FRAME_US = 40_000


def target_facts(target: MuxTarget) -> dict[str, Any]:
    """Given a target, return what its metadata tell: whether it is done, and its sources."""
    return {
        "agent": target.agent,
        "file": target.file_name,
        "done": [one.media_id for one in target.same_source_files],
        "published": target.published,
        "needs_work": target.needs_work,
        "label_missing": target.label_missing,
        "supersedes": [one.media_id for one in target.superseded],
        "paused": [{"begin": begin / 1e6, "end": None if end is None else end / 1e6} for begin, end in target.paused],
        "sources": [_source_facts(one) for one in (target.audio, *target.screens)],
    }


def shard_facts(processing: ProcessingOptions, recording_id: str) -> dict[str, Any]:
    """Given the sharding options and the id of a call recording, return which shard it belongs to; nothing when sharding is
    off."""
    ours = effective_shard(processing)
    if ours is None:
        return {}
    return {
        "shard": {"number": shard_of(recording_id, processing.total_muxers), "of": processing.total_muxers, "ours": ours}
    }


def _source_facts(media: MediaFile) -> dict[str, Any]:
    seconds = (media.stop - media.start).total_seconds() if media.start and media.stop else None
    return {
        "name": media.media_id,
        "start": format_time(media.start) if media.start else None,
        "seconds": seconds,
        "bytes": media.stated_size or None,
        "encrypted": media.is_encrypted,
        "where": source_address(media),
    }


def source_address(media: MediaFile) -> str:
    """Given a source, return where it lies, as it is fetched."""
    if media.media_descriptor is not None:
        try:
            return location_address(parse_descriptor(media.media_descriptor))
        except MetadataError as error:
            return f"nowhere: {error}"
    return "RWS" if media.media_uri is not None else "nowhere: it has neither a media descriptor nor a mediaUri"


def location_address(place: MediaLocation) -> str:
    """Given a place, return its address."""
    return f"s3://{place.bucket}/{place.folder}{place.name}" if place.bucket else place.url


def plan_facts(plan: Plan, sizes: Sequence[int]) -> dict[str, Any]:
    """Given a plan and the sizes of the fetched files, the audio first, return what it tells."""
    sources = plan.sources
    measured: list[dict[str, Any]] = [{"length": sources.audio.length_us / 1e6, "codec": sources.audio.codec}]
    for probed in sources.screens:
        video = require_video(probed)
        width, height = video.display_size
        measured.append({"length": video.length_us / 1e6, "codec": video.codec_name, "picture": f"{width}x{height}"})
    return {
        "measured": [{**one, "bytes": size} for one, size in zip(measured, sizes, strict=True)],
        "picture": f"{plan.target.width}x{plan.target.height}, {plan.target.profile}, {float(plan.target.rate):g} fps",
        "method": "; ".join(plan.encode_reasons) or "copy",
        **({"missing": "; ".join(sources.missing)} if sources.missing else {}),
        "commands": [list(command) for command in plan.all_commands],
        **_timeline_facts(plan.mux_timeline.journal_facts(), sources.overlaps),
    }


def assumed_facts(target: MuxTarget, tolerance: int) -> dict[str, Any]:
    """Given a target and the tolerated overlap in microseconds, return what its metadata alone tell of the timeline. Raise
    :class:`MetadataError` when they do not say when something begins and ends."""
    begin, length = _time_range(target.audio)
    clips = []
    for number, media in enumerate(target.screens):
        start, seconds = _time_range(media)
        clips.append(timeline.Clip(number, start - begin, seconds, ASSUMED_FRAME_US))
    paused = timeline.clamp_spans(target.paused, length)
    pieces = [
        {
            "begin": one.begin / 1e6,
            "end": one.end / 1e6,
            "screen": one.clip,
            "offset": one.offset / 1e6,
            "reason": None,
        }
        for one in timeline.plan_segments(0, length, clips, tolerance, paused)
    ]
    names = [media.media_id for media in target.screens]
    screens = [
        {"name": name, "start": clip.start / 1e6, "length": clip.length / 1e6}
        for name, clip in zip(names, clips, strict=True)
    ]
    spans = [{"begin": begin / 1e6, "end": end / 1e6} for begin, end in paused]
    facts = {"length": length / 1e6, "screens": screens, "pieces": pieces, "paused": spans}
    return {"assumed": True, **_timeline_facts(facts, timeline.find_overlaps(length, clips, tolerance))}


def _time_range(media: MediaFile) -> tuple[int, int]:
    if media.start is None or media.stop is None or media.stop - media.start <= timedelta(0):
        raise MetadataError(f"{media.media_id} has no usable startTime and stopTime; plan without --no-fetch")
    begin = to_microseconds(media.start)
    return begin, to_microseconds(media.stop) - begin


def _timeline_facts(facts: dict[str, Any], overlaps: Sequence[timeline.Overlap]) -> dict[str, Any]:
    gaps = [{"begin": one["begin"], "end": one["end"]} for one in facts["pieces"] if one["screen"] is None]
    names = [screen["name"] for screen in facts["screens"]]
    told = [
        {
            "earlier": names[one.earlier],
            "later": names[one.later],
            "seconds": one.length / 1e6,
            "tolerated": one.tolerated,
        }
        for one in overlaps
    ]
    return {"timeline": facts, "gaps": gaps, "overlaps": told}


def storage_facts(place: MediaLocation, recipients: Sequence[Certificate], command: Sequence[str]) -> dict[str, Any]:
    """Given where the result would be stored, for whom it is encrypted and by which command, return what is told of it."""
    readers = [{"alias": one.alias, "sha256": _sha256_fingerprint(one.pem)} for one in recipients]
    return {"stored": location_address(place), "recipients": readers, **({"encryption": list(command)} if readers else {})}


def _sha256_fingerprint(pem: str) -> str:
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.strip())).hexdigest()
    except ValueError:
        return ""
