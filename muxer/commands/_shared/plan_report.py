"""The plan for one target as plain data: what `plan --json` prints and `plan_printer` writes as text. Pure."""

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

# The assumed length of a frame when no file was read.
ASSUMED_FRAME_US = 40_000


def target_facts(target: MuxTarget) -> dict[str, Any]:
    """Return what the metadata contain: whether the target is muxed already, and its sources."""
    return {
        "agent": target.agent,
        "file": target.file_name,
        "done": [media.media_id for media in target.same_source_files],
        "published": target.published,
        "needs_work": target.needs_work,
        "label_missing": target.label_missing,
        "supersedes": [media.media_id for media in target.superseded],
        "paused": [{"begin": begin / 1e6, "end": None if end is None else end / 1e6} for begin, end in target.paused],
        "sources": [_source_facts(media) for media in (target.audio, *target.screens)],
    }


def shard_facts(processing: ProcessingOptions, recording_id: str) -> dict[str, Any]:
    """Return the shard of a call recording and that of this instance; an empty dictionary without sharding."""
    ours = effective_shard(processing)
    if ours is None:
        return {}
    number, total = shard_of(recording_id, processing.total_muxers), processing.total_muxers
    return {"shard": {"number": number, "of": total, "ours": ours}}


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
    """Return the location from which a source is fetched, or why it has none."""
    if media.media_descriptor is not None:
        try:
            return location_address(parse_descriptor(media.media_descriptor))
        except MetadataError as error:
            return f"no location: {error}"
    return "RWS" if media.media_uri is not None else "no location: neither a media descriptor nor a mediaUri"


def location_address(location: MediaLocation) -> str:
    """Return the URL of a location."""
    return f"s3://{location.bucket}/{location.folder}{location.name}" if location.bucket else location.url


def plan_facts(plan: Plan, sizes: Sequence[int]) -> dict[str, Any]:
    """Return the contents of a plan. `sizes` are the bytes of the fetched files, the audio first."""
    sources = plan.sources
    measured: list[dict[str, Any]] = [{"length": sources.audio.length_us / 1e6, "codec": sources.audio.codec}]
    for probed in sources.screens:
        video = require_video(probed)
        width, height = video.display_size
        measured.append({"length": video.length_us / 1e6, "codec": video.codec_name, "picture": f"{width}x{height}"})
    return {
        "measured": [{**source, "bytes": size} for source, size in zip(measured, sizes, strict=True)],
        "picture": f"{plan.target.width}x{plan.target.height}, {plan.target.profile}, {float(plan.target.rate):g} fps",
        "method": "; ".join(plan.encode_reasons) or "copy",
        **({"missing": "; ".join(sources.missing)} if sources.missing else {}),
        "commands": [list(command) for command in plan.all_commands],
        **_timeline_facts(plan.mux_timeline.journal_facts(), sources.overlaps),
    }


def assumed_facts(target: MuxTarget, tolerance: int) -> dict[str, Any]:
    """Return the timeline by the metadata; `tolerance` in microseconds. Raises MetadataError when a time is missing."""
    begin, length = _time_range(target.audio)
    clips = []
    for number, media in enumerate(target.screens):
        start, duration = _time_range(media)
        clips.append(timeline.Clip(number, start - begin, duration, ASSUMED_FRAME_US))
    paused = timeline.clamp_spans(target.paused, length)
    facts = {
        "length": length / 1e6,
        "screens": [
            {"name": media.media_id, "start": clip.start / 1e6, "length": clip.length / 1e6}
            for media, clip in zip(target.screens, clips, strict=True)
        ],
        "pieces": [
            _span_facts(segment.begin, segment.end)
            | {"screen": segment.clip, "offset": segment.offset / 1e6, "reason": None}
            for segment in timeline.plan_segments(0, length, clips, tolerance, paused)
        ],
        "paused": [_span_facts(*span) for span in paused],
    }
    return {"assumed": True, **_timeline_facts(facts, timeline.find_overlaps(length, clips, tolerance))}


def _span_facts(begin: int, end: int) -> dict[str, Any]:
    return {"begin": begin / 1e6, "end": end / 1e6}


def _time_range(media: MediaFile) -> tuple[int, int]:
    """Return start and length in microseconds."""
    if media.start is None or media.stop is None or media.stop - media.start <= timedelta(0):
        raise MetadataError(f"{media.media_id} has no usable startTime and stopTime; plan without --no-fetch")
    begin = to_microseconds(media.start)
    return begin, to_microseconds(media.stop) - begin


def _timeline_facts(facts: dict[str, Any], overlaps: Sequence[timeline.Overlap]) -> dict[str, Any]:
    names = [screen["name"] for screen in facts["screens"]]
    return {
        "timeline": facts,
        "gaps": [{"begin": piece["begin"], "end": piece["end"]} for piece in facts["pieces"] if piece["screen"] is None],
        "overlaps": [
            {
                "earlier": names[overlap.earlier],
                "later": names[overlap.later],
                "seconds": overlap.length / 1e6,
                "tolerated": overlap.tolerated,
            }
            for overlap in overlaps
        ],
    }


def storage_facts(location: MediaLocation, recipients: Sequence[Certificate], command: Sequence[str]) -> dict[str, Any]:
    """Return where the result would be stored, for which recipients it is encrypted, and the `command` for that."""
    readers = [{"alias": recipient.alias, "sha256": _sha256_fingerprint(recipient.pem)} for recipient in recipients]
    encryption = {"encryption": list(command)} if readers else {}
    return {"stored": location_address(location), "recipients": readers, **encryption}


def _sha256_fingerprint(pem: str) -> str:
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.strip())).hexdigest()
    except ValueError:
        return ""
