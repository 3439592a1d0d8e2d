"""Whether a fetched file may still be incomplete, by its stated size and the time since it last grew."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from muxer.errors import MediaIncomplete
from muxer.gir.models import MediaFile
from muxer.journal.retry_policy import RetryPolicy, classify_error
from muxer.media.analyze.arrival import Arrival, MediaInput
from muxer.net.transfer import ReceivedLength, modified_at
from muxer.pipeline.incomplete_sources import MAX_NOTE_AGE_SECONDS, MAX_NOTES, ArrivalTracker, FetchedFile

CONTENT = b"\xff\xfb" + bytes(998)
RECORDING_ID = "call-1"


class ManualClock:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def incoming(tmp_path: Path, clock: ManualClock) -> ArrivalTracker:
    return ArrivalTracker(tmp_path / "incoming", 60, clock=clock)


def fetched_file(
    folder: Path,
    size: object,
    content: bytes = CONTENT,
    *,
    name: str = "a.mp3",
    is_call: bool = True,
    decrypted: bool = False,
    modified: float | None = None,
) -> FetchedFile:
    (path := folder / name).write_bytes(content)
    raw: dict[str, Any] = {"mediaId": name, "type": "audio/mp3", "startTime": "2024-01-02T10:00:00Z", "size": size}
    return FetchedFile(MediaFile.from_json(raw), path, ReceivedLength(len(content), modified), is_call, decrypted)


def judge_files(incoming: ArrivalTracker, *files: FetchedFile) -> list[tuple[Arrival, str]]:
    return [(arrival.arrival, arrival.shortfall) for arrival in incoming.check_arrival(RECORDING_ID, files)]


def fail_muxing(incoming: ArrivalTracker, *sources: MediaInput) -> MediaIncomplete:
    """Let muxing fail because the first source is incomplete; return the error."""
    with pytest.raises(MediaIncomplete) as caught, incoming.track_muxing(RECORDING_ID, sources):
        raise MediaIncomplete(f"{sources[0].name}: half", sources[0].name)
    return caught.value


@pytest.mark.parametrize("size", ["45", "", None, "0", "-3", "1.5", "many", 2000, "2000"])
def test_a_size_that_no_file_of_the_site_has_is_not_credible(incoming: ArrivalTracker, tmp_path: Path, size: object) -> None:
    assert judge_files(incoming, fetched_file(tmp_path, size)) == [(Arrival.GROWING, "")]


def test_a_size_is_credible_when_some_file_has_it(incoming: ArrivalTracker, tmp_path: Path) -> None:
    assert judge_files(incoming, fetched_file(tmp_path, 1000)) == [(Arrival.COMPLETE, "")]
    assert judge_files(incoming, fetched_file(tmp_path, "2000")) == [(Arrival.GROWING, "1000 of 2000 bytes are there")]
    assert judge_files(incoming, fetched_file(tmp_path, "")) == [(Arrival.GROWING, "")]
    assert judge_files(incoming, fetched_file(tmp_path, "45")) == [(Arrival.GROWING, "")]


def test_calls_and_screens_are_credible_apart(incoming: ArrivalTracker, tmp_path: Path) -> None:
    screen, call = fetched_file(tmp_path, 1000, is_call=False, name="s.mp4"), fetched_file(tmp_path, 2000)
    assert judge_files(incoming, call, screen) == [(Arrival.GROWING, ""), (Arrival.COMPLETE, "")]


def test_one_file_of_a_recording_makes_the_sizes_of_the_others_credible(incoming: ArrivalTracker, tmp_path: Path) -> None:
    half, whole = (fetched_file(tmp_path, size, name=f"{size}.mp4", is_call=False) for size in (2000, 1000))
    assert judge_files(incoming, half, whole) == [(Arrival.GROWING, "1000 of 2000 bytes are there"), (Arrival.COMPLETE, "")]


@pytest.mark.parametrize(
    ("size", "arrival", "lacks"),
    [
        (1000, Arrival.GROWING, False),  # not a possible ciphertext length
        (1001, Arrival.COMPLETE, False),
        (1008, Arrival.COMPLETE, False),
        (1016, Arrival.COMPLETE, False),
        (1017, Arrival.GROWING, True),
        (2000, Arrival.GROWING, True),
    ],
)
def test_the_size_of_an_encrypted_file_is_that_of_its_ciphertext(
    incoming: ArrivalTracker, tmp_path: Path, size: int, arrival: Arrival, lacks: bool
) -> None:
    incoming.check_arrival(RECORDING_ID, [fetched_file(tmp_path, 1008, decrypted=True)])
    ((found, shortfall),) = judge_files(incoming, fetched_file(tmp_path, size, decrypted=True))
    assert (found, bool(shortfall)) == (arrival, lacks)


def test_an_error_page_is_not_incomplete(incoming: ArrivalTracker, tmp_path: Path) -> None:
    incoming.check_arrival(RECORDING_ID, [fetched_file(tmp_path, 1000)])
    assert judge_files(incoming, fetched_file(tmp_path, 2000, b"<html>not found</html>")) == [(Arrival.GROWING, "")]
    assert judge_files(incoming, fetched_file(tmp_path, 2000, b"")) == [(Arrival.GROWING, "0 of 2000 bytes are there")]


def test_a_file_that_does_not_grow_settles_over_restarts(tmp_path: Path, clock: ManualClock) -> None:
    def judge_once(content: bytes = CONTENT) -> MediaInput:
        incoming = ArrivalTracker(tmp_path / "incoming", 60, clock=clock)
        (source,) = incoming.check_arrival(RECORDING_ID, [fetched_file(tmp_path, 0, content)])
        if source.arrival is Arrival.GROWING:
            fail_muxing(incoming, source)
        return source

    assert judge_once().arrival is Arrival.GROWING
    clock.now += 3599
    assert judge_once().arrival is Arrival.GROWING
    clock.now += 1
    assert judge_once().arrival is Arrival.SETTLED
    assert judge_once(CONTENT * 2).arrival is Arrival.GROWING
    clock.now += 3599
    assert judge_once(CONTENT * 2).arrival is Arrival.GROWING
    clock.now += 1
    assert judge_once(CONTENT * 2).arrival is Arrival.SETTLED


def test_all_files_of_a_recording_are_noted_when_one_is_incomplete(
    incoming: ArrivalTracker, tmp_path: Path, clock: ManualClock
) -> None:
    files = [fetched_file(tmp_path, 0), fetched_file(tmp_path, 0, name="s.mp4", is_call=False)]
    fail_muxing(incoming, *incoming.check_arrival(RECORDING_ID, files))
    clock.now += 3600
    assert judge_files(incoming, *files) == [(Arrival.SETTLED, "")] * 2
    assert [arrival.arrival for arrival in incoming.check_arrival("another", files)] == [Arrival.GROWING] * 2
    incoming.forget_files(RECORDING_ID, ["a.mp3", "s.mp4"])
    assert judge_files(incoming, *files) == [(Arrival.GROWING, "")] * 2


def test_the_storage_may_know_that_a_file_has_changed_later(
    incoming: ArrivalTracker, tmp_path: Path, clock: ManualClock
) -> None:
    fail_muxing(incoming, *incoming.check_arrival(RECORDING_ID, [fetched_file(tmp_path, 0)]))
    clock.now += 4000
    ages = {100: Arrival.GROWING, 3599: Arrival.GROWING, 3600: Arrival.SETTLED, 99_999: Arrival.SETTLED}
    for age, arrival in ages.items():
        assert judge_files(incoming, fetched_file(tmp_path, 0, modified=clock.now - age)) == [(arrival, "")]


def test_with_a_single_look_the_storage_alone_states_the_age(tmp_path: Path, clock: ManualClock) -> None:
    incoming = ArrivalTracker(tmp_path / "incoming", 60, single_look=True, clock=clock)
    for age, arrival in ((3600, Arrival.SETTLED), (3599, Arrival.GROWING)):
        assert judge_files(incoming, fetched_file(tmp_path, 0, modified=clock.now - age)) == [(arrival, "")]
    assert judge_files(incoming, fetched_file(tmp_path, 0)) == [(Arrival.GROWING, "")]


def test_with_zero_minutes_no_file_is_waited_for(tmp_path: Path) -> None:
    incoming = ArrivalTracker(tmp_path / "incoming", 0)
    assert judge_files(incoming, fetched_file(tmp_path, 0)) == [(Arrival.SETTLED, "")]
    assert judge_files(incoming, fetched_file(tmp_path, 1000)) == [(Arrival.COMPLETE, "")]
    assert judge_files(incoming, fetched_file(tmp_path, 2000)) == [(Arrival.SETTLED, "1000 of 2000 bytes are there")]
    broken = b"\0\0\0\x18ftypisom" + bytes(12) + b"\0\0\x80\0mdat" + bytes(100)
    assert judge_files(incoming, fetched_file(tmp_path, len(broken), broken)) == [(Arrival.SETTLED, "")]


def test_each_length_is_warned_about_once(incoming: ArrivalTracker, tmp_path: Path) -> None:
    (source,) = incoming.check_arrival(RECORDING_ID, [fetched_file(tmp_path, 0)])
    errors = [fail_muxing(incoming, source) for _ in range(3)]
    assert [error.warned_once for error in errors] == [False, True, True]
    assert "waiting until it has not grown for 60 minutes" in str(errors[0])
    assert classify_error(errors[0]).when is RetryPolicy.NEXT_POLL and classify_error(errors[0]).code == "MUX-222"
    (grown,) = incoming.check_arrival(RECORDING_ID, [fetched_file(tmp_path, 0, CONTENT * 2)])
    assert fail_muxing(incoming, grown).warned_once is False


@pytest.mark.parametrize("kept", ["", "[]", "{}", '{"length": "x"}', '{"length": 1000, "since": "now"}', "\x00"])
def test_an_unreadable_record_is_ignored(incoming: ArrivalTracker, tmp_path: Path, clock: ManualClock, kept: str) -> None:
    (source,) = incoming.check_arrival(RECORDING_ID, [fetched_file(tmp_path, 0)])
    fail_muxing(incoming, source)
    (note,) = (tmp_path / "incoming").iterdir()
    note.write_text(kept)
    clock.now += 3600
    (source,) = incoming.check_arrival(RECORDING_ID, [fetched_file(tmp_path, 0)])
    assert source.arrival is Arrival.GROWING
    fail_muxing(incoming, source)
    assert json.loads(note.read_text()) == {"length": 1000, "since": clock.now}


def test_a_clock_that_was_set_back_does_not_keep_a_file_waiting(
    incoming: ArrivalTracker, tmp_path: Path, clock: ManualClock
) -> None:
    fail_muxing(incoming, *incoming.check_arrival(RECORDING_ID, [fetched_file(tmp_path, 0)]))
    clock.now -= 500_000
    fail_muxing(incoming, *incoming.check_arrival(RECORDING_ID, [fetched_file(tmp_path, 0)]))
    clock.now += 3600
    assert judge_files(incoming, fetched_file(tmp_path, 0)) == [(Arrival.SETTLED, "")]


def test_records_that_no_poll_needs_are_removed(tmp_path: Path, clock: ManualClock) -> None:
    incoming = ArrivalTracker(tmp_path / "incoming", 60, clock=clock)
    incoming.prune_notes()
    fail_muxing(incoming, *incoming.check_arrival(RECORDING_ID, [fetched_file(tmp_path, 0)]))
    (note,) = (tmp_path / "incoming").iterdir()
    for age, there in ((MAX_NOTE_AGE_SECONDS - 1, True), (MAX_NOTE_AGE_SECONDS + 1, False)):
        os.utime(note, (clock.now - age,) * 2)
        incoming.prune_notes()
        assert note.exists() is there


def test_the_oldest_of_too_many_records_are_removed(
    incoming: ArrivalTracker, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_NOTES >= 1000
    monkeypatch.setattr("muxer.pipeline.incomplete_sources.MAX_NOTES", 3)
    for number in range(6):
        fail_muxing(incoming, *incoming.check_arrival(RECORDING_ID, [fetched_file(tmp_path, 0, name=f"{number}.mp3")]))
        (newest,) = (path for path in (tmp_path / "incoming").iterdir() if path.stat().st_mtime > clock.now)
        os.utime(newest, (clock.now - 100 + number,) * 2)
    incoming.prune_notes()
    clock.now += 3600
    found = [judge_files(incoming, fetched_file(tmp_path, 0, name=f"{number}.mp3"))[0][0] for number in range(6)]
    assert found == [Arrival.GROWING] * 3 + [Arrival.SETTLED] * 3


def test_a_folder_that_cannot_be_written_only_delays_files(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "incoming").write_text("no folder")
    incoming = ArrivalTracker(tmp_path / "incoming", 60, clock=clock)
    assert fail_muxing(incoming, *incoming.check_arrival(RECORDING_ID, [fetched_file(tmp_path, 0)])).source == "a.mp3"
    incoming.forget_files(RECORDING_ID, ["a.mp3"])
    incoming.prune_notes()


SENT_DATE = "Tue, 02 Jan 2024 10:00:00 GMT"


@pytest.mark.parametrize(
    ("modified", "age"),
    [
        ("Tue, 02 Jan 2024 09:00:00 GMT", 3600),
        ("Mon, 01 Jan 2024 10:00:00 +0000", 86_400),
        (SENT_DATE, None),  # the response is created for each request
        ("Tue, 02 Jan 2024 11:00:00 GMT", None),
        ("yesterday", None),
        ("", None),
        ("Tue, 02 Jan 99999999999 10:00:00 GMT", None),
    ],
)
def test_the_age_of_a_file_is_measured_by_the_clock_of_its_server(
    monkeypatch: pytest.MonkeyPatch, modified: str, age: float | None
) -> None:
    monkeypatch.setattr("time.time", lambda: 5_000_000.0)
    found = modified_at({"last-modified": modified, "date": SENT_DATE})
    assert found == (None if age is None else 5_000_000.0 - age)
    assert modified_at({"last-modified": modified}) is None and modified_at({"date": SENT_DATE}) is None
