"""Publications in an RWS that replaces the list of media by what is posted, and fails in between: no entry is ever lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from muxer.errors import RequestRejected, ServiceUnavailable
from muxer.gir import publish
from muxer.gir.models import Json, ScreenRecording
from muxer.gir.publish import Publisher

SOURCES = ("screen-a", "screen-b")


def entry_of(name: str, *sources: str) -> Json:
    place = {"storage": "webDAV", "path": name, "data": {"storagePath": "http://dav/x/"}}
    muxed = {"parameters": {"muxed_mediaIds": list(sources)}} if sources else {}
    return {
        "mediaId": name,
        "type": "video/mp4",
        "startTime": "2026-03-01T00:00:00.000+0000",
        "mediaDescriptor": place,
    } | muxed


class ReplacingRws:
    """The list of a recording is what was posted last. The posts with these numbers fail."""

    def __init__(self, failing: Sequence[int], error: Exception) -> None:
        self._failing, self._error, self._posts = failing, error, 0
        self.media: list[Json] = [entry_of(name) for name in SOURCES]

    def fetch_screen_recording(self, recording: str) -> ScreenRecording:
        return ScreenRecording.from_json({"id": recording, "region": "r", "mediaFiles": self.media})

    def post_media(self, recording: str, region: str, media: Sequence[Json]) -> None:
        self._posts += 1
        if self._posts in self._failing:
            raise self._error
        self.media = [dict(one) for one in media]

    @property
    def names(self) -> set[str]:
        return {str(one["mediaId"]) for one in self.media}


@pytest.fixture(autouse=True)
def without_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "READ_BACK_DELAYS", (0.0,))


def publish_agent(publisher: Publisher, agent: str) -> None:
    entry = entry_of(f"muxed-{agent}", "audio", f"screen-{agent}")
    publisher.publish_entry("call", "r", entry, is_still_stored=lambda: None)


def create_publisher(rws: Any, folder: Path) -> Publisher:
    return Publisher(rws, folder)


def test_the_next_publication_of_a_recording_restores_what_the_one_before_lost(tmp_path: Path) -> None:
    rws = ReplacingRws([2], ServiceUnavailable("503"))
    publisher = create_publisher(rws, tmp_path)
    with pytest.raises(ServiceUnavailable):
        publish_agent(publisher, "a")
    assert rws.names == {"muxed-a"}
    publish_agent(publisher, "b")
    assert rws.names == {"muxed-a", "muxed-b", *SOURCES} and not list(tmp_path.iterdir())


def test_nothing_is_published_while_lost_entries_cannot_be_posted(tmp_path: Path) -> None:
    rws = ReplacingRws(range(2, 100), ServiceUnavailable("503"))
    publisher = create_publisher(rws, tmp_path)
    for agent in "ab":
        with pytest.raises(ServiceUnavailable):
            publish_agent(publisher, agent)
    [record] = tmp_path.iterdir()
    assert all(name in record.read_text() for name in SOURCES)


def test_what_was_lost_is_there_before_the_sources_are_read_again(tmp_path: Path) -> None:
    rws = ReplacingRws([2], ServiceUnavailable("503"))
    publisher = create_publisher(rws, tmp_path)
    with pytest.raises(ServiceUnavailable):
        publish_agent(publisher, "a")
    assert publisher.settle_publication("call") and {*SOURCES} < rws.names
    assert not publisher.settle_publication("call") and not publisher.settle_publication("other")


def test_entries_that_rws_refuses_are_kept_and_block_nothing(tmp_path: Path) -> None:
    rws = ReplacingRws([2, 3], RequestRejected("HTTP 400", 400))
    publisher = create_publisher(rws, tmp_path)
    with pytest.raises(RequestRejected):
        publish_agent(publisher, "a")
    publish_agent(publisher, "b")
    assert rws.names == {"muxed-a", "muxed-b"}
    [kept] = tmp_path.iterdir()
    assert kept.suffix == ".refused" and all(name in kept.read_text() for name in SOURCES)


def test_recordings_with_lost_entries_are_known_until_these_are_back(tmp_path: Path) -> None:
    for error, remains in ((ServiceUnavailable("503"), False), (RequestRejected("HTTP 400", 400), True)):
        publisher = create_publisher(ReplacingRws([2, 3], error), tmp_path / str(remains))
        (tmp_path / str(remains)).mkdir()
        with pytest.raises(type(error)):
            publish_agent(publisher, "a")
        assert publisher.unfinished_recordings() == ["call"]
        publisher.recover_publications()
        assert publisher.unfinished_recordings() == ["call"]
        publisher.recover_publications()
        assert publisher.unfinished_recordings() == (["call"] if remains else [])
