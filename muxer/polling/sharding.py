"""Decide which recordings belong to this instance (guide: Configuring Sharding). Pure."""

from __future__ import annotations

import hashlib

from muxer.config.schema import ProcessingOptions


def shard_of(recording_id: str, total: int) -> int:
    """Return the shard of a recording, from 0 on, the same in every process, on every host and in every release."""
    return int.from_bytes(hashlib.sha256(recording_id.encode()).digest()[:8], "big") % total


def effective_shard(processing: ProcessingOptions) -> int | None:
    """Return the shard of this instance, None without; a backup takes the next primary's (guide: 2 of 4 works as 3)."""
    if processing.muxer_id < 0:
        return None
    step = 1 if processing.muxer_type == "backup" else 0
    return (processing.muxer_id + step) % processing.total_muxers


def is_mine(processing: ProcessingOptions, recording_id: str) -> bool:
    """Return whether this instance processes a recording."""
    mine = effective_shard(processing)
    return mine is None or shard_of(recording_id, processing.total_muxers) == mine
