"""Recordings with malicious ids, through the real process: each is muxed, and no other file is changed."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.build import AddedCall
from lab.cases import Case
from lab.lab import Lab
from tests.support.daemon import MuxerProcess, wait_until
from tests.support.muxer_runs import labelled_ids, log_messages, muxed_entries, write_config
from tests.support.read_only_sources import MUXED_NAME

Make = Callable[..., Lab]
TIMEOUT_SECONDS = 120
HOSTILE_IDS = [
    "../../../../tmp/escaped",
    "-rf --help",
    "a\0b\r\nX-Forged: yes\x1b[2J",
    "'\";$(touch escaped)`touch escaped`|&",
    "x?y=1&z#w%2e%2e/%00;v,with comma",
    "grüße ‮gpj.exe 🎧",
    "long" * 2_500,
]


def add_renamed(lab: Lab, call: AddedCall, recording_id: str, media_id: str | None = None) -> None:
    """Add a call again with another recording id and another media id."""
    recording = copy.deepcopy(lab.store.get_call(call.id) or {})
    screen = copy.deepcopy((lab.store.get_screen(call.id) or {})["mediaFiles"][0])
    recording["id"] = recording_id
    recording["mediaFiles"][0]["mediaId"] = f"{recording_id}.mp3"
    screen["mediaId"] = media_id or f"{recording_id}.mp4"
    screen["parameters"]["contact"]["userName"] = f"agent {recording_id[:50]}"
    lab.store.add_screen_media(recording_id, lab.region, screen)
    lab.store.add_call(recording)


def list_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_hostile_ids_are_treated_as_plain_ids(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab(encryption_group="empty")
    (call,) = lab.add_case(Case.PLAIN)
    before = list_files(tmp_path)
    for one in HOSTILE_IDS:
        add_renamed(lab, call, one)
    add_renamed(lab, call, "..")
    add_renamed(lab, call, "dots", media_id="..")
    config, log = write_config(lab, logfile__format="text", logfile__level="debug")
    with MuxerProcess(config, cwd=config.parent) as muxer:
        wait_until(lambda: labelled_ids(lab) >= {call.id, *HOSTILE_IDS}, TIMEOUT_SECONDS, "the labels", log)
        assert muxer.stop() == 0
    entries = {one: muxed_entries(lab, one) for one in (call.id, *HOSTILE_IDS)}
    assert {len(found) for found in entries.values()} == {1}
    assert muxed_entries(lab, "dots") == [] and not labelled_ids(lab) - {call.id, *HOSTILE_IDS}
    for one, (entry,) in entries.items():
        assert MUXED_NAME.search(entry["mediaId"]) and len(entry["mediaId"]) < 100 and entry["mediaId"].isascii()
        assert one == call.id or entry["parameters"]["muxed_mediaIds"] == [f"{one}.mp3", f"{one}.mp4"]
    published = {f"lab-0/dav/screens/{entry['mediaId']}" for (entry,) in entries.values()}
    own = re.compile(r"lab-0/(log/|temp/(journal|muxer\.lock|padding/)|muxer\.cfg)")
    assert {path for path in list_files(tmp_path) - before if not own.match(path)} == published
    text = log.read_text()
    assert "a recording has no usable id: '..'" in text and "a screen file has no usable mediaId" in text
    assert "bulk" not in text and not {"\x1b", "\0", "\r", "\u202e"} & set(text)
    assert not [line for line in text.splitlines() if not re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z [A-Z]+ ", line)]


def test_descriptor_to_another_server_fails_only_its_recording(make_lab: Make) -> None:
    lab = make_lab(encryption_group="empty")
    (call,) = lab.add_case(Case.PLAIN)
    foreign: list[dict[str, Any]] = [
        {"storage": "webDAV", "path": "http://93.184.216.34:8080/x.mp4"},
        {"storage": "webDAV", "path": "file:///etc/passwd"},
        {"storage": "ftp", "path": "ftp://x/y"},
        {"storage": "webDAV", "path": "s.mp4", "data": {"storagePath": "http://8.8.8.8/r/"}},
    ]
    for number, descriptor in enumerate(foreign):
        add_renamed(lab, call, f"bad-{number}")
        (media,) = (lab.store.get_screen(f"bad-{number}") or {})["mediaFiles"]
        lab.store.delete_screen_media(f"bad-{number}", media["mediaId"])
        lab.store.add_screen_media(f"bad-{number}", lab.region, {**media, "originalMediaDescriptor": descriptor})
    config, log = write_config(lab, processing__min_poll_interval="0.02")
    refused = [r"AccessDenied: .* 93\.184\.216\.34 .*\[webdav\] hosts", r"AccessDenied: .* 8\.8\.8\.8 .*\[webdav\] hosts"]
    refused += [r"MetadataError: .* http or https address: .*etc", r"MetadataError: .*'ftp'"]

    def all_logged() -> bool:
        messages = log_messages(log)
        return all(any(re.search(one, line) for line in messages) for one in refused)

    with MuxerProcess(config) as muxer:
        wait_until(lambda: labelled_ids(lab) >= {call.id} and all_logged(), TIMEOUT_SECONDS, "all outcomes", log)
        assert muxer.stop() == 0
    assert labelled_ids(lab) == {call.id}
