"""Final conditions after any fault: each recording is muxed once and readable, and there are no leftover files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.errors import LabError
from lab.lab import Lab
from lab.site import SCREENS
from tests.faults.recording_factory import CALL_SECONDS, SCREEN_PARTS, FaultRecording, RecordingFactory
from tests.support import av_sync
from tests.support.muxer_runs import muxed_entries

SHOWN = [av_sync.ExpectedScreen(part.offset, part.offset + part.seconds, part.agent.number) for part in SCREEN_PARTS]
SETTLE_SECONDS = 30.0
# Entries that a running muxer keeps in its temporary folder.
KEPT_NAMES = {"muxer.lock", "state.json", "state.new", "publishing", "uploading", "deleting", "padding"}
# The journal, and the folders of fleet workers.
KEPT_PREFIXES = ("journal.sqlite3", "worker-")


def is_done(lab: Lab, recording: FaultRecording) -> bool:
    """Return whether a recording is muxed and labelled."""
    labels = (lab.store.get_call(recording.id) or {}).get("labels", [])
    entries = muxed_entries(lab, recording.id)
    return [entry["parameters"]["muxed_mediaIds"] for entry in entries] == [recording.sources] and bool(labels)


def recording_problems(lab: Lab, recording: FaultRecording) -> list[str]:
    """Return the problems of the muxed file of a recording, of its entry and of the entries of its sources."""
    if found := media_entry_problems(lab, recording):
        return found
    (entry,) = muxed_entries(lab, recording.id)
    stored = lab.site.media.find_file(entry)
    return [] if stored is None else _content_problems(lab, entry["pkcs7"], stored, recording)


def media_entry_problems(lab: Lab, recording: FaultRecording) -> list[str]:
    """Return the problems that are visible without reading the file."""
    entries = muxed_entries(lab, recording.id)
    if len(entries) != 1:
        return [f"{recording.id} has {len(entries)} muxed files"]
    (entry,) = entries
    stored = lab.site.media.find_file(entry)
    media = {media["mediaId"] for media in (lab.store.get_screen(recording.id) or {})["mediaFiles"]}
    wrong = {
        "its sources": entry["parameters"]["muxed_mediaIds"] != recording.sources,
        "the entries of its sources": media != {*recording.sources[1:], entry["mediaId"]},
        "the number of its labels": lab.store.label_posts.count((recording.id, "screenRecording")) != 1,
        "the file": stored is None or str(stored.stat().st_size) != entry["size"],
    }
    return [f"{recording.id}: {what} is wrong" for what, is_wrong in wrong.items() if is_wrong]


def _content_problems(lab: Lab, envelope: str, stored: Path, recording: FaultRecording) -> list[str]:
    with TemporaryDirectory() as folder:
        clear = Path(folder) / "clear.mp4"
        try:
            lab.decrypt_file(envelope, stored, clear)
        except LabError as error:
            return [f"{recording.id}: the envelope does not open the file: {error}"]
        return av_sync.file_problems(clear, recording.start, CALL_SECONDS, SHOWN)


def count_lost(lab: Lab, recordings: Iterable[FaultRecording]) -> int:
    """Return how many recordings have no muxed file of all their sources."""
    published = [
        [entry["parameters"]["muxed_mediaIds"] for entry in muxed_entries(lab, recording.id)] for recording in recordings
    ]
    return sum(recording.sources not in one for recording, one in zip(recordings, published, strict=True))


def count_doubled(lab: Lab, recordings: Iterable[FaultRecording]) -> int:
    """Return how many recordings have more than one muxed file."""
    return sum(len(muxed_entries(lab, recording.id)) > 1 for recording in recordings)


def storage_leftovers(lab: Lab, *factories: RecordingFactory) -> list[str]:
    """Return stored files that no metadata name, and sources that changed."""
    named = {media["mediaId"] for screen in list(lab.store._screens.values()) for media in screen["mediaFiles"]}
    stored = {path.name for path in (lab.site.media.folder / SCREENS).iterdir()} | _bucket_names(lab)
    changed = [name for factory in factories for name in factory.changed_sources()]
    sources = {name for factory in factories for name in factory.source_names}
    return [*sorted(stored - named - sources), *changed]


def _bucket_names(lab: Lab) -> set[str]:
    bucket = lab.site.media.bucket
    if bucket is None:
        return set()
    found = bucket._client.list_objects_v2(Bucket=bucket.external.bucket, Prefix=f"{SCREENS}/").get("Contents", [])
    return {one["Key"].removeprefix(f"{SCREENS}/") for one in found}


def wait_for_none(left_over: Callable[[], list[str]]) -> list[str]:
    """Wait until `left_over` returns nothing. Returns what is left at the deadline."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (left := left_over()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def temp_leftovers(temp: Path) -> list[str]:
    """Return the entries that an idle muxer must not have in its temporary folder."""
    above = [path.name for path in temp.iterdir() if path.name not in KEPT_NAMES and not path.name.startswith(KEPT_PREFIXES)]
    folders = [temp / name for name in ("publishing", "uploading", "deleting")]
    return above + [path.name for folder in folders for path in folder.iterdir()]


def find_orphans(temp: Path) -> list[str]:
    """Return the command lines of programs that use files of a temporary folder or run in it."""
    found, jobs = [], f"{temp}{os.sep}muxer-job-"
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            if jobs in line or str((process / "cwd").readlink()).startswith(jobs):
                found.append(line)
    return found
