"""Hostile metadata: no content of them does harm (SECURITY.md)."""

from __future__ import annotations

import logging
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from muxer.errors import LocalResourceError, MetadataError, RequestRejected
from muxer.gir.models import MAX_MEDIA_FILES, CallRecording, MediaFile, ScreenRecording
from muxer.gir.muxed_names import muxed_name
from muxer.gir.session import ServiceAccount, ServiceSession
from muxer.gir.targets import select_targets
from muxer.journal.journal import MAX_REASON_LENGTH, Journal, TargetKey
from muxer.log import setup
from muxer.net.transfer import content_length, receive_file
from muxer.pipeline.job import _location_next_to_sources
from muxer.storage.base import parse_descriptor
from muxer.system.iso_time import parse_time
from muxer.system.masking import Mask
from muxer.system.process import Runner

Json = dict[str, Any]
TIMES = {"startTime": "2024-01-02T10:00:00.000+0000", "stopTime": "2024-01-02T10:01:00.000+0000"}
LONE_SURROGATE = "half \ud800"


def audio_entry(media_id: str = "a.mp3", **fields: Any) -> Json:
    return {"mediaId": media_id, "type": "audio/mp3", **TIMES, **fields}


def screen_entry(media_id: str, **fields: Any) -> Json:
    return {"mediaId": media_id, "type": "video/mp4", **TIMES, **fields}


def muxed_entry(media_id: str, *sources: str, **fields: Any) -> Json:
    return screen_entry(media_id, parameters={"muxed_mediaIds": list(sources)}, **fields)


def select_from_json(call: list[Json], screens: list[Json]) -> Any:
    recordings = ({"id": "C1", "mediaFiles": files} for files in (call, screens))
    return select_targets(
        CallRecording.from_json(next(recordings)),
        ScreenRecording.from_json(next(recordings)),
        delete_superseded=True,
        label=True,
    )


def dav_descriptor(path: str) -> Json:
    return {"originalMediaDescriptor": {"storage": "webDAV", "path": path, "data": {"storagePath": "http://dav/r/"}}}


# --- sources are never deleted or overwritten ---

# The names of a muxed file of this recording that contains only its audio.
MUXED_NAME = muxed_name("C1", ["a.mp3"])
STORED, OWN = (MUXED_NAME.replace("_muxed", f"-{number}_muxed") for number in (2, 3))


@pytest.mark.parametrize(
    "entry",
    [
        muxed_entry(OWN, "a.mp3"),
        muxed_entry("a.mp3", "a.mp3"),
        muxed_entry(MUXED_NAME, "a.mp3", **dav_descriptor(STORED)),
        muxed_entry(MUXED_NAME, "a.mp3", **dav_descriptor(f"/{STORED}")),
        muxed_entry(
            MUXED_NAME, "a.mp3", originalMediaDescriptor={"storage": "webDAV", "path": f"http://DAV:80/r/%43{STORED[1:]}"}
        ),
        muxed_entry(MUXED_NAME, "a.mp3", originalMediaDescriptor={"storage": "awsS3", "path": f"k/{STORED}"}),
    ],
)
def test_an_entry_that_lists_a_source_as_superseded_is_not_deleted(entry: Json) -> None:
    source = screen_entry(OWN, **dav_descriptor(STORED))
    (target,) = select_from_json([audio_entry()], [source, entry]).targets
    assert target.superseded == ()
    (target,) = select_from_json([audio_entry()], [source, muxed_entry(MUXED_NAME, "a.mp3")]).targets
    assert [media.media_id for media in target.superseded] == [MUXED_NAME]


def test_a_source_with_the_name_of_the_muxed_file_is_not_overwritten() -> None:
    (target,) = select_from_json([audio_entry()], [screen_entry("s.mp4", **dav_descriptor("stored.mp4"))]).targets
    where = parse_descriptor(dav_descriptor("stored.mp4")["originalMediaDescriptor"])
    assert _location_next_to_sources(target, where, target.file_name).name == target.file_name
    (target,) = select_from_json([audio_entry()], [screen_entry("s.mp4", **dav_descriptor(target.file_name))]).targets
    with pytest.raises(MetadataError, match="has the name of the muxed file"):
        _location_next_to_sources(target, where, target.file_name)


# --- ids ---


@pytest.mark.parametrize("media_id", [".", "..", "", LONE_SURROGATE, 7, None, ["x"], {"a": 1}])
def test_a_media_id_that_is_unsafe_in_an_address_is_ignored(media_id: object) -> None:
    """``..`` would be resolved: a deletion would hit the parent path."""
    assert MediaFile.from_json({"mediaId": media_id}).media_id == ""
    selection = select_from_json([audio_entry()], [screen_entry(media_id)])
    assert selection.targets == () and selection.problems == ("a screen file has no usable mediaId",)


@pytest.mark.parametrize("media_id", ["../../x", "a\0b", "-rf", "a\r\nb", "'\"`$(id)", "a/b?c#d%41", "x" * 10_000, "‮gpj"])
def test_any_other_id_is_only_an_id(media_id: str) -> None:
    (target,) = select_from_json([audio_entry()], [screen_entry(media_id)]).targets
    assert target.source_ids == ("a.mp3", media_id)
    assert target.file_name.startswith("C1_") and len(target.file_name) < 100 and target.file_name.isprintable()


