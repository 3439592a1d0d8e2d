"""SIGTERM in each state of a job: the process ends in time, leaves no files behind, and a restart loses
nothing.

A stop during a hanging first poll, of an idle muxer, and on a full disk: tests/e2e.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.build import AddedCall
from lab.lab import Lab
from muxer.gir.models import CallRecording, ScreenRecording
from muxer.gir.targets import select_targets
from tests.bench.processes import process_tree
from tests.support.calls import add_short, log_messages, muxed_entries, screen_file, stored_muxed
from tests.support.daemon import MuxerProcess, wait_until
from tests.support.fake_program import write_wrapper
from tests.support.muxer_runs import labelled_ids, write_config
from tests.support.request_trap import set_traps

Make = Callable[..., Lab]
TIMEOUT_SECONDS = 60
# The required limit.
STOP_SECONDS = 10.0


def write_hanging_program(folder: Path, name: str, words: str) -> tuple[Path, Path]:
    """Write a program like ``name`` that hangs the first time its arguments contain ``words``. Returns its path,
    and the folder that exists as soon as it hangs."""
    mark = folder / f"{name}-hangs"
    return write_wrapper(folder / f"once-{name}", name, f"*{words}*", f'mkdir "{mark}" 2>/dev/null && sleep 600'), mark


def stop_in_time(muxer: MuxerProcess) -> None:
    """Stop a muxer and check that it exits in time with code 0 and that its programs have ended."""
    programs = set(process_tree(muxer.process.pid))
    before = time.monotonic()
    assert muxer.stop() == 0
    assert time.monotonic() - before < STOP_SECONDS
    assert not [pid for pid in programs if Path(f"/proc/{pid}").exists()]


def restart_and_finish(lab: Lab, config: Path, log: Path, calls: Sequence[AddedCall]) -> None:
    """Start a muxer again and check that every call has one muxed file and no other files are left."""
    with MuxerProcess(config) as muxer:
        wait_until(lambda: {call.id for call in calls} <= labelled_ids(lab), TIMEOUT_SECONDS, "the labels", log)
        wait_until(
            lambda: not any(one.startswith("part-") for one in stored_muxed(lab)), TIMEOUT_SECONDS, "the end of parts", log
        )
        assert muxer.stop() == 0
    names = [entry["mediaId"] for call in calls for entry in muxed_entries(lab, call.id)]
    assert len(names) == len(calls) and stored_muxed(lab) == sorted(names)
    assert not list((lab.folder / "temp").glob("muxer-job-*"))


def test_stop_while_job_hangs_in_each_step(make_lab: Make, tmp_path: Path) -> None:
    """One process, eight recordings, each in another state: all steps, the delay before a request is retried, and the
    delay before the recording is retried."""
    lab = make_lab()
    *calls, retried, broken = add_short(lab, range(8))
    whole = screen_file(lab, broken).read_bytes()
    screen_file(lab, broken).write_bytes(b"<html>not found</html>")
    ffmpeg, muxing = write_hanging_program(tmp_path, "ffmpeg", "excerpts")
    openssl, encrypting = write_hanging_program(tmp_path, "openssl", "-encrypt")
    lab.store.fail_next("rws", "GET", f"/screen-recordings/{retried.id}", 503, times=99, headers={"Retry-After": "29"})
    programs = {"processing__ffmpeg": str(ffmpeg), "processing__openssl": str(openssl)}
    config, log = write_config(lab, **programs, advanced__worker_threads="8", htcc__rws_timeout="120")
    others = "|".join(call.id for call in calls)
    traps = {
        "check": ("rws", "GET", f"/screen-recordings/({others})$"),
        "fetch": ("dav", "GET", f"/screens/.*({others})"),
        "store": ("dav", "PUT", "/screens/"),
        "publish": ("rws", "POST", "/screen-recordings$"),
    }
    with set_traps(lab, **traps) as held, MuxerProcess(config) as muxer:
        wait_until(lambda: held.caught == traps.keys(), TIMEOUT_SECONDS, f"what hangs, in {traps.keys()}", log)
        wait_until(lambda: muxing.exists() and encrypting.exists(), TIMEOUT_SECONDS, "the programs that hang", log)
        wait_until(
            lambda: any("retried later" in message for message in log_messages(log)), TIMEOUT_SECONDS, "the failure", log
        )
        wait_until(
            lambda: 503 in [request.status for request in lab.store.served_requests], TIMEOUT_SECONDS, "the refusal", log
        )
        assert not labelled_ids(lab)
        stop_in_time(muxer)
    assert not list((lab.folder / "temp").glob("muxer-job-*"))
    screen_file(lab, broken).write_bytes(whole)
    while lab.store.take_failure("rws", "GET", f"/screen-recordings/{retried.id}"):
        pass
    restart_and_finish(lab, config, log, [*calls, retried, broken])


def encrypted_name(lab: Lab, call: AddedCall) -> str:
    """Return the name that the encrypted muxed file of a call will have."""
    recording, screen = (
        CallRecording.from_json(lab.store.get_call(call.id)),
        ScreenRecording.from_json(lab.store.get_screen(call.id)),
    )
    return f"{select_targets(recording, screen, delete_superseded=True, label=True).targets[0].file_name}.bin"


def test_stop_while_job_waits_for_another_muxer_and_poll_hangs(make_lab: Make) -> None:
    """The file of a dead muxer is stored; the job waits whether it is published soon."""
    lab = make_lab()
    (call,) = add_short(lab, [1])
    screen_file(lab, call).with_name(encrypted_name(lab, call)).write_bytes(b"of another muxer")
    config, log = write_config(lab)
    with MuxerProcess(config) as muxer:
        wait_until(
            lambda: 412 in [request.status for request in lab.store.served_requests], TIMEOUT_SECONDS, "the contention", log
        )
        with set_traps(lab, poll=("rws", "GET", r"\?ids=")) as held:
            wait_until(lambda: held.caught, TIMEOUT_SECONDS, "a poll that hangs", log)
            stop_in_time(muxer)
    assert not labelled_ids(lab)
    assert not [one for one in stored_muxed(lab) if one.startswith("part-")]


def test_stop_while_services_are_unavailable(make_lab: Make) -> None:
    """The storage is unavailable and recordings wait for it; then RWS is unavailable too, before the next poll."""
    lab = make_lab()
    add_short(lab, range(3))
    lab.store.fail_next("dav", "GET", "/", 503, times=1000)
    config, log = write_config(lab, processing__min_poll_interval="0.02")
    with MuxerProcess(config) as muxer:
        wait_until(
            lambda: any("WebDAV" in message and "is unavailable" in message for message in log_messages(log)),
            TIMEOUT_SECONDS,
            "the outage",
            log,
        )
        wait_until(lambda: log_messages(log)[-1] == "poll done", TIMEOUT_SECONDS, "a poll in which all wait", log)
        lab.store.fail_next("rws", "GET", "/recordings?", 503, times=1000, headers={"Retry-After": "120"})
        wait_until(
            lambda: any("RWS is unavailable" in message for message in log_messages(log)),
            TIMEOUT_SECONDS,
            "the outage of RWS",
            log,
        )
        stop_in_time(muxer)
    assert not labelled_ids(lab)
