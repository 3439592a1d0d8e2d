"""Publishes a muxed file in the metadata of its screen recording, so that no other entry is ever lost.

Whether RWS merges a posted list into its own or replaces it is not public (gir-api, section 5). So only the new entry is
posted, and read back; when an earlier entry has vanished, the full list is posted at once, and full lists are used from
then on. What must not vanish is written to disk before the first post: a process that dies in between finds it at its
next start.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from muxer.errors import MuxerError, ServiceUnavailable
from muxer.gir.models import Json, ScreenRecording
from muxer.gir.rws import Rws
from muxer.transfer import private_file

log = logging.getLogger(__name__)

POST_ATTEMPTS = 3
# A read may lag behind a write for a moment: seconds to wait before each look at what was posted.
READ_BACK_WAITS = (0.0, 0.5, 1.5)
# Recordings share so many locks, so that their number does not grow.
LOCKS = 64


class Publisher:
    """Posts entries one recording at a time. ``folder`` keeps the lists that are at stake. Safe to use from any thread."""

    def __init__(self, rws: Rws, folder: Path) -> None:
        self._rws = rws
        self._folder = folder
        self._full_lists = False
        self._locks = [threading.Lock() for _ in range(LOCKS)]

    def publish(self, recording_id: str, region: str, entry: Json, *, before_post: Callable[[], None]) -> ScreenRecording:
        """Given a new media entry, return the screen recording in which it stands now, read back.

        ``before_post`` is called right before the entry is posted and may raise. An entry of the same mediaId is not
        posted again. Raise :class:`ServiceUnavailable` when it cannot be seen after posting.
        """
        with self._lock(recording_id):
            current = self._rws.screen_recording(recording_id)
            if current is not None and entry["mediaId"] in _ids(current):
                return current
            before_post()
            earlier = [] if current is None else [as_posted(media.raw) for media in current.media]
            return self._post(recording_id, region, [*earlier, entry])

    def repair_left_overs(self) -> None:
        """Post again the full lists that an earlier process left at stake when it died."""
        for path in sorted(self._folder.glob("*.json")):
            try:
                left = json.loads(path.read_text(encoding="utf-8"))
                recording_id, region, wanted = left["id"], left["region"], left["mediaFiles"]
            except FileNotFoundError:
                continue  # its publication has just ended well
            except (ValueError, KeyError, TypeError) as error:
                log.warning("%s cannot be read (%s); it is removed", path.name, type(error).__name__)
                path.unlink(missing_ok=True)
                continue
            self._repair(path, recording_id, region, wanted)

    def _repair(self, path: Path, recording_id: str, region: str, wanted: list[Json]) -> None:
        *sources, _new = wanted
        try:
            with self._lock(recording_id):
                current = self._rws.screen_recording(recording_id)
                if _missing(sources, current):
                    log.warning("%s: entries were lost when the muxer died; posting the full list", recording_id)
                    self._post(recording_id, region, _union(sources, current), full=True)
                path.unlink(missing_ok=True)
        except MuxerError as error:
            log.error("%s: lost entries could not be posted again, tried at the next poll: %s", recording_id, error)

    def _post(self, recording_id: str, region: str, wanted: list[Json], full: bool = False) -> ScreenRecording:
        """Post the last of the ``wanted`` entries, or all of them, and see to it that all of them stand there."""
        at_stake = self._keep(recording_id, region, wanted)
        posted: Sequence[Json] = wanted if full or self._full_lists else wanted[-1:]
        for _ in range(POST_ATTEMPTS):
            self._rws.post_media(recording_id, region, posted)
            current = self._read_back(recording_id, str(wanted[-1]["mediaId"]))
            missing = _missing(wanted, current)
            if current is not None and not missing:
                at_stake.unlink(missing_ok=True)
                return current
            if len(posted) < len(wanted) and missing - {wanted[-1]["mediaId"]}:
                log.warning("RWS replaces the media list of a recording when one entry is posted; posting full lists")
                self._full_lists = True
            posted = _union(wanted, current)
        raise ServiceUnavailable(f"posted, but RWS does not show {', '.join(sorted(missing))} when read back")

    def _read_back(self, recording_id: str, media_id: str) -> ScreenRecording | None:
        """Return the recording as soon as it shows ``media_id``, or as it is after the last look."""
        current = None
        for wait in READ_BACK_WAITS:
            time.sleep(wait)
            current = self._rws.screen_recording(recording_id)
            if media_id in _ids(current):
                break
        return current

    def _lock(self, recording_id: str) -> threading.Lock:
        return self._locks[int(_stem(recording_id), 16) % LOCKS]

    def _keep(self, recording_id: str, region: str, wanted: list[Json]) -> Path:
        path = self._folder / f"{_stem(recording_id)}.json"
        fresh = path.with_suffix(".new")
        with private_file(fresh) as file:
            file.write(json.dumps({"id": recording_id, "region": region, "mediaFiles": wanted}).encode())
        return fresh.replace(path)


def as_posted(media: Json) -> dict[str, Any]:
    """Given a media entry as it was read, return it as it is posted: only the descriptor's key differs."""
    posted = dict(media)
    if "originalMediaDescriptor" in posted:
        posted["mediaDescriptor"] = posted.pop("originalMediaDescriptor")
    return posted


def _stem(recording_id: str) -> str:
    return hashlib.sha256(recording_id.encode()).hexdigest()[:32]


def _ids(recording: ScreenRecording | None) -> set[str]:
    return set() if recording is None else {media.media_id for media in recording.media}


def _missing(wanted: Sequence[Json], current: ScreenRecording | None) -> set[str]:
    return {str(one.get("mediaId") or "") for one in wanted} - _ids(current) - {""}


def _union(wanted: Sequence[Json], current: ScreenRecording | None) -> list[Json]:
    """Return the wanted entries and those that RWS has besides, in that order."""
    known = {one.get("mediaId") for one in wanted}
    others = () if current is None else current.media
    return [*(as_posted(one.raw) for one in others if one.media_id not in known), *wanted]