@pytest.mark.parametrize("value", ["1969-12-31T23:59:59Z", "2201-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01"])
def test_a_time_outside_the_valid_range_is_ignored(value: str) -> None:
    assert parse_time(value) is None


def test_absurd_sizes_are_numbers_all_the_same(tmp_path: Path) -> None:
    for size in ("9" * 400, 10**400, "9" * 5000, "-5", "1e9", 3.5, True, [], {}):
        assert 0 <= MediaFile.from_json({"size": size}).stated_size <= 1 << 60
    from muxer.pipeline.disk_space import TempDisk

    with pytest.raises(LocalResourceError, match="it needs about"):
        TempDisk(tmp_path, 0).ensure_room([MediaFile.from_json({"size": "9" * 400}).stated_size])


@pytest.mark.parametrize("read", [CallRecording.from_json, ScreenRecording.from_json])
def test_a_recording_of_too_many_files_is_refused(read: Any) -> None:
    files = [audio_entry(f"a{number}") for number in range(MAX_MEDIA_FILES + 1)]
    assert read({"id": "C1", "mediaFiles": files[1:]}).id == "C1"
    with pytest.raises(MetadataError, match=f"C1 has {MAX_MEDIA_FILES + 1} media files; at most {MAX_MEDIA_FILES}"):
        read({"id": "C1", "mediaFiles": files})


@pytest.mark.parametrize("field", ["path", "storagePath"])
def test_lone_surrogates_in_a_descriptor_are_refused(field: str) -> None:
    values = {"path": "x.mp4", "storagePath": "http://dav/r/", field: LONE_SURROGATE}
    with pytest.raises(MetadataError):
        parse_descriptor({"storage": "webDAV", "path": values["path"], "data": {"storagePath": values["storagePath"]}})


# --- values in responses ---


@pytest.mark.parametrize("link", ["http://[::1", "//["])
def test_a_malformed_link_is_refused(link: str) -> None:
    session = ServiceSession(ServiceAccount("RWS", "http://127.0.0.1:9", "u", "p", False, 30), threading.Event())
    for attempt in (lambda: session.get(link), lambda: session.download_media(link, Path("x"))):
        with pytest.raises(RequestRejected, match="malformed"):
            attempt()


@pytest.mark.parametrize(("text", "length"), [("5", 5), ("0", 0), ("", None), ("-5", None), ("²", None), ("9" * 5000, None)])
def test_only_a_number_is_a_length(text: str, length: int | None) -> None:
    assert content_length(text) == length


def test_a_download_larger_than_the_disk_is_not_started(tmp_path: Path) -> None:
    def unread_chunks() -> Any:
        raise AssertionError("it was read")
        yield b""

    with pytest.raises(LocalResourceError, match="are free in"):
        receive_file(unread_chunks(), tmp_path / "x", expected=1 << 60, source="WebDAV", stop=threading.Event())
    assert not (tmp_path / "x").exists()


# --- stored and logged text ---


def test_the_journal_keeps_any_reason_without_secrets(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", Mask(["pass word%1"]))
    echoed = f"HTTP 500, {LONE_SURROGATE} your password pass word%1 (pass%20word%251) at http://u:p@dav/x {'x' * 10_000}"
    journal.record_failure(TargetKey("n\0ame", "C\0\n1", "agent"), RequestRejected(echoed), 5.0)
    journal.close()
    ((reason, recording),) = sqlite3.connect(tmp_path / "journal").execute("SELECT reason, recording FROM targets")
    assert "HTTP 500" in reason and len(reason) == MAX_REASON_LENGTH and recording == "C\0\n1"
    assert not [value for value in ("pass word", "pass%20", "u:p@", "\ud800") if value in reason]


@pytest.mark.parametrize("form", ["json", "text"])
def test_any_text_becomes_one_line_of_the_log(tmp_path: Path, form: str) -> None:
    from muxer.config.schema import LogfileOptions
    from muxer.log.outputs import log_path_for

    options = LogfileOptions(tmp_path, "debug", form, 1_000_000, 1)
    setup.set_up_logging(options, "single", ())
    path = log_path_for(options, "single")
    with setup.recording_context("C\x1b[2J" + "x" * 10_000):
        forged = f"{LONE_SURROGATE}\r\n2026-01-01T00:00:00.000Z ERROR forged"
        logging.getLogger("muxer").error("%s", forged, extra={"fields": {"a": LONE_SURROGATE}})
        try:
            raise ValueError("one\n2026-01-01T00:00:00.000Z ERROR forged \x1b[2J")
        except ValueError:
            logging.getLogger("muxer").exception("unexpected")
    logging.shutdown()
    text = path.read_text(encoding="utf-8")
    assert "\x1b" not in text and "\r" not in text and len(text) < 5000
    assert not [line for line in text.splitlines() if line.startswith("2026-01-01")]
    assert "half " in text and "unexpected" in text


@pytest.mark.posix
def test_programs_do_not_inherit_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ("HTCC_PASSWORD", "S3_SECRET_ACCESS_KEY", "FLEET_BROKER_URL")
    for name in (*ours, "AWS_ACCESS_KEY_ID", "CREDENTIALS_DIRECTORY", "SESSION_TOKEN"):
        monkeypatch.setenv(name, "a secret")
    monkeypatch.setenv("HARMLESS", "shown")
    for program in ("", "env"):
        printed = Runner(program).run(["env"], timeout=10).decode()
        assert "HARMLESS=shown" in printed and "PATH=" in printed and "a secret" not in printed
