"""Recordings and media files as RWS returns them (gir-api, sections 3 to 5)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxer.errors import MetadataError
from muxer.gir.models import (
    CallRecording,
    MediaFile,
    ScreenRecording,
    format_time,
    merge_recordings,
    to_microseconds,
)
from muxer.system.iso_time import parse_time

MOMENT = datetime(2015, 9, 10, 16, 58, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2015-09-10T16:58:22.000+0000",
        "2015-09-10T16:58:22.000Z",
        "2015-09-10T16:58:22Z",
        "2015-09-10T18:58:22.000+0200",
        "2015-09-10T18:58:22.000+02:00",
        "2015-09-10T11:28:22.000-0530",
        " 2015-09-10T16:58:22.000+0000 ",
    ],
)
def test_a_time_is_read_in_every_form(text: str) -> None:
    read = parse_time(text)
    assert read == MOMENT
    assert read is not None
    assert read.utcoffset() == timedelta(0)


@pytest.mark.parametrize("value", [None, "", "soon", 1441904302000, "2015-13-10T16:58:22Z", "0001-01-01T00:00:00+1400", []])
def test_a_malformed_time_is_ignored(value: object) -> None:
    assert parse_time(value) is None


def test_a_time_is_written_as_rws_writes_it() -> None:
    assert format_time(MOMENT) == "2015-09-10T16:58:22.000+0000"
    east = MOMENT.astimezone(timezone(timedelta(hours=2))) + timedelta(microseconds=120_999)
    assert format_time(east) == "2015-09-10T16:58:22.120+0000"


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_a_time_is_read_back_to_the_millisecond(time: datetime) -> None:
    read = parse_time(format_time(time))
    assert read == time.replace(microsecond=time.microsecond // 1000 * 1000)
    assert datetime.fromtimestamp(0, UTC) + timedelta(microseconds=to_microseconds(time)) == time


@given(st.text())
def test_any_text_is_read_as_a_time_or_refused(text: str) -> None:
    read = parse_time(text)
    assert read is None or read.tzinfo is UTC


def media_file(**fields: Any) -> MediaFile:
    return MediaFile.from_json({"mediaId": "m", "type": "video/mp4", **fields})


def time_at(seconds: float) -> str:
    return format_time(MOMENT + timedelta(seconds=seconds))


def test_a_media_file_without_a_media_id_is_not_a_source_and_is_kept() -> None:
    for raw in ({"type": "video/mp4"}, {"type": "video/mp4", "mediaId": ""}, {"type": "video/mp4", "mediaId": 7}):
        recording = ScreenRecording.from_json({"id": "C1", "mediaFiles": [raw]})
        assert recording.screen_files == recording.muxed_files == ()
        assert [file.raw for file in recording.media] == [raw]


def test_the_json_of_a_media_file_is_kept_untouched() -> None:
    raw = {"mediaId": "m", "masks": [1], "partitions": ["/"], "accessgroups": ["g"], "size": "5", "duration": "3"}
    assert MediaFile.from_json(raw).raw == raw


def test_the_agent_and_the_region_are_read_from_the_parameters() -> None:
    one = media_file(parameters={"region": "r1", "contact": {"userName": "agent1", "firstName": "A"}})
    assert (one.agent_name, one.region, one.agent_contact["firstName"]) == ("agent1", "r1", "A")
    assert (media_file().agent_name, media_file().region, media_file(parameters="x").agent_name) == ("", "", "")


def test_a_file_with_muxed_media_ids_is_a_muxed_file_and_not_a_source() -> None:
    assert media_file(parameters={"muxed_mediaIds": ["a.mp3", "s.mp4"]}).muxed_from == ("a.mp3", "s.mp4")
    assert media_file(parameters={}).muxed_from is None


@pytest.mark.parametrize(("value", "encrypted"), [("-----BEGIN PKCS7-----", True), ("", False), (" ", False), (None, False)])
def test_only_encrypted_media_have_an_envelope(value: str | None, encrypted: bool) -> None:
    assert (media_file(pkcs7=value).pkcs7_envelope is not None) is encrypted


@pytest.mark.parametrize("key", ["originalMediaDescriptor", "mediaDescriptor"])
def test_the_descriptor_is_read_under_both_of_its_names(key: str) -> None:
    assert media_file(**{key: {"storage": "webDAV"}}).media_descriptor == {"storage": "webDAV"}


def test_the_descriptor_of_the_original_takes_precedence() -> None:
    both = media_file(mediaDescriptor={"path": "b"}, originalMediaDescriptor={"path": "a"})
    assert both.media_descriptor == {"path": "a"}


@pytest.mark.parametrize("value", [None, {}, "text", []])
def test_an_unusable_descriptor_is_ignored(value: object) -> None:
    assert media_file(originalMediaDescriptor=value).media_descriptor is None


@pytest.mark.parametrize("value", ["280576", 280576, " 280576 "])
def test_a_size_is_read_as_text_or_number(value: object) -> None:
    assert MediaFile.from_json({"mediaId": "a", "size": value}).stated_size == 280576


@pytest.mark.parametrize("value", [None, "", "-1", "2.5 MB", "9" * 5000, [1]])
def test_a_size_that_is_not_a_number_is_unknown(value: object) -> None:
    assert MediaFile.from_json({"mediaId": "a", "size": value}).stated_size == 0


def test_the_address_through_rws_has_two_names() -> None:
    assert media_file(mediaUri="/a").media_uri == "/a"
    assert media_file(mediaPath="/b").media_uri == "/b"
    assert media_file().media_uri is None


@pytest.mark.parametrize(
    ("first", "second", "overlap"),
    [
        ((0, 10), (5, 15), True),
        ((0, 10), (2, 3), True),
        ((0, 10), (10, 20), False),
        ((0, 10), (11, 20), False),
        ((0, None), (100, 110), True),
        ((200, None), (100, 110), False),
    ],
)
def test_files_overlap_when_they_share_a_time_span(
    first: tuple[int, int | None], second: tuple[int, int | None], overlap: bool
) -> None:
    one, other = (
        media_file(startTime=time_at(start), stopTime=None if stop is None else time_at(stop))
        for start, stop in (first, second)
    )
    assert one.overlaps_with(other) is overlap
    assert other.overlaps_with(one) is overlap


def test_a_file_without_a_start_overlaps_nothing() -> None:
    assert not media_file(stopTime=time_at(9)).overlaps_with(media_file(startTime=time_at(0), stopTime=time_at(9)))


@pytest.mark.parametrize("stop", [0, -5])
def test_a_stop_that_is_not_after_the_start_is_unknown(stop: int) -> None:
    assert media_file(startTime=time_at(0), stopTime=time_at(stop)).stop is None


@pytest.mark.parametrize("kind", ["audio/mp3", "audio/mpeg3", "audio/wav", "Audio/MPEG"])
def test_any_audio_is_the_audio_of_a_call(kind: str) -> None:
    files = [{"mediaId": "a", "type": kind}, {"mediaId": "v", "type": "video/x"}]
    call = CallRecording.from_json({"id": "C1", "mediaFiles": files})
    assert [file.media_id for file in call.audio] == ["a"]


@pytest.mark.parametrize("labels", [[{"name": "screenRecording", "x": 1}], ["screenRecording"]])
def test_labels_are_read(labels: list[object]) -> None:
    assert CallRecording.from_json({"id": "C1", "labels": labels}).labels == {"screenRecording"}


@pytest.mark.parametrize("field", ["mediaFiles", "labels"])
@pytest.mark.parametrize("value", [None, "x", {}, [None, 7]])
def test_a_malformed_field_does_not_make_the_reader_fail(field: str, value: object) -> None:
    assert CallRecording.from_json({"id": "C1", field: value}).audio == ()


@pytest.mark.parametrize("raw", [None, [], {}, {"id": ""}, {"id": 5}, {"id": "."}, {"id": ".."}])
def test_a_recording_without_a_usable_id_is_refused(raw: object) -> None:
    for kind in (CallRecording, ScreenRecording):
        with pytest.raises(MetadataError):
            kind.from_json(raw)


@pytest.mark.parametrize("kind", [CallRecording, ScreenRecording])
def test_a_media_file_without_an_id_does_not_affect_the_others(kind: type[CallRecording] | type[ScreenRecording]) -> None:
    good = {"mediaId": "m", "type": "audio/mp3" if kind is CallRecording else "video/mp4"}
    recording = kind.from_json({"id": "C1", "mediaFiles": [{"type": "audio/mp3"}, good]})
    files = recording.audio if isinstance(recording, CallRecording) else recording.screen_files
    assert [file.media_id for file in files] == ["m"]


def test_screens_and_muxed_files_are_distinguished() -> None:
    muxed_file = {"mediaId": "x_muxed.mp4", "type": "video/mp4", "parameters": {"muxed_mediaIds": ["a", "s"]}}
    screen = ScreenRecording.from_json(
        {"id": "C1", "mediaFiles": [{"mediaId": "s", "type": "video/mp4"}, muxed_file, {"mediaId": "t", "type": "text/x"}]}
    )
    assert [file.media_id for file in screen.screen_files] == ["s"]
    assert [item.media_id for item in screen.muxed_files] == ["x_muxed.mp4"]


def test_two_parts_of_a_screen_recording_are_merged() -> None:
    def screen_part(*ids: str) -> ScreenRecording:
        return ScreenRecording.from_json(
            {"id": "C1", "mediaFiles": [{"mediaId": recording_id, "type": "video/mp4"} for recording_id in ids]}
        )

    (whole,) = merge_recordings([screen_part("a", "b"), screen_part("b", "c")]).values()
    assert [file.media_id for file in whole.media] == ["a", "b", "c"]
