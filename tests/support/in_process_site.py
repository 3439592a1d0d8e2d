"""A site in this process for thousands of recordings.

It has the RWS of the lab without a network, recordings that are generated on request, and a storage and a media engine
that store nothing. Everything else of the muxer is real."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import Message
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lab import metadata
from lab.cases import ALICE, CallPlan, ScreenPart
from lab.lab import Lab
from lab.rws import RwsApplication as LabRws
from lab.service import LabRequest
from lab.store import JSON, RecordingStore
from muxer.app.assembly import build_services
from muxer.app.daemon import Daemon
from muxer.config.schema import Config
from muxer.gir.models import CallRecording, ScreenRecording
from muxer.gir.publish import Publisher
from muxer.gir.responses import HttpResponse
from muxer.gir.rws import RwsClient
from muxer.gir.session import ServiceAccount, ServiceSession
from muxer.gir.targets import TargetOptions, select_targets
from muxer.media.analyze.arrival import MediaInput
from muxer.media.engine import MuxedFile
from muxer.media.ffmpeg import MediaTools
from muxer.media.plan.mux_plan import MuxTimeline
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.pipeline.job import Job
from muxer.pipeline.workspace import Workspace
from muxer.storage.base import WEBDAV, MediaLocation, ObjectInfo
from muxer.storage.stores import Stores
from muxer.system.process import Runner

SWITCHES = {
    "csrf": False,
    "scroll_empty_first_page": False,
    "scroll_repeats_ids": False,
    "encryption_group": "missing",
}
PLAN = CallPlan("generated", 60, (ScreenPart(0, 60),))
MAX_RECORDINGS = 10_000
# The number of recordings that are requested repeatedly at about the same time.
CALL_CACHE_SIZE = 64
FILE_BYTES = 64
_PUBLISHED, _LABELLED = 1, 2


class GeneratedRecordings(RecordingStore):
    """Generated recordings with the numbers `alive`, each with one call and one screen file.

    Only a few bits of what is written to them are stored, so that the memory of this process is that of the muxer."""

    def __init__(self, lab: Lab, alive: range = range(0)) -> None:
        super().__init__()
        self.alive = alive
        self.polls = 0
        self._site = lab.site
        self._begin = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)
        self._state = bytearray(MAX_RECORDINGS)
        self._ids = [f"recording-{number:06}" for number in range(MAX_RECORDINGS)]
        self._nothing = lab.folder / "nothing"
        self._nothing.touch()
        lab.site.store = self

    def find_calls(self, wanted: Callable[[JSON], bool]) -> list[str]:
        self.polls += 1
        return [id for id in (self._ids[number] for number in self.alive) if wanted(self.get_call(id) or {})]

    def get_call(self, recording_id: str) -> JSON | None:
        number = recording_number(recording_id)
        if number not in self.alive:
            return None
        start, site = self._start_of(number), self._site
        audio = metadata.call_media(site, PLAN, recording_id, start, self._nothing, None)
        media = audio | {
            "mediaId": f"{recording_id}.mp3",
            "originalMediaDescriptor": self._descriptor_of(f"{recording_id}.mp3"),
        }
        call = metadata.call_recording(site, PLAN, recording_id, start, media)
        return call | {"labels": [{"name": "screenRecording"}] if self._state[number] & _LABELLED else []}

    def get_screen(self, recording_id: str) -> JSON | None:
        number = recording_number(recording_id)
        if number not in self.alive:
            return None
        return {"id": recording_id, "region": self._site.region, "mediaFiles": list(self._build_media(recording_id, number))}

    def post_screen(self, body: JSON, replacing: bool) -> None:
        number, (entry,) = recording_number(body["id"]), body["mediaFiles"]
        assert entry["mediaId"] == self._muxed_name(body["id"]), "the name does not match the sources"
        assert not self._state[number] & _PUBLISHED, f"{body['id']} is published twice"
        self._state[number] |= _PUBLISHED

    def add_label(self, recording_id: str, name: str) -> bool:
        self._state[recording_number(recording_id)] |= _LABELLED
        return True

    def count_finished(self, numbers: range) -> int:
        """Return how many of these recordings are published and labelled."""
        return sum(item == _PUBLISHED | _LABELLED for item in self._state[numbers.start : numbers.stop])

    def _build_media(self, recording_id: str, number: int) -> Iterator[JSON]:
        start, site, name = self._start_of(number), self._site, f"{ALICE.username}_{recording_id}.mp4"
        screen = metadata.screen_media(site, PLAN.screens[0], recording_id, start, self._nothing, None)
        yield screen | {"mediaId": name, "originalMediaDescriptor": self._descriptor_of(name)}
        if self._state[number] & _PUBLISHED:
            sources = [f"{recording_id}.mp3", name]
            built = metadata.muxed_media(site, PLAN, recording_id, start, self._nothing, sources)
            muxed = self._muxed_name(recording_id)
            yield built | {"mediaId": muxed, "originalMediaDescriptor": self._descriptor_of(muxed)}

    @lru_cache(maxsize=CALL_CACHE_SIZE)  # noqa: B019
    def _muxed_name(self, recording_id: str) -> str:
        screen = next(self._build_media(recording_id, recording_number(recording_id)))
        bare = {"id": recording_id, "region": self._site.region, "mediaFiles": [screen]}
        call = CallRecording.from_json(self.get_call(recording_id))
        return (
            select_targets(call, ScreenRecording.from_json(bare), delete_superseded=True, label=False).targets[0].file_name
        )

    def _start_of(self, number: int) -> datetime:
        return self._begin + timedelta(seconds=number % 600)

    def _descriptor_of(self, name: str) -> JSON:
        return {"storage": WEBDAV, "path": name, "data": {"storagePath": "http://storage.invalid/screens/"}}


def recording_number(name: str) -> int:
    """Return the number of the recording in a name."""
    return int(name.partition("recording-")[2][:6])


class InProcessSession(ServiceSession):
    """A session that calls the RWS of the lab without a network."""

    def __init__(self, lab: Lab, stop: threading.Event, circuit_breaker: CircuitBreaker) -> None:
        user = lab.site.rws_account
        super().__init__(ServiceAccount("RWS", lab.rws_url, user.username, user.password, False, 30), stop, circuit_breaker)
        self._login = base64.b64encode(f"{user.username}:{user.password}".encode()).decode()
        self._store, self._application = lab.site.store, LabRws(lab.site)

    def _send_and_read(self, method: str, target: str, body: Any = None) -> HttpResponse:
        parts = urlsplit(self._to_own_host(target))
        path = f"{parts.path}?{parts.query}"
        failure = self._store.take_failure("rws", method, path)
        if failure is not None:
            return HttpResponse(f"RWS {method} {parts.path}", failure.status, failure.headers, failure.body)
        headers = Message()
        headers["Authorization"] = f"Basic {self._login}"
        headers["Content-Type"] = "application/json"
        response = self._application.handle_request(LabRequest(method, path, headers, json.dumps(body).encode()))
        return HttpResponse(
            f"RWS {method} {parts.path}", response.status, {"Content-Type": response.content_type}, response.body
        )


class EmptyStorage:
    """A storage that stores nothing: every file that is fetched has some bytes. `trouble` may raise instead."""

    def __init__(self, trouble: Callable[[str], None]) -> None:
        self._trouble = trouble

    def download_file(self, location: MediaLocation, path: Path) -> int:
        self._trouble(location.name)
        return path.write_bytes(bytes(FILE_BYTES))

    def upload_file(self, path: Path, location: MediaLocation, may_replace: Callable[[], bool]) -> ObjectInfo:
        return ObjectInfo(path.stat().st_size, "tag")

    def head(self, location: MediaLocation) -> ObjectInfo | None:
        return ObjectInfo(FILE_BYTES, "tag")

    def delete_file(self, location: MediaLocation) -> None:
        raise AssertionError("nothing is to be deleted")

    def remove_leftovers(self) -> None:
        """Do nothing: there are no leftover files."""


class FakeEngine:
    """A fake media engine that creates a file of some bytes. `trouble` may raise instead."""

    def __init__(self, trouble: Callable[[str], None]) -> None:
        self._trouble = trouble

    def mux(self, audio: MediaInput, screens: Sequence[MediaInput], folder: Path) -> MuxedFile:
        self._trouble(audio.name)
        path = folder / "muxed.mp4"
        path.write_bytes(bytes(FILE_BYTES))
        return MuxedFile(path, 60_000_000, 0, 0, (), MuxTimeline(60_000_000, (), ()))


def create_daemon(
    lab: Lab,
    config: Config,
    stop: threading.Event,
    fetching: Callable[[str], None] = lambda name: None,
    muxing: Callable[[str], None] = lambda name: None,
) -> Daemon:
    """Return a daemon for a lab with :class:`GeneratedRecordings`; `fetching` and `muxing` may raise for a file."""
    runner, tools = Runner(), MediaTools("ffmpeg", "ffprobe")
    workspace = Workspace(config.processing.temp_dir, "single", 1)
    built = build_services(config, tools, runner, workspace, stop)
    rws = RwsClient(InProcessSession(lab, stop, built.circuit_breaker), lab.ccid)
    stores: Any = {WEBDAV: EmptyStorage(fetching)}
    engine: Any = FakeEngine(muxing)
    services = replace(built, rws=rws, stores=Stores(stores), engine=engine, publisher=Publisher(rws, workspace.publishing))
    return Daemon(config, services, Job(services, TargetOptions(True, True)), runner)
