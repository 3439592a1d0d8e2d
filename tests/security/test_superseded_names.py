"""Entries that falsely list a file as superseded: one of another recording or in use is not deleted."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest

from muxer.gir.models import CallRecording, MediaFile, ScreenRecording, format_time
from muxer.gir.muxed_names import muxed_name
from muxer.gir.targets import select_targets

Json = dict[str, Any]
BEGIN, END = (format_time(datetime(2024, 1, 2, 10, minute, tzinfo=UTC)) for minute in (0, 1))


def audio_entry(media_id: str = "a.mp3") -> Json:
    return {"mediaId": media_id, "type": "audio/mp3", "startTime": BEGIN, "stopTime": END}


def screen_entry(media_id: str) -> Json:
    return audio_entry(media_id) | {"type": "video/mp4"}


def muxed_entry(media_id: str, sources: list[str]) -> Json:
    return screen_entry(media_id) | {"parameters": {"muxed_mediaIds": sources}}


def superseded_files(call_audio: Json, screens: list[Json], recording_id: str = "C1") -> tuple[MediaFile, ...]:
    call = CallRecording.from_json({"id": recording_id, "mediaFiles": [call_audio]})
    recording = ScreenRecording.from_json({"id": recording_id, "mediaFiles": screens})
    (target,) = select_targets(call, recording, delete_superseded=True, label=True).targets
    return target.superseded


def test_a_file_of_the_same_recording_is_superseded() -> None:
    name = muxed_name("C1", ["a.mp3", "s1"])
    files = [screen_entry("s1"), screen_entry("s2"), muxed_entry(name, ["a.mp3", "s1"])]
    assert [file.media_id for file in superseded_files(audio_entry(), files)] == [name]


LONG_ID = "x" * 64


@pytest.mark.parametrize(
    ("own_id", "audio_id", "screen_ids", "listed", "digested"),
    [
        ("GIR_0001", "GIR:0001", ["s1", "s2"], ["GIR:0001", "s1"], ["GIR:0001", "s1"]),
        ("GIR_0001", "GIR:0001\0s1", ["s2", "s3"], ["GIR:0001\0s1", "s2"], ["GIR:0001", "s1", "s2"]),
        (f"{LONG_ID}_a.mp3", f"{LONG_ID}_s1", ["s2"], [f"{LONG_ID}_s1"], [f"{LONG_ID}_a.mp3", f"{LONG_ID}_s1"]),
    ],
)
def test_a_source_named_like_another_recording_does_not_make_its_earlier_file_ours(
    own_id: str, audio_id: str, screen_ids: list[str], listed: list[str], digested: list[str]
) -> None:
    name = f"{own_id[:64]}_{hashlib.sha256(chr(0).join(digested).encode()).hexdigest()[:20]}_muxed.mp4"
    files = [*map(screen_entry, screen_ids), muxed_entry(name, listed)]
    assert superseded_files(audio_entry(audio_id), files, own_id) == ()


@pytest.mark.parametrize("own_id", ["C:\0", "C:\0\0"])
def test_an_id_with_the_separator_of_the_digest_does_not_make_the_file_of_another_ours(own_id: str) -> None:
    name = muxed_name(own_id[:-1], ["a.mp3", "s1"])
    files = [screen_entry("s1"), screen_entry("s2"), muxed_entry(name, ["a.mp3", "s1"])]
    assert superseded_files(audio_entry(), files, own_id) == ()


def test_a_file_still_in_use_is_not_superseded_under_the_name_of_another_entry() -> None:
    used = muxed_name("C1", ["a.mp3", "s1"])
    forged = muxed_name("C1", ["a.mp3", "s1"], ((1, 2),))
    descriptor = {"storage": "webDAV", "path": used, "data": {"storagePath": "http://dav/screens/"}}
    entry = muxed_entry(forged, ["a.mp3", "s1"]) | {"originalMediaDescriptor": descriptor}
    assert superseded_files(audio_entry(), [screen_entry("s1"), muxed_entry(used, ["a.mp3", "s1"]), entry]) == ()
