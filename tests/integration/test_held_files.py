"""A record or a job folder that another program locks: the daemon logs its path, continues, and handles it later.

The lab's RWS responds without a network, the storage and the engine contain nothing; the daemon, its polls, its records
and its temporary folder are real. No program on Linux refuses to share a file, so the refusal is simulated.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.lab import Lab
from muxer.config import load_config
from muxer.system import files
from tests.support.calls import write_config
from tests.support.daemon import wait_until
from tests.support.in_process_site import SWITCHES, GeneratedRecordings, create_daemon

Make = Callable[..., Lab]
COUNT, SECONDS = 5, 60
RECORD_FOLDERS = ("publishing", "uploading", "deleting")


class PathRefusal:
    """Makes methods of Path fail for paths with `word`, as when a program on Windows locks the file."""

    def __init__(self, patch: pytest.MonkeyPatch, word: str, *methods: str) -> None:
        self.refused: set[str] = set()
        self.over = False
        for name in methods:
            patch.setattr(Path, name, self._refuse_paths(word, getattr(Path, name)))

    def _refuse_paths(self, word: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def refuse_held(path: Path, *args: Any, **kwargs: Any) -> Any:
            if word in str(path) and not self.over:
                self.refused.add(str(path))
                raise PermissionError(13, "it is being used by another process", str(path))
            return real(path, *args, **kwargs)

        return refuse_held


@contextmanager
def running_daemon(lab: Lab) -> Iterator[GeneratedRecordings]:
    """Run the daemon in a thread, with polls close to each other."""
    store, stop = GeneratedRecordings(lab, range(COUNT)), threading.Event()
    options = {"processing__min_poll_interval": "0.005", "processing__clean_temp_folder_timeout": "1"}
    config = load_config(write_config(lab, **options), {}, {}).config
    thread = threading.Thread(target=create_daemon(lab, config, stop).run, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def write_records(temp: Path, name: str) -> list[Path]:
    """Write a record of old, finished work into each folder of records."""
    for folder in RECORD_FOLDERS:
        (temp / folder).mkdir(parents=True, exist_ok=True)
        (temp / folder).chmod(0o700)
    place = {"storage": "webDAV", "folder": "http://storage.invalid/screens/", "name": "x.mp4", "bucket": ""}
    content = {
        "publishing": {"id": "recording-999999", "region": "r1", "mediaFiles": [{"mediaId": "x.mp4"}]},
        "uploading": {"place": place | {"storage": "awsS3", "bucket": "b"}, "upload": "1"},
        "deleting": {"recording": "recording-999999", "media": "x.mp4", "sources": ["a"], "place": place},
    }
    records = []
    for folder in RECORD_FOLDERS:
        records.append(temp / folder / name)
        records[-1].write_text(json.dumps(content[folder]))
    return records


@pytest.mark.parametrize("methods", [("read_text",), ("unlink", "replace")], ids=["reading", "deleting"])
def test_unusable_record_stops_nothing(
    make_lab: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, methods: tuple[str, ...]
) -> None:
    monkeypatch.setattr(files, "RETRY_SECONDS", 0.1)
    lab = make_lab(**SWITCHES)
    held = write_records(lab.folder / "temp", "shared.json")
    settled = [path for path in held if path.parent.name != "uploading"]
    refusal = PathRefusal(monkeypatch, "shared.json", *methods)
    with caplog.at_level(logging.INFO), running_daemon(lab) as store:
        wait_until(lambda: store.count_finished(store.alive) == COUNT and store.polls > 3, SECONDS, "all recordings")
        assert all(path.exists() for path in held)
        assert {str(path) for path in settled} <= refusal.refused
        assert all(str(path) in caplog.text for path in settled)
        refusal.over = True
        wait_until(lambda: not any(path.exists() for path in settled), SECONDS, "the end of the records")
    assert "unexpected error" not in caplog.text and "the poll thread ended with an unexpected error" not in caplog.text


def test_a_folder_in_place_of_a_record_stops_nothing(make_lab: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is simulated here: a folder cannot be read as a file."""
    lab = make_lab(**SWITCHES)
    held = write_records(lab.folder / "temp", "shared.json")
    for path in held:
        path.unlink()
        path.mkdir()
    good = write_records(lab.folder / "temp", "good.json")
    with caplog.at_level(logging.INFO), running_daemon(lab) as store:
        wait_until(lambda: store.count_finished(store.alive) == COUNT, SECONDS, "all recordings")
        wait_until(lambda: not good[0].exists() and not good[2].exists(), SECONDS, "the end of the good records")
    assert all(path.exists() and str(path) in caplog.text for path in (held[0], held[2]))
    assert "unexpected error" not in caplog.text


def test_locked_job_folder_stops_nothing(
    make_lab: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files, "RETRY_SECONDS", 0.1)
    lab = make_lab(**SWITCHES)
    left = lab.folder / "temp" / "muxer-job-abcdefgh"
    left.mkdir(parents=True)
    (left / "shared.mp4").touch()
    real, over = os.unlink, threading.Event()

    def refuse_unlink(path: Any, **kwargs: Any) -> None:
        if "shared.mp4" in str(path) and not over.is_set():
            raise PermissionError(13, "it is being used by another process", str(path))
        real(path, **kwargs)

    monkeypatch.setattr(os, "unlink", refuse_unlink)
    with caplog.at_level(logging.INFO), running_daemon(lab) as store:
        wait_until(lambda: store.count_finished(store.alive) == COUNT, SECONDS, "all recordings")
        assert left.exists() and str(left) in caplog.text
        over.set()
        wait_until(lambda: not left.exists(), SECONDS, "the end of the folder")
