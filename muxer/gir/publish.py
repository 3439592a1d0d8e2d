"""Publishes a muxed file in the metadata of its screen recording, so that no other entry is ever lost.

Whether RWS merges a posted list into its own or replaces it is not public (gir-api, section 5). So only the new entry is
posted, and read back; when an earlier entry has vanished, the full list is posted at once, and full lists are used from
then on. What must not vanish is written to disk before the first post: when a process dies in between, the next poll finds
it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from muxer import files
from muxer.errors import Code, MuxerError, Permanent, ServiceUnavailable
from muxer.gir.models import Json, MediaFile, ScreenRecording
from muxer.gir.rws import Rws
from muxer.repeat import Repeat, once
from muxer.transfer import private_file

log = logging.getLogger(__name__)

POST_ATTEMPTS = 3
# A read may lag behind a write for a moment: seconds to wait before each look at what was posted.
READ_BACK_WAITS = (0.0, 0.5, 1.5)
# Recordings share so many locks, so that their number does not grow.
LOCKS = 64


class Publisher:
    """Posts entries one recording at a time. ``folder`` keeps the lists that are at stake. Safe to use from any thread."""

    def __init__(self, rws: Rws, folder: Path, repeat: Repeat = once) -> None:
        """Create it; `repeat` calls each request that may fail."""
        self._rws = rws
        self._repeat = repeat
        self._folder = folder
        self._full_lists = False
        self._locks = [threading.Lock() for _ in range(LOCKS)]

    def publish(
        self, recording_id: str, region: str, entry: Json, *, is_still_stored: Callable[[], None]
    ) -> ScreenRecording:
        """Given a new media entry, return the screen recording in which it stands now, read back.

        ``is_still_stored`` is called right before and right after the entry is posted, and raises when the stored file is
        no longer the one that the entry describes. An entry that stands there already is not posted again, unless it
        describes another ciphertext. Raise :class:`ServiceUnavailable` when the entry cannot be seen after posting.
        """
        with self.lock(recording_id):
            current = self._read(recording_id)
            if current is not None and _stands_in(current, entry):
                return current
            is_still_stored()
            earlier = [] if current is None else [as_posted(media.raw) for media in current.media]
            wanted = [*(one for one in earlier if one.get("mediaId") != entry["mediaId"]), entry]
            at_stake = self._keep(recording_id, region, wanted)
            published = self._post(recording_id, region, wanted, at_stake, full=self._full_lists)
            is_still_stored()
            return published

    def repair_left_overs(self) -> None:
        """Post again the entries that an earlier publication put at stake and that are missing now."""
        for path in sorted(self._folder.glob("*.json")):
            try:
                self._settle(path)
            except FileNotFoundError:
                continue  # its publication has just ended well
            except OSError as error:
                log.error("%s cannot be used, tried at the next poll: %s", path, error)
            except MuxerError as error:
                log.error("lost entries could not be posted again, tried at the next poll: %s", error)

    def _settle(self, path: Path) -> None:
        """Post what one record keeps; put away a record that is of no use, or that RWS refuses."""
        try:
            self._repair(path)
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read (%s); it is removed", path.name, type(error).__name__)
            files.remove(path)
        except Permanent as error:
            kept = files.replace(path, path.with_suffix(".refused"))
            log.error("RWS refuses entries that it has lost; they are kept in %s: %s", kept, error)

    def _repair(self, path: Path) -> None:
        recording_id = json.loads(path.read_text(encoding="utf-8"))["id"]
        with self.lock(recording_id):
            left = json.loads(path.read_text(encoding="utf-8"))
            current = self._look(recording_id)
            *earlier, _ = left["mediaFiles"]
            if current is not None and _missing(_at_stake(left["mediaFiles"]), current):
                # Superseded ones come back too: whoever deletes them then deletes their files as well.
                log.warning("%s: entries that an earlier publication put at stake are missing; posting them", recording_id)
                # One with an id comes last: by it the post is recognised when it is read back.
                wanted = sorted(_union(earlier, current), key=lambda one: bool(one.get("mediaId")))
                self._post(recording_id, left["region"], wanted, path, full=True)
            files.remove(path)

    def _post(
        self, recording_id: str, region: str, wanted: list[Json], at_stake: Path, *, full: bool
    ) -> ScreenRecording:
        """Post the last of the ``wanted`` entries, or all of them, and see to it that all of them stand there. Only then the
        file that keeps what is ``at_stake`` is removed."""
        posted: Sequence[Json] = wanted if full else wanted[-1:]
        for _ in range(POST_ATTEMPTS):
            # An entry has one name: one that is posted twice is there once.
            self._repeat("posting the entry", partial(self._rws.post_media, recording_id, region, posted))
            current = self._read_back(recording_id, posted)
            missing = _missing(wanted, current)
            if current is not None and not missing and _stands_in(current, wanted[-1]):
                self._forget(at_stake)
                return current
            if len(posted) < len(wanted) and missing - {wanted[-1]["mediaId"]}:
                log.warning("RWS replaces the media list of a recording when one entry is posted; posting full lists")
                self._full_lists = True
            posted = _union(wanted, current)
        shown = ", ".join(sorted(missing)) or wanted[-1]["mediaId"]
        raise ServiceUnavailable(f"posted, but RWS does not show {shown} as posted when read back", code=Code.NOT_SHOWN)

    def _read_back(self, recording_id: str, posted: Sequence[Json]) -> ScreenRecording | None:
        """Return the recording as soon as it shows what was posted, or as it is after the last look."""
        current = None
        for wait in READ_BACK_WAITS:
            time.sleep(wait)
            current = self._look(recording_id)
            if current is not None and not _missing(posted, current) and _stands_in(current, posted[-1]):
                break
        return current

    def _look(self, recording_id: str) -> ScreenRecording | None:
        """Return a recording as it stands now. Raise :class:`ServiceUnavailable` also when waiting does not mend it: what is
        posted is refused by a refused post, and by nothing else."""
        try:
            return self._read(recording_id)
        except Permanent as error:
            raise ServiceUnavailable(f"RWS does not show what is published: {error}", code=Code.NOT_SHOWN) from error

    def _read(self, recording_id: str) -> ScreenRecording | None:
        return self._repeat("reading the screen recording", partial(self._rws.screen_recording, recording_id))

    def lock(self, recording_id: str) -> threading.Lock:
        """Return the lock that is held while entries of a recording are posted. Hold it to delete an entry: one that
        vanishes meanwhile would be taken for lost, and posted again."""
        return self._locks[int(_stem(recording_id), 16) % LOCKS]

    def _keep(self, recording_id: str, region: str, wanted: list[Json]) -> Path:
        path = self._folder / f"{_stem(recording_id)}.json"
        fresh = path.with_suffix(".new")
        with private_file(fresh) as file:
            file.write(json.dumps({"id": recording_id, "region": region, "mediaFiles": wanted}).encode())
        return files.replace(fresh, path)

    def _forget(self, at_stake: Path) -> None:
        """Delete the record of a publication that ended well; one that cannot be deleted is read by the next poll."""
        try:
            files.remove(at_stake)
        except OSError as error:
            log.warning("%s cannot be deleted now, tried at the next poll: %s", at_stake, error)


def as_posted(media: Json) -> dict[str, Any]:
    """Given a media entry as it was read, return it as it is posted: only the descriptor's key differs."""
    posted = dict(media)
    if "originalMediaDescriptor" in posted:
        posted["mediaDescriptor"] = posted.pop("originalMediaDescriptor")
    return posted


def _stands_in(current: ScreenRecording, entry: Json) -> bool:
    """Whether an entry stands in a recording, with the same envelope: another one does not open the stored file."""
    envelopes = [media.pkcs7 or "" for media in current.media if media.media_id == entry["mediaId"]]
    return "".join(str(entry.get("pkcs7") or "").split()) in ("".join(one.split()) for one in envelopes)


def _at_stake(wanted: Sequence[Json]) -> list[Json]:
    """Return the entries of a list that must not be lost: all but the newest, and but those that it supersedes."""
    *earlier, newest = wanted
    sources = set(MediaFile.read(newest).muxed_from or ())
    return [one for one in earlier if not (made := MediaFile.read(one).muxed_from) or not set(made) <= sources]


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
