"""Checks that the entry of a muxed file matches section 5 of gir-api."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from lab.build import AddedCall


def entry_problems(
    entry: dict[str, Any], call: AddedCall, agent: str, screens: Sequence[str], stored: Path, aliases: Sequence[str]
) -> list[str]:
    """Return the errors in the entry of a muxed file in RWS.

    `aliases` are those of the certificates; without any the file is not encrypted."""
    parameters = entry.get("parameters", {})
    suffix = ".mp4.bin" if aliases else ".mp4"
    checks = {
        "muxed_mediaIds": parameters.get("muxed_mediaIds") == [call.audio_id, *screens],
        "contact": parameters.get("contact", {}).get("userName") == agent,
        "region": bool(parameters.get("region")),
        "type": entry.get("type") == "video/mp4",
        "mediaId": str(entry.get("mediaId", "")).startswith(call.id) and str(entry.get("mediaId")).endswith(suffix),
        "size": entry.get("size") == str(stored.stat().st_size),
        "times": _times_fit(entry, call),
        "descriptor": _descriptor_fits(entry, stored),
        "certAlias": entry.get("certAlias", []) == list(aliases),
        "pkcs7": ("-----BEGIN PKCS7-----" in entry.get("pkcs7", "")) == bool(aliases),
    }
    return [name for name, right in checks.items() if not right]


def _times_fit(entry: dict[str, Any], call: AddedCall) -> bool:
    try:
        start, stop = (datetime.strptime(entry[name], "%Y-%m-%dT%H:%M:%S.%f%z") for name in ("startTime", "stopTime"))
        milliseconds = timedelta(milliseconds=int(entry["duration"]))
    except (KeyError, ValueError):
        return False
    whole = timedelta(seconds=call.plan.seconds)
    return start == call.start and stop - start == milliseconds and abs(milliseconds - whole) < timedelta(seconds=0.1)


def _descriptor_fits(entry: dict[str, Any], stored: Path) -> bool:
    descriptor = entry.get("originalMediaDescriptor", {})
    base = str(descriptor.get("data", {}).get("storagePath", ""))
    return descriptor.get("storage") == "webDAV" and descriptor.get("path") == stored.name and "/screens" in base
