"""The lab in a separate process, so that it does not affect the measurement: ``python -m tests.bench.server``.

Reads one JSON object a line, ``{"do": name, ...}``, and writes one line for each; ends at the end of its input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from lab import metadata
from lab.cases import ALICE, CallPlan, ScreenPart
from lab.dav import ExternalDav
from lab.keys import encrypt_media
from lab.lab import Lab
from lab.site import CALLS, SCREENS
from lab.store import RecordingStore, RequestRecord
from lab.switches import Switches
from tests.bench.delays import Delays

JSON = dict[str, Any]
# The content of the files of finished recordings.
CONTENT = b"content"


class _RecordingStore(RecordingStore):
    """A store that also records the time of each request, and delays its response."""

    def __init__(self, delays: Delays) -> None:
        super().__init__()
        self.seen: list[tuple[float, str, str, str]] = []
        self.delays = delays

    def record_request(self, request: RequestRecord) -> None:
        time.sleep(self.delays.delay_seconds(request.service, request.method, request.path))
        self.seen.append((time.time(), request.service, request.method, request.path))
        super().record_request(request)


class _LabCommands:
    """The commands that a benchmark may send to the lab."""

    def __init__(self, lab: Lab, store: _RecordingStore) -> None:
        self._lab, self._store = lab, store
        self._sources: list[Path] = []

    def config(self, overrides: dict[str, str]) -> JSON:
        """Return the text of a muxer.cfg."""
        return {"text": self._lab.config_text(**overrides)}

    def add(self, serial: int, start: str, call: JSON, encrypted: bool, slow: float = 1.0) -> JSON:
        """Add a call with its files to the lab; its transfers are `slow` times slower. Returns its id and the names of
        its files."""
        parts = tuple(ScreenPart(screen["offset"], screen["seconds"]) for screen in call["screens"])
        plan = CallPlan("bench", call["seconds"], parts, encrypted)
        recording_id, begin = plan.recording_id(serial), datetime.fromisoformat(start)
        if slow != 1.0:
            self._store.delays.slow[recording_id] = slow
        names, site = [], self._lab.site
        for number, (part, one) in enumerate(zip(parts, call["screens"], strict=True)):
            stored, pkcs7 = self._put_file(one["path"], SCREENS, f"{recording_id}_{number}.mp4", encrypted)
            start_time = begin + timedelta(seconds=part.offset)
            media = metadata.screen_media(site, part, recording_id, start_time, stored, pkcs7)
            self._store.add_screen_media(recording_id, site.region, media)
            names.append(stored.name)
        stored, pkcs7 = self._put_file(call["audio"], CALLS, f"{recording_id}.mp3", encrypted)
        media = metadata.call_media(site, plan, recording_id, begin, stored, pkcs7)
        self._store.add_call(metadata.call_recording(site, plan, recording_id, begin, media))
        return {"id": recording_id, "audio": stored.name, "screens": names}

    def add_finished(self, count: int, first: str, apart: float, stored: bool) -> JSON:
        """Add recordings that are muxed and labelled, ``apart`` seconds apart, without their files. `stored`: all of them
        share two files."""
        seconds, site = 180, self._lab.site
        plan = CallPlan("finished", seconds, (ScreenPart(0, seconds),), muxed=True)
        file = self._lab.folder / "file"
        file.write_bytes(CONTENT)
        for serial in range(count):
            recording_id = plan.recording_id(serial)
            start = datetime.fromisoformat(first) + timedelta(seconds=apart * serial)
            audio, screen = f"{recording_id}.mp3", f"{ALICE.username}_{recording_id}.mp4"
            media = metadata.call_media(site, plan, recording_id, start, file, None) | {"mediaId": audio}
            if stored:
                self._share_file(media, "calls")
            self._store.add_call(metadata.call_recording(site, plan, recording_id, start, media))
            source = metadata.screen_media(site, plan.screens[0], recording_id, start, file, None) | {"mediaId": screen}
            muxed_entry = metadata.muxed_media(site, plan, recording_id, start, file, [audio, screen])
            for one in (source, muxed_entry | {"mediaId": f"{recording_id}_muxed.mp4"}):
                if stored:
                    self._share_file(one, "screens")
                self._store.add_screen_media(recording_id, site.region, one)
        return {}

    def _share_file(self, media: JSON, collection: str) -> None:
        shared, root = "shared.mp4", self._lab.site.media
        (root.folder / collection / shared).write_bytes(CONTENT)
        media["originalMediaDescriptor"] = (
            root.call_descriptor(shared) if collection == "calls" else root.screen_descriptor(shared)
        )

    def forget_requests(self) -> JSON:
        """Restart the count of requests."""
        self._store.seen.clear()
        return {}

    def fail_at_random(self, part: float, seed: int) -> JSON:
        """Let this part of all requests fail."""
        self._store.fail_at_random(part, seed)
        return {}

    def outcome(self) -> JSON:
        """Return the ids of the recordings that have a muxed file, and how many bytes of sources were sent."""
        screens = list(self._store._screens.values())
        muxed = [
            screen["id"]
            for screen in screens
            if any("muxed_mediaIds" in media["parameters"] for media in screen["mediaFiles"])
        ]
        sizes = {path.name.removesuffix(".bin"): path.stat().st_size for path in self._sources}
        sent = [
            unquote(urlsplit(request.path).path.rpartition("/")[2]).removesuffix(".bin")
            for request in self._store.served_requests
            if request.method == "GET" and request.status == 200 and request.service in ("dav", "rcs")
        ]
        whole = sum(sizes.values())
        return {"muxed": muxed, "sent": sum(sizes.get(name, 0) for name in sent), "whole": whole}

    def requests(self) -> JSON:
        """Return the requests since :meth:`forget_requests` (time, service, method, path), and used processor seconds."""
        return {"requests": list(self._store.seen), "cpu": time.process_time()}

    def progress(self) -> JSON:
        """Return the time of the first request for a recording by its id, and the times of publication."""
        seen = [one for one in list(self._store.seen) if one[1] == "rws" and "/screen-recordings" in one[3]]
        started = [start_time for start_time, _, _, path in seen if "/screen-recordings/" in path]
        published = [
            start_time for start_time, _, method, path in seen if method == "POST" and path.endswith("/screen-recordings")
        ]
        return {"started": min(started, default=None), "published": published}

    def _put_file(self, source: str, collection: str, name: str, encrypted: bool) -> tuple[Path, str | None]:
        """Put a file into the storage."""
        stored = self._lab.site.media.folder / collection / (f"{name}.bin" if encrypted else name)
        self._sources.append(stored)
        if encrypted:
            return stored, encrypt_media(Path(source), stored, self._lab.site.recipients)
        Path(source).chmod(0o644)
        os.link(source, stored)  # a copy would keep the disk busy while the next run is measured
        return stored, None


def main(folder: str, options: str) -> int:
    """Serve a lab in `folder` until the input ends. `options`: JSON with ``dav``, ``switches``, ``delays``."""
    os.umask(0o022)
    settings = json.loads(options)
    dav = (
        ExternalDav(settings["dav"]["url"], Path(settings["dav"]["root"]), *settings["dav"]["login"])
        if "dav" in settings
        else None
    )
    lab, store = (
        Lab(Path(folder), Switches(**settings.get("switches", {})), dav=dav),
        _RecordingStore(Delays(settings.get("delays", {}))),
    )
    lab.site.store = store
    with lab:
        commands = _LabCommands(lab, store)
        for line in sys.stdin:
            command = json.loads(line)
            response = getattr(commands, command.pop("do"))(**command)
            sys.stdout.write(f"{json.dumps(response)}\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
