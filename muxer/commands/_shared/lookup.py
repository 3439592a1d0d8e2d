"""What commands ask RWS about one call recording: which muxed files it wants, and which exist."""

from __future__ import annotations

from collections.abc import Sequence

from muxer.commands._shared.embedded_muxer import EmbeddedMuxer
from muxer.errors import Code, MetadataError
from muxer.gir.targets import MuxTarget, TargetSelection, select_targets


def find_targets(parts: EmbeddedMuxer, recording_id: str) -> TargetSelection:
    """Given the id of a call recording, return its targets, at least one. Raise :class:`MetadataError` when there is no such
    recording, or none is wanted, and what RWS raises."""
    call = parts.services.rws.fetch_call_recording(recording_id)
    if call is None:
        text = f"RWS knows no call recording {recording_id!r}; check the id, and the region of [htcc] base_uri"
        raise MetadataError(text, code=Code.CONFIGURATION)
    screen = parts.services.rws.fetch_screen_recording(recording_id)
    advanced = parts.config.advanced
    found = select_targets(
        call,
        screen,
        delete_superseded=advanced.delete_superseded,
        label=advanced.mark_screen_recording_label,
        blank_paused=advanced.blank_paused,
    )
    if not found.targets:
        why = "; ".join(found.problems) or "it has no screen recording; nothing is to be muxed"
        raise MetadataError(f"{recording_id}: {why}", code=Code.CONFIGURATION)
    return found


def choose_targets(targets: Sequence[MuxTarget], agent: str | None) -> Sequence[MuxTarget]:
    """Given targets and the option ``--agent``, return those of the agent. Raise :class:`MetadataError` for none."""
    ours = [target for target in targets if agent is None or target.agent == agent]
    if not ours:
        names = ", ".join(dict.fromkeys(target.agent for target in targets))
        raise MetadataError(f"--agent {agent}: no such agent in this recording; there are {names}", code=Code.CONFIGURATION)
    return ours
