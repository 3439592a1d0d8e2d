"""A job whose publication RWS has broken off: the sources that RWS lost do not count as deleted."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muxer.errors import ServiceUnavailable
from muxer.gir import publish
from muxer.gir.models import CallRecording, Json, ScreenRecording
from muxer.gir.publish import Publisher
from muxer.gir.targets import MuxTarget, TargetOptions
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.pipeline.job import Job, JobReport
from muxer.scheduling import attempts
from muxer.scheduling.attempts import TargetProcessor
from tests.support.migration_outcomes import MigrationOutcomes

TIMES = {"startTime": "2026-03-01T00:00:00.000+0000", "stopTime": "2026-03-01T00:01:00.000+0000"}


def place_of(name: str) -> Json:
    return {"storage": "webDAV", "path": name, "data": {"storagePath": "http://dav/x/"}}


class ReplacingRws:
    """Posts replace the list of a recording; the second one, which posts the full list, fails."""

    def __init__(self) -> None:
        self.media = [{"mediaId": "s.mp4", "type": "video/mp4", "originalMediaDescriptor": place_of("s.mp4")} | TIMES]
        self._posts = 0

    def fetch_call_recording(self, recording: str) -> CallRecording:
        audio = {"mediaId": "a.mp3", "type": "audio/mp3", "mediaDescriptor": place_of("a.mp3")} | TIMES
        labels = [{"name": "screenRecording"}]
        return CallRecording.from_json({"id": recording, "region": "r", "labels": labels, "mediaFiles": [audio]})

    def fetch_screen_recording(self, recording: str) -> ScreenRecording:
        return ScreenRecording.from_json({"id": recording, "region": "r", "mediaFiles": self.media})

    def post_media(self, recording: str, region: str, media: list[Json]) -> None:
        self._posts += 1
        if self._posts == 2:
            raise ServiceUnavailable("503")
        self.media = [dict(one) for one in media]


class PublishingJob(Job):
    """A job whose muxed file needs no media: it is only published."""

    publisher: Publisher

    def _mux_and_publish(self, target: MuxTarget, report: JobReport, name: str) -> None:
        made_of = {"muxed_mediaIds": list(target.source_ids)}
        entry = {"mediaId": name, "type": "video/mp4", "parameters": made_of, "mediaDescriptor": place_of(name)}
        self.publisher.publish_entry(target.recording_id, target.region, entry, is_still_stored=lambda: None)
        report.muxed = True


@pytest.mark.parametrize("fresh", [True, False])
def test_another_attempt_restores_the_sources_that_rws_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: bool
) -> None:
    monkeypatch.setattr(publish, "READ_BACK_DELAYS", (0.0,))
    monkeypatch.setattr(attempts, "MIGRATION_WAIT_SECONDS", 0.0)
    rws = ReplacingRws()
    publisher = Publisher(rws, tmp_path)
    results = SimpleNamespace(forget_target=lambda target: None)
    services: Any = SimpleNamespace(rws=rws, repeat=lambda what, do: do(), results=results, publisher=publisher)
    job = PublishingJob(services, TargetOptions(label=True, delete_superseded=True))
    job.publisher = publisher
    activity: Any = SimpleNamespace(
        track_target=lambda *_: nullcontext(), count_error=lambda *_: None, count_outcome=lambda *_: None
    )
    outcomes: Any = MigrationOutcomes()
    [target] = job.read_targets("call")
    if fresh:
        TargetProcessor(job, CircuitBreaker(), activity, threading.Event(), outcomes).process_target(target, attempts=4)
        assert len(outcomes.failures) == 1 and outcomes.done
    else:
        with pytest.raises(ServiceUnavailable):
            job.run(target)
        job.run(target)
    assert {one["mediaId"] for one in rws.media} == {"s.mp4", target.file_name} and not list(tmp_path.iterdir())
