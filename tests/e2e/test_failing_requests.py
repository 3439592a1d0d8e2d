"""Requests that fail at random, and a service that fails between mux and publication: the extra work. The real process."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.build import AddedCall
from lab.cases import ALICE, CallPlan, ScreenPart
from lab.lab import Lab
from tests.support import av_sync
from tests.support.calls import CALL_SECONDS as LENGTH
from tests.support.calls import add_short, stored_muxed
from tests.support.daemon import FAST_RETRY, MuxerProcess, log_lines, wait_until
from tests.support.muxer_runs import labelled_ids, log_messages, muxed_entries, write_config
from tests.support.tiers import spread_variants

Make = Callable[..., Lab]
TIMEOUT_SECONDS = 240
CALL_COUNT = 6
CLOSED = CallPlan("closed", LENGTH, (ScreenPart(0, LENGTH),), encrypted=True)
SHOWN = [av_sync.ExpectedScreen(0, LENGTH, ALICE.number)]


def decrypt_muxed(lab: Lab, call: AddedCall, folder: Path) -> Path:
    """Decrypt the one muxed file of a call, and return its path."""
    (entry,) = muxed_entries(lab, call.id)
    path = folder / f"{entry['mediaId']}.clear.mp4"
    lab.decrypt_file(entry["pkcs7"], lab.site.media.folder / "screens" / entry["mediaId"], path)
    return path


def count_messages(log: Path, *words: str) -> int:
    return sum(message in words for message in log_messages(log))


def list_kept_results(lab: Lab) -> list[Path]:
    """Return the muxed files that are kept for another attempt."""
    return sorted((lab.folder / "temp" / "kept").glob("*"))


def test_all_recordings_are_muxed_when_a_third_of_requests_fail(make_lab: Make, tmp_path: Path) -> None:
    """The servers and the steps count what is fetched and muxed; the limits allow for unlucky runs."""
    lab = make_lab()
    half = range(CALL_COUNT // 2)
    calls = [*add_short(lab, half, shows_its_time=True), *add_short(lab, half, plan=CLOSED, shows_its_time=True)]
    config, log = write_config(lab)
    lab.store.fail_at_random(0.3, seed=14)
    with MuxerProcess(config) as muxer:
        wait_until(lambda: {call.id for call in calls} <= labelled_ids(lab), TIMEOUT_SECONDS, "all labels", log)
        lab.store.fail_at_random(0.0)
        wait_until(
            lambda: not [one for one in stored_muxed(lab) if "part-" in one], TIMEOUT_SECONDS, "the end of parts", log
        )
        assert muxer.stop() == 0
    for call in calls:
        assert av_sync.file_problems(decrypt_muxed(lab, call, tmp_path), call.start, LENGTH, SHOWN) == []
    sources = {name for call in calls for name in (call.audio_id, *(screen.media_id for screen in call.screens))}
    fetched = [
        request.path
        for request in lab.store.served_requests
        if request.method == "GET" and request.status == 200 and request.path.rpartition("/")[2] in sources
    ]
    assert {one.rpartition("/")[2] for one in fetched} == sources
    assert len(fetched) <= 1.5 * len(sources)
    assert CALL_COUNT <= count_messages(log, "mux done", "mux failed") <= 1.5 * CALL_COUNT
    repeated = [line for line in log_lines(log) if "; retrying in " in line["message"]]
    assert {"step", "try", "reason"} <= repeated[0].keys()
    assert not [message for message in log_messages(log) if " is unavailable; " in message]
    assert sorted(stored_muxed(lab)) == sorted(muxed_entries(lab, call.id)[0]["mediaId"] for call in calls)
    assert list_kept_results(lab) == []


@pytest.mark.long
def test_outage_between_mux_and_publication_needs_no_second_mux(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    (call,) = add_short(lab, [1], plan=CLOSED, shows_its_time=True)
    config, log = write_config(lab)
    lab.store.fail_next("rws", "POST", "/screen-recordings", 503, times=10**6)
    with MuxerProcess(config, **FAST_RETRY) as muxer:
        wait_until(
            lambda: count_messages(log, "reusing the muxed file of an earlier attempt"),
            TIMEOUT_SECONDS,
            "its use",
            log,
        )
        wait_until(lambda: len(list_kept_results(lab)) == 2, TIMEOUT_SECONDS, "the kept file", log)
        assert muxer.stop() == 0
    media, record = sorted(list_kept_results(lab), key=lambda path: path.suffix == ".json")
    assert stat.S_IMODE(media.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (media, record)} == {0o600}
    (uploaded,) = [path for path in (lab.site.media.folder / "screens").iterdir() if "_muxed" in path.name]
    assert media.read_bytes() == uploaded.read_bytes(), "what is kept is encrypted"
    assert b"ftyp" not in media.read_bytes()[:64]
    while lab.store.take_failure("rws", "POST", "/screen-recordings"):
        lab.store._failures.clear()
    with MuxerProcess(config, **FAST_RETRY) as muxer:
        wait_until(lambda: call.id in labelled_ids(lab), TIMEOUT_SECONDS, "the label", log)
        assert muxer.stop() == 0
    assert count_messages(log, "mux done", "mux failed") == 1
    assert sum(request.method == "PUT" for request in lab.store.served_requests) == 1, "nor a second upload"
    assert av_sync.file_problems(decrypt_muxed(lab, call, tmp_path), call.start, LENGTH, SHOWN) == []
    assert not (lab.folder / "temp" / "kept").exists()


@pytest.mark.parametrize("change", spread_variants(["sources", "published"], 2))
def test_kept_result_is_deleted_when_not_needed(make_lab: Make, change: str) -> None:
    lab = make_lab()
    (call,) = add_short(lab, [1])
    (other,) = add_short(lab, [2])
    second = (lab.store.get_screen(other.id) or {})["mediaFiles"][0] | {"mediaId": "second.mp4"}
    config, log = write_config(lab)
    lab.store.fail_next("rws", "POST", "/screen-recordings", 503, times=10**6)
    with MuxerProcess(config, **FAST_RETRY) as muxer:
        wait_until(lambda: len(list_kept_results(lab)) == 4, TIMEOUT_SECONDS, "the kept files", log)
        lab.store._failures.clear()
        if change == "sources":
            lab.store.add_screen_media(call.id, lab.region, second)
            source = lab.site.media.folder / "screens" / other.screens[0].media_id
            (source.parent / "second.mp4").write_bytes(source.read_bytes())
        wait_until(lambda: {call.id, other.id} <= labelled_ids(lab), TIMEOUT_SECONDS, "the labels", log)
        wait_until(lambda: not (lab.folder / "temp" / "kept").exists(), TIMEOUT_SECONDS, "the deletion", log)
        assert muxer.stop() == 0
    assert len(muxed_entries(lab, call.id)) == 1
