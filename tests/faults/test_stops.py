"""SIGTERM while a job stands in each of its states: the process ends in time, leaves nothing behind, and a restart loses
nothing.

A stop while a poll hangs from the beginning, while nothing is to be done, and while the disk is full: tests/e2e.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.calls import add_short, messages, muxed, screen_file, stored_muxed
from tests.support.daemon import Muxer, wait_until
from tests.support.running import configured, labelled
from tests.support.stand_in import stand_in
from tests.support.trap import trapped

from muxer.gir.models import CallRecording, ScreenRecording
from muxer.lab.build import AddedCall
from muxer.lab.lab import Lab
from muxer.selection import select
from tests.bench.processes import family

Make = Callable[..., Lab]
SECONDS = 60
# The issue's own bound.
STOP_SECONDS = 10.0


def hanging_once(folder: Path, name: str, words: str) -> tuple[Path, Path]:
    """Write a program that does what ``name`` does, but hangs the first time that its arguments hold ``words``. Return it,
    and the folder that is there as soon as it hangs."""
    mark = folder / f"{name}-hangs"
    return stand_in(folder / f"once-{name}", name, f"*{words}*", f'mkdir "{mark}" 2>/dev/null && sleep 600'), mark


def stopped_in_time(muxer: Muxer) -> None:
    """Stop a muxer: with exit code 0, in time, with all the programs that it has started."""
    programs = set(family(muxer.process.pid))
    before = time.monotonic()
    assert muxer.stop() == 0
    assert time.monotonic() - before < STOP_SECONDS
    assert not [pid for pid in programs if Path(f"/proc/{pid}").exists()]


def end_well(lab: Lab, config: Path, log: Path, calls: Sequence[AddedCall]) -> None:
    """Start a muxer again: every call ends with one muxed file, and nothing else is left."""
    with Muxer(config) as muxer:
        wait_until(lambda: {call.id for call in calls} <= labelled(lab), SECONDS, "the labels", log)
        wait_until(lambda: not any(one.startswith("part-") for one in stored_muxed(lab)), SECONDS, "the end of parts", log)
        assert muxer.stop() == 0
    names = [one["mediaId"] for call in calls for one in muxed(lab, call.id)]
    assert len(names) == len(calls) and stored_muxed(lab) == sorted(names)
    assert not list((lab.folder / "temp").glob("muxer-job-*"))


def test_a_stop_while_a_job_hangs_in_each_of_its_steps(make_lab: Make, tmp_path: Path) -> None:
    """One process, eight recordings, each in another state: all steps, the wait before a request is tried again, and the
    wait before the recording is."""
    lab = make_lab()
    *calls, asked, broken = add_short(lab, range(8))
    whole = screen_file(lab, broken).read_bytes()
    screen_file(lab, broken).write_bytes(b"<html>not found</html>")
    ffmpeg, muxing = hanging_once(tmp_path, "ffmpeg", "excerpts")
    openssl, encrypting = hanging_once(tmp_path, "openssl", "-encrypt")
    lab.store.fail_next("rws", "GET", f"/screen-recordings/{asked.id}", 503, times=99, headers={"Retry-After": "29"})
    programs = {"processing__ffmpeg": str(ffmpeg), "processing__openssl": str(openssl)}
    config, log = configured(lab, **programs, advanced__worker_threads="8", htcc__rws_timeout="120")
    others = "|".join(call.id for call in calls)
    traps = {
        "check": ("rws", "GET", f"/screen-recordings/({others})$"),
        "fetch": ("dav", "GET", f"/screens/.*({others})"),
        "store": ("dav", "PUT", "/screens/"),
        "publish": ("rws", "POST", "/screen-recordings$"),
    }
    with trapped(lab, **traps) as held, Muxer(config) as muxer:
        wait_until(lambda: held.caught == traps.keys(), SECONDS, f"what hangs, in {traps.keys()}", log)
        wait_until(lambda: muxing.exists() and encrypting.exists(), SECONDS, "the programs that hang", log)
        wait_until(lambda: any("tried again later" in one for one in messages(log)), SECONDS, "the failure", log)
        wait_until(lambda: 503 in [one.status for one in lab.store.requests], SECONDS, "the refusal", log)
        assert not labelled(lab)
        stopped_in_time(muxer)
    assert not list((lab.folder / "temp").glob("muxer-job-*"))
    screen_file(lab, broken).write_bytes(whole)
    while lab.store.take_failure("rws", "GET", f"/screen-recordings/{asked.id}"):
        pass
    end_well(lab, config, log, [*calls, asked, broken])


def muxed_name(lab: Lab, call: AddedCall) -> str:
    """Return the name that the encrypted muxed file of a call will have."""
    recording, screen = CallRecording.read(lab.store.call(call.id)), ScreenRecording.read(lab.store.screen(call.id))
    return f"{select(recording, screen, delete_superseded=True, label=True).targets[0].name}.bin"


def test_a_stop_while_a_job_waits_for_another_muxer_and_a_poll_hangs(make_lab: Make) -> None:
    """The file of a muxer that died lies there; whether it is published soon is waited for."""
    lab = make_lab()
    (call,) = add_short(lab, [1])
    screen_file(lab, call).with_name(muxed_name(lab, call)).write_bytes(b"of another muxer")
    config, log = configured(lab)
    with Muxer(config) as muxer:
        wait_until(lambda: 412 in [one.status for one in lab.store.requests], SECONDS, "the meeting", log)
        with trapped(lab, poll=("rws", "GET", r"\?ids=")) as held:
            wait_until(lambda: held.caught, SECONDS, "a poll that hangs", log)
            stopped_in_time(muxer)
    assert not labelled(lab)
    assert not [one for one in stored_muxed(lab) if one.startswith("part-")]


def test_a_stop_while_services_are_out(make_lab: Make) -> None:
    """The storage is out, and recordings wait for it; then RWS is too, and the next poll is waited for."""
    lab = make_lab()
    add_short(lab, range(3))
    lab.store.fail_next("dav", "GET", "/", 503, times=1000)
    config, log = configured(lab, processing__min_poll_interval="0.02")
    with Muxer(config) as muxer:
        wait_until(lambda: any("WebDAV" in one and "is out" in one for one in messages(log)), SECONDS, "the outage", log)
        wait_until(lambda: messages(log)[-1] == "poll done", SECONDS, "a poll in which all wait", log)
        lab.store.fail_next("rws", "GET", "/recordings?", 503, times=1000, headers={"Retry-After": "120"})
        wait_until(lambda: any("RWS is out" in one for one in messages(log)), SECONDS, "the outage of RWS", log)
        stopped_in_time(muxer)
    assert not labelled(lab)
