"""The state of the lab: recordings, and what clients did. All access is under one lock."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Any

from lab.times import epoch_ms

JSON = dict[str, Any]
MAX_REQUESTS = 20_000


@dataclass(frozen=True)
class RequestRecord:
    """A served request: service (rws, rcs or dav), method, path with query, HTTP status."""

    service: str
    method: str
    path: str
    status: int


@dataclass
class ScriptedFailure:
    """A response prepared by a test instead of the real one, for the next `times` matching requests."""

    service: str
    method: str
    path_part: str
    status: int
    times: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def matches_request(self, service: str, method: str, path: str) -> bool:
        """Return whether a request of this service, method and path (with query) fails."""
        return self.times > 0 and service == self.service and method == self.method and self.path_part in path


class RecordingStore:
    """Recordings by id, and the requests for them. Everything that goes in or out is a deep copy."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._calls: dict[str, JSON] = {}
        self._screens: dict[str, JSON] = {}
        self._requests: deque[RequestRecord] = deque(maxlen=MAX_REQUESTS)
        self._failures: list[ScriptedFailure] = []
        self._failing, self._chance = 0.0, Random(0)
        self._definitions: set[str] = set()
        self._posts: list[JSON] = []
        self._deletes: list[tuple[str, str]] = []
        self._label_posts: list[tuple[str, str]] = []

    def add_call(self, recording: JSON) -> None:
        """Store a call recording as in gir-api 3 under its id; an existing one is replaced."""
        with self._lock:
            self._calls[recording["id"]] = deepcopy(recording)

    def add_screen_media(self, recording_id: str, region: str, media: JSON) -> None:
        """Add a media file as in gir-api 4 to the screen recording, which is created if necessary."""
        with self._lock:
            self._merge_media(recording_id, region, [media])

    def get_call(self, recording_id: str) -> JSON | None:
        """Return the call recording of this id, or None."""
        with self._lock:
            return deepcopy(self._calls.get(recording_id))

    def find_calls(self, matches: Callable[[JSON], bool]) -> list[str]:
        """Return the ids of the call recordings that `matches` selects, oldest first. It must change nothing."""
        with self._lock:
            calls = [call for call in self._calls.values() if matches(call)]
            return [call["id"] for call in sorted(calls, key=lambda call: epoch_ms(call["startTime"]))]

    def get_screen(self, recording_id: str) -> JSON | None:
        """Return the screen recording of this id, or None."""
        with self._lock:
            return deepcopy(self._screens.get(recording_id))

    def post_screen(self, body: JSON, replacing: bool) -> None:
        """Merge the media of an accepted POST to screen-recordings by mediaId, or replace all [gir-api 5, OURS]."""
        with self._lock:
            self._posts.append(deepcopy(body))
            if replacing:
                self._screens.pop(body["id"], None)
            self._merge_media(body["id"], body["region"], [_as_stored(media) for media in body["mediaFiles"]])

    def delete_screen_media(self, recording_id: str, media_id: str) -> JSON | None:
        """Remove one media file from a screen recording. Returns it, or None if it does not exist [gir-api 4, S]."""
        with self._lock:
            files = self._screens.get(recording_id, {}).get("mediaFiles", [])
            media_file: JSON | None = next((media for media in files if media["mediaId"] == media_id), None)
            if media_file is not None:
                files.remove(media_file)
                self._deletes.append((recording_id, media_id))
            return media_file

    def define_label(self, name: str) -> bool:
        """Add a label definition. Returns False if it exists [gir-api 6]."""
        with self._lock:
            new = name not in self._definitions
            self._definitions.add(name)
            return new

    def has_label_definition(self, name: str) -> bool:
        """Return whether a definition of this label was posted."""
        with self._lock:
            return name in self._definitions

    def add_label(self, recording_id: str, name: str) -> bool:
        """Add a label to an existing call recording. Returns False if it has that label [gir-api 6]."""
        with self._lock:
            labels = self._calls[recording_id].setdefault("labels", [])
            if any(label.get("name") == name for label in labels):
                return False
            labels.append({"name": name})
            self._label_posts.append((recording_id, name))
            return True

    def fail_next(
        self,
        service: str,
        method: str,
        path_part: str,
        status: int,
        times: int = 1,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        """Answer the next `times` matching requests with this status, headers and body instead of the real response.

        An empty body becomes an envelope; status 0 closes the connection without a response (rws and rcs only). A
        Content-Length in `headers` is sent as it is, so that a body can be shorter than announced.
        """
        with self._lock:
            self._failures.append(ScriptedFailure(service, method, path_part, status, times, dict(headers or {}), body))

    def fail_at_random(self, part: float, seed: int = 0) -> None:
        """Let this part (0 to 1) of all requests fail from now on, before they have an effect: with 500, 503, or (rws and
        rcs) a closed connection. `seed` decides which."""
        with self._lock:
            self._failing, self._chance = part, Random(seed)

    def take_failure(self, service: str, method: str, path: str) -> ScriptedFailure | None:
        """Return the scripted or random failure for this request, counted as used, or None."""
        with self._lock:
            found = next((failure for failure in self._failures if failure.matches_request(service, method, path)), None)
            if found:
                found.times -= 1
            elif self._chance.random() < self._failing:
                status = self._chance.choice((500, 503) if service == "dav" else (500, 503, 0))
                found = ScriptedFailure(service, method, path, status, 1)
            return found

    def record_request(self, request: RequestRecord) -> None:
        """Record a request; called before its response is sent, so that a client that has it finds it here."""
        with self._lock:
            self._requests.append(request)

    @property
    def served_requests(self) -> list[RequestRecord]:
        """The requests served so far, oldest first; only the latest MAX_REQUESTS."""
        with self._lock:
            return list(self._requests)

    @property
    def screen_posts(self) -> list[JSON]:
        """The bodies of the accepted POSTs to screen-recordings, unchanged."""
        with self._lock:
            return deepcopy(self._posts)

    @property
    def media_deletes(self) -> list[tuple[str, str]]:
        """(recording id, mediaId) of the media deleted through RWS."""
        with self._lock:
            return list(self._deletes)

    @property
    def label_posts(self) -> list[tuple[str, str]]:
        """(recording id, label name) of the labels added through RWS."""
        with self._lock:
            return list(self._label_posts)

    def _merge_media(self, recording_id: str, region: str, files: list[JSON]) -> None:
        recording = self._screens.setdefault(recording_id, {"id": recording_id, "region": region, "mediaFiles": []})
        for media in files:
            existing = recording["mediaFiles"]
            index = next((i for i, old in enumerate(existing) if old["mediaId"] == media["mediaId"]), len(existing))
            existing[index : index + 1] = [deepcopy(media)]


def _as_stored(media: JSON) -> JSON:
    """Return a posted media file as RWS returns it later: with originalMediaDescriptor [gir-api 3, S]."""
    return {
        "originalMediaDescriptor" if key == "mediaDescriptor" else key: value
        for key, value in media.items()
        if key != "originalMediaDescriptor"
    }
