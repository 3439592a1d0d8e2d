"""Reads the targets of one call recording from RWS."""

from __future__ import annotations

from collections.abc import Sequence

from muxer.app.service import ServiceParts
from muxer.errors import Code, MetadataError
from muxer.gir.targets import MuxTarget, TargetOptions, TargetSelection


def find_targets(muxer: ServiceParts, recording_id: str) -> TargetSelection:
    """Return the targets, at least one. Raises MetadataError when there is no such recording or no muxed file is needed."""
    call = muxer.services.rws.fetch_call_recording(recording_id)
    if call is None:
        text = f"RWS knows no call recording {recording_id!r}; check the ID and the region of [htcc] base_uri"
        raise MetadataError(f"{text}, and [htcc] contact_center_id", code=Code.NOT_FOUND)
    screen = muxer.services.rws.fetch_screen_recording(recording_id)
    selection = TargetOptions.from_config(muxer.config.advanced).select_targets(call, screen)
    if not selection.targets:
        reason = "; ".join(selection.problems) or "it has no screen recording, so there is nothing to mux"
        raise MetadataError(f"{recording_id}: {reason}", code=Code.NO_SCREEN)
    return selection


def choose_targets(targets: Sequence[MuxTarget], agent: str | None) -> Sequence[MuxTarget]:
    """Return the targets of `agent`, all for None. Raises MetadataError when there is none."""
    chosen = [target for target in targets if agent is None or target.agent == agent]
    if not chosen:
        names = ", ".join(dict.fromkeys(target.agent for target in targets))
        raise MetadataError(
            f"--agent {agent}: no such agent in this recording; its agents are {names}", code=Code.CONFIGURATION
        )
    return chosen
