"""What a migration does at its end: it reads again what RWS failed for, and says what is left unfinished."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.lab import Lab
from muxer.app.daemon import Daemon
from muxer.config import load_config
from muxer.errors import ServiceFailed
from muxer.gir import publish, session
from muxer.gir.responses import HttpResponse
from muxer.system.exit_codes import EXIT_OK, EXIT_SOME_FAILED
from muxer.system.intent_log import write_record
from tests.support.calls import write_config
from tests.support.in_process_site import SWITCHES, GeneratedRecordings, InProcessSession, create_daemon

Make = Callable[..., Lab]
CALL_COUNT = 60


def create_migration(lab: Lab, **options: str) -> Daemon:
    options |= {"advanced__call_recording_query_string": "startTime=0"}
    return create_daemon(lab, load_config(write_config(lab, "1", **options), {}, {}).config, threading.Event())


@pytest.mark.parametrize("slice_size", ["100", "20", "3"])
def test_a_short_outage_is_no_failure_of_recordings(
    make_lab: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], slice_size: str
) -> None:
    monkeypatch.setattr(session, "step_delay", lambda attempt, _: 0.0 if attempt < 4 else None)
    real, failing = InProcessSession._send_and_read, iter(range(150))

    def send(self: InProcessSession, method: str, target: str, body: Any = None) -> HttpResponse:
        if "screen-recordings" in target and method == "GET" and next(failing, None) is not None:
            raise ServiceFailed("HTTP 500")
        return real(self, method, target, body)

    monkeypatch.setattr(InProcessSession, "_send_and_read", send)
    lab = make_lab(**SWITCHES)
    store = GeneratedRecordings(lab, range(CALL_COUNT))
    daemon = create_migration(lab, processing__query_slice_size=slice_size)
    assert daemon.run() == EXIT_OK and store.count_finished(store.alive) == CALL_COUNT
    expected = (
        f"{CALL_COUNT} recordings found, {CALL_COUNT} files muxed, 0 already done, 0 recordings without screen, 0 failed"
    )
    assert expected in capsys.readouterr().out


def test_lost_entries_that_are_not_back_are_a_failure(
    make_lab: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(publish, "READ_BACK_DELAYS", (0.0,))
    lab = make_lab(**SWITCHES)
    store = GeneratedRecordings(lab, range(2))
    daemon, recording = create_migration(lab), store._ids[0]
    # An earlier process has published something else, and RWS never shows what it lost.
    entries = [{"mediaId": name, "type": "video/mp4"} for name in ("lost.mp4", "newest.mp4")]
    path = daemon._services.workspace.publishing / f"{hashlib.sha256(recording.encode()).hexdigest()[:32]}.json"
    write_record(path, {"id": recording, "region": "r1", "mediaFiles": entries})
    post = store.post_screen
    monkeypatch.setattr(store, "post_screen", lambda body, replacing: len(body["mediaFiles"]) > 1 or post(body, replacing))
    assert daemon.run() == EXIT_SOME_FAILED and path.exists()
    assert f"1 failed: {recording}" in capsys.readouterr().out
