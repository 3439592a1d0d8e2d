"""Requests that fail at random, and a service that fails between mux and publication: what that costs. The real process."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support import sync
from tests.support.calls import SECONDS as LENGTH
from tests.support.calls import add_short, stored_muxed
from tests.support.daemon import IMPATIENT, Muxer, log_lines, wait_until
from tests.support.running import configured, labelled, messages, muxed

from muxer.lab.build import AddedCall
from muxer.lab.cases import ALICE, CallPlan, ScreenPart
from muxer.lab.lab import Lab

Make = Callable[..., Lab]
SECONDS = 240
CALLS = 6
CLOSED = CallPlan("closed", LENGTH, (ScreenPart(0, LENGTH),), encrypted=True)
SHOWN = [sync.Shown(0, LENGTH, ALICE.number)]


def clear(lab: Lab, call: AddedCall, folder: Path) -> Path:
    """Decrypt the one muxed file of a call, and return its path."""
    (entry,) = muxed(lab, call.id)
    path = folder / f"{entry['mediaId']}.clear.mp4"
    lab.decrypt(entry["pkcs7"], lab.site.media.folder / "screens" / entry["mediaId"], path)
    return path


def count(log: Path, *words: str) -> int:
    return sum(message in words for message in messages(log))


def kept(lab: Lab) -> list[Path]:
    """Return the files that wait for another attempt."""
    return sorted((lab.folder / "temp" / "kept").glob("*"))


def test_a_third_of_all_requests_may_fail(make_lab: Make, tmp_path: Path) -> None:
    """What is fetched and muxed is counted by the servers and by the steps; the limits leave room for bad luck."""
    lab = make_lab()
    calls = [*add_short(lab, range(CALLS // 2)), *add_short(lab, range(CALLS // 2), plan=CLOSED)]
    config, log = configured(lab)
    lab.store.fail_at_random(0.3, seed=14)
    with Muxer(config) as muxer:
        wait_until(lambda: {call.id for call in calls} <= labelled(lab), SECONDS, "all labels", log)
        lab.store.fail_at_random(0.0)
        wait_until(lambda: not [one for one in stored_muxed(lab) if "part-" in one], SECONDS, "the end of parts", log)
        assert muxer.stop() == 0
    for call in calls:
        assert sync.problems(clear(lab, call, tmp_path), call.start, LENGTH, SHOWN) == []
    sources = {name for call in calls for name in (call.audio_id, *(one.media_id for one in call.screens))}
    fetched = [
        one.path
        for one in lab.store.requests
        if one.method == "GET" and one.status == 200 and one.path.rpartition("/")[2] in sources
    ]
    assert {one.rpartition("/")[2] for one in fetched} == sources
    assert len(fetched) <= 1.5 * len(sources)
    assert CALLS <= count(log, "mux done", "mux failed") <= 1.5 * CALLS
    repeated = [line for line in log_lines(log) if ", repeated in " in line["message"]]
    assert {"step", "try", "reason"} <= repeated[0].keys()
    assert not [one for one in messages(log) if " is out; " in one]
    assert sorted(stored_muxed(lab)) == sorted(muxed(lab, call.id)[0]["mediaId"] for call in calls)
    assert kept(lab) == []


def test_an_outage_between_mux_and_publication_costs_no_second_mux(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    (call,) = add_short(lab, [1], plan=CLOSED)
    config, log = configured(lab)
    lab.store.fail_next("rws", "POST", "/screen-recordings", 503, times=10**6)
    with Muxer(config, **IMPATIENT) as muxer:
        wait_until(lambda: count(log, "the muxed file that an earlier attempt has kept is used"), SECONDS, "its use", log)
        wait_until(lambda: len(kept(lab)) == 2, SECONDS, "the kept file", log)
        assert muxer.stop() == 0
    media, record = sorted(kept(lab), key=lambda path: path.suffix == ".json")
    assert stat.S_IMODE(media.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (media, record)} == {0o600}
    (uploaded,) = [path for path in (lab.site.media.folder / "screens").iterdir() if "_muxed" in path.name]
    assert media.read_bytes() == uploaded.read_bytes(), "what is kept is encrypted"
    assert b"ftyp" not in media.read_bytes()[:64]
    while lab.store.take_failure("rws", "POST", "/screen-recordings"):
        lab.store._failures.clear()
    with Muxer(config, **IMPATIENT) as muxer:
        wait_until(lambda: call.id in labelled(lab), SECONDS, "the label", log)
        assert muxer.stop() == 0
    assert count(log, "mux done", "mux failed") == 1
    assert sum(one.method == "PUT" for one in lab.store.requests) == 1, "nor a second upload"
    assert sync.problems(clear(lab, call, tmp_path), call.start, LENGTH, SHOWN) == []
    assert not (lab.folder / "temp" / "kept").exists()


@pytest.mark.parametrize("change", ["sources", "published"])
def test_what_is_kept_goes_when_it_is_not_needed(make_lab: Make, change: str) -> None:
    lab = make_lab()
    (call,) = add_short(lab, [1])
    (other,) = add_short(lab, [2])
    second = (lab.store.screen(other.id) or {})["mediaFiles"][0] | {"mediaId": "second.mp4"}
    config, log = configured(lab)
    lab.store.fail_next("rws", "POST", "/screen-recordings", 503, times=10**6)
    with Muxer(config, **IMPATIENT) as muxer:
        wait_until(lambda: len(kept(lab)) == 4, SECONDS, "what is kept", log)
        lab.store._failures.clear()
        if change == "sources":
            lab.store.add_screen_media(call.id, lab.region, second)
            source = lab.site.media.folder / "screens" / other.screens[0].media_id
            (source.parent / "second.mp4").write_bytes(source.read_bytes())
        wait_until(lambda: {call.id, other.id} <= labelled(lab), SECONDS, "the labels", log)
        wait_until(lambda: not (lab.folder / "temp" / "kept").exists(), SECONDS, "the end of what was kept", log)
        assert muxer.stop() == 0
    assert len(muxed(lab, call.id)) == 1
