"""Tasks of a fleet: each target is published as often as needed and muxed once, whatever happens to messages."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from lab.lab import Lab
from lab.switches import Switches
from muxer.fleet.priority_queues import queue_names
from tests.support.daemon import wait_until
from tests.support.fake_program import write_waiting, write_wrapper
from tests.support.fleet_processes import QUEUE, TIMEOUT_SECONDS, FleetProcesses, stop_processes
from tests.support.media import CachedMediaLab
from tests.support.queues import VirtualHost
from tests.support.recording_copies import RecordingCopies

SHORT_DELAYS = {"muxer.journal.retry_policy.FIRST_DELAY_SECONDS": 0.5, "muxer.fleet.worker.RECOVERY_INTERVAL": 1.0}
_MESSAGE = {"queue_name": QUEUE, "actor_name": "mux", "args": [], "kwargs": {}, "options": {}, "message_id": "1"}
_ORDER = {"version": 1, "recording": "r", "file": "f", "attempts": 1}
# Not a task.
GARBAGE = [
    b"",
    b"\xff\xfe",
    b"null",
    b"[]",
    b"[" * 100_000,
    b"x" * 5_000_000,
    *(
        json.dumps({**_MESSAGE, "message_timestamp": 1, **changes}).encode()
        for changes in (
            {},
            {"actor_name": "another"},
            {"actor_name": ["mux"]},
            {"args": [1], "kwargs": _ORDER},
            {"kwargs": [1]},
            {"kwargs": {**_ORDER, "self": 1}},
            {"kwargs": {**_ORDER, "file": {"a": 1}}},
            {"kwargs": _ORDER, "options": {"eta": 1}},
            {"message_id": {}, "message_timestamp": "soon"},
        )
    ),
]
_EVENT = {"version": 1, "what": "done", "sender": "other-worker", "recording": "r", "file": "f", "details": {}}
ODD_EVENTS = [
    *GARBAGE,
    *(
        json.dumps({**_EVENT, **changes}).encode()
        for changes in (
            {},
            {"what": "failed", "details": {"failure": 1, "more": False}},
            {"what": "queued", "details": {"lane": "first"}},
            {"what": "worker", "details": {"totals": [], "held": 1}},
            {"what": "postponed"},
            {"what": "gone"},
            {"what": "news"},
            {"version": 2},
        )
    ),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, kept_lab: type[CachedMediaLab]) -> Iterator[Lab]:
    """Return a lab whose files are not encrypted; other tests check the media."""
    with kept_lab(tmp_path_factory.mktemp("orders") / "lab", Switches(encryption_group="empty")) as lab:
        yield lab


@pytest.fixture(scope="module")
def shared(lab: Lab) -> RecordingCopies:
    return RecordingCopies(lab)


@pytest.fixture
def copies(shared: RecordingCopies) -> Iterator[RecordingCopies]:
    yield shared
    shared.remove_copies()


def wait_for_all(copies: RecordingCopies, crew: FleetProcesses, ids: list[str] | None = None) -> None:
    """Wait until recordings are muxed."""
    expected = set(ids or copies.made)
    wait_until(lambda: expected <= copies.labelled_ids, max(TIMEOUT_SECONDS, len(expected)), "the end of the work", crew.log)
    wait_until(lambda: not copies.unfinished_ids(ids), TIMEOUT_SECONDS, "the end of the work", crew.log)


@pytest.mark.long
def test_five_hundred_targets_over_four_workers(
    lab: Lab, copies: RecordingCopies, vhost: VirtualHost, tmp_path: Path
) -> None:
    ids = copies.add_copies(500)
    options = {"advanced__worker_threads": "2", "processing__min_poll_interval": "0.05"}
    with FleetProcesses(lab, vhost.url, "many", **options) as crew:
        poller, *workers = crew.start_poller(), *(crew.start_worker(FLEET_MUX_ONCE="1") for _ in range(4))
        wait_for_all(copies, crew)
        wait_until(lambda: crew.run_json("status")["targets"] == {"done": 500}, TIMEOUT_SECONDS, "the status", crew.log)
        assert stop_processes(poller, *workers) == [0] * 5
    assert crew.muxed_counts == dict.fromkeys(ids, 1)
    # A target that is done after a poll has read it is not published again.
    assert sum(line["submitted"] for line in crew.poller_lines("poll done")) == 500
    assert len(crew.worker_logs) == 4 and all("recording muxed" in log.read_text() for log in crew.worker_logs)
    assert [one for one in (QUEUE, f"{QUEUE}.XQ") if vhost.ready_count(one)] == []


@pytest.mark.long
def test_invalid_and_unknown_tasks_become_dead_letters(lab: Lab, copies: RecordingCopies, vhost: VirtualHost) -> None:
    (id,) = copies.add_copies()
    with FleetProcesses(lab, vhost.url, "letters", SHORT_DELAYS, advanced__worker_threads="1") as crew:
        poller = crew.start_poller()
        wait_until(lambda: vhost.ready_count(QUEUE), TIMEOUT_SECONDS, "the task", crew.log)
        (body,) = vhost.message_bodies(QUEUE)
        later = json.loads(body)
        later["kwargs"]["version"] = 2
        vhost.purge_queue(QUEUE)
        letters = [json.dumps(later).encode(), *GARBAGE]
        publish_messages(vhost, QUEUE, *letters)
        publish_messages(vhost, f"{QUEUE}.events", *ODD_EVENTS, exchange=f"{QUEUE}.events")
        worker = crew.start_worker()
        wait_until(lambda: crew.run_json("failed"), TIMEOUT_SECONDS, "the refusal", crew.log)
        wait_until(lambda: dead_letters(vhost) == sorted(letters), TIMEOUT_SECONDS, "all dead letters, intact", crew.log)
        (failure,) = crew.run_json("failed")
        assert (failure["recording"], failure["code"], failure["state"]) == (id, "MUX-351", "aside")
        assert copies.unfinished_ids() == [id]
        assert crew.run_json("retry", id) == {"put_back": [later["kwargs"]["file"]]}
        wait_for_all(copies, crew)
        # Its dead letter is settled; those without a target stay.
        wait_until(lambda: dead_letters(vhost) == sorted(GARBAGE), TIMEOUT_SECONDS, "the end of the dead letter", crew.log)
        assert crew.run_json("failed") == []
        assert stop_processes(poller, worker) == [0, 0]


def test_task_that_kills_its_workers_is_set_aside(
    lab: Lab, copies: RecordingCopies, vhost: VirtualHost, tmp_path: Path
) -> None:
    (id,) = copies.add_copies()
    options = {"processing__ffmpeg": str(write_killing_ffmpeg(tmp_path)), "advanced__worker_threads": "1"}
    few = {"muxer.fleet.connection.MAX_DELIVERIES": 3, "muxer.fleet.dead_letters.MAX_DELIVERIES": 3}
    with FleetProcesses(lab, vhost.url, "killer", {**SHORT_DELAYS, **few}, **options) as crew:
        crew.start_poller()
        for _ in range(4):
            assert crew.run_json("failed") == []
            worker = crew.start_worker()
            wait_until(lambda worker=worker: worker.process.poll() is not None, TIMEOUT_SECONDS, "the kill", crew.log)  # type: ignore[misc]
        wait_until(lambda: crew.run_json("failed"), TIMEOUT_SECONDS, "the end of the wait", crew.log)
        failed = crew.run_json("failed")
        assert [(one["recording"], one["code"]) for one in failed] == [(id, "MUX-352")]
        assert "4 workers received this task" in failed[0]["reason"]
        (tmp_path / "mercy").touch()
        assert crew.run_json("retry", "--all")["put_back"]
        crew.start_worker()
        wait_for_all(copies, crew)
        wait_until(lambda: not vhost.ready_count(f"{QUEUE}.XQ"), TIMEOUT_SECONDS, "the end of the dead letter", crew.log)


@pytest.mark.long
def test_duplicate_task_is_dropped(lab: Lab, copies: RecordingCopies, vhost: VirtualHost, tmp_path: Path) -> None:
    copies.add_copies()
    options = {"processing__ffmpeg": str(write_waiting(tmp_path, "ffmpeg", "*excerpts*")), "advanced__worker_threads": "1"}
    with FleetProcesses(lab, vhost.url, "twice", SHORT_DELAYS, **options) as crew:
        crew.start_poller()
        wait_until(lambda: vhost.ready_count(QUEUE), TIMEOUT_SECONDS, "the task", crew.log)
        (body,) = vhost.message_bodies(QUEUE)
        crew.start_workers(2)
        wait_until((tmp_path / "waits").exists, TIMEOUT_SECONDS, "the work", crew.log)
        publish_messages(vhost, QUEUE, body)
        wait_until(
            lambda: crew.worker_lines("another worker is processing the same file"),
            TIMEOUT_SECONDS,
            "the look at the lock",
            crew.log,
        )
        (tmp_path / "go").touch()
        wait_for_all(copies, crew)
        wait_until(lambda: crew.run_json("status")["targets"] == {"done": 1}, TIMEOUT_SECONDS, "the status", crew.log)
        publish_messages(vhost, QUEUE, body)
        wait_until(
            lambda: crew.worker_lines("recording brought up to date"), TIMEOUT_SECONDS, "another request to RWS", crew.log
        )
        wait_until(lambda: not vhost.ready_count(QUEUE), TIMEOUT_SECONDS, "the end of the task", crew.log)
        assert crew.run_json("status")["targets"] == {"done": 1} and sum(crew.muxed_counts.values()) == 1


@pytest.mark.long
def test_permanent_failures_are_tried_three_times(lab: Lab, copies: RecordingCopies, vhost: VirtualHost) -> None:
    (id,) = copies.add_copies()
    whole = copies.source.read_bytes()
    copies.source.write_bytes(b"")
    try:
        patience = {**SHORT_DELAYS, "muxer.journal.retry_policy.PERMANENT_DELAY_SECONDS": 0.5}
        with FleetProcesses(lab, vhost.url, "broken", patience, advanced__incomplete_after="0") as crew:
            crew.start_poller(), crew.start_workers(2)
            wait_until(lambda: crew.run_json("failed", "--aside"), TIMEOUT_SECONDS, "the third failure", crew.log)
            polls = len(crew.poller_lines("poll done"))
            wait_until(lambda: len(crew.poller_lines("poll done")) > polls + 2, TIMEOUT_SECONDS, "more polls", crew.log)
            (failure,) = crew.run_json("failed")
            assert (failure["recording"], failure["attempts"], failure["code"]) == (id, 3, "MUX-322")
            assert len(crew.worker_lines("attempt failed")) == 3
            copies.source.write_bytes(whole)
            assert crew.run_json("retry", id)["put_back"]
            wait_for_all(copies, crew)
            assert len(crew.worker_lines("attempt failed")) == 3
    finally:
        copies.source.write_bytes(whole)


@pytest.mark.long
def test_storage_outage_uses_no_attempts(lab: Lab, copies: RecordingCopies, vhost: VirtualHost) -> None:
    with FleetProcesses(lab, vhost.url, "outage", SHORT_DELAYS, advanced__worker_threads="1") as crew:
        crew.start_poller(), crew.start_workers(2)
        lab.store.fail_next("dav", "GET", "/", 503, times=10**6)
        copies.add_copies(12)
        wait_until(lambda: crew.worker_lines("WebDAV"), TIMEOUT_SECONDS, "the outage", crew.log)
        polls, started = len(crew.poller_lines("poll done")), time.monotonic()
        wait_until(lambda: len(crew.poller_lines("poll done")) > polls + 4, TIMEOUT_SECONDS, "more polls", crew.log)
        burnt = len(crew.worker_lines("attempt failed"))
        intervals = (time.monotonic() - started) / SHORT_DELAYS["muxer.fleet.worker.RECOVERY_INTERVAL"]
        lab.store._failures.clear()
        wait_for_all(copies, crew)
        assert crew.run_json("failed") == []
        # The outage is logged, and not each task that waits for its end.
        assert not crew.worker_lines("not started")
    # Three failures in a row open the circuit of each worker; after that, one task in each interval probes the service.
    assert burnt <= 2 * 3 + 2 * intervals


@pytest.mark.long
def test_the_newest_calls_are_muxed_first(lab: Lab, copies: RecordingCopies, vhost: VirtualHost) -> None:
    old = copies.add_copies(24, timedelta(days=2))
    options = {"fleet__max_queue": "10", "advanced__worker_threads": "1", "processing__window_past": "4320"}
    with FleetProcesses(lab, vhost.url, "backlog", SHORT_DELAYS, **options) as crew:
        crew.start_poller()
        wait_until(lambda: count_queued(vhost), TIMEOUT_SECONDS, "the first tasks", crew.log)
        most, new = 0, []
        crew.start_worker()
        deadline = time.monotonic() + 2 * TIMEOUT_SECONDS
        # A worker reports it after it has labelled a recording.
        while set(crew.muxed_counts) < set(copies.made) and time.monotonic() < deadline:
            most = max(most, count_queued(vhost))
            if not new and len(crew.muxed_counts) >= 3:
                new = copies.add_copies(4)
            time.sleep(0.1)
    order = [line["recording"] for line in crew.worker_lines("recording muxed")]
    assert most <= 10 and copies.unfinished_ids() == []
    assert [one for one in order if one in new] == new[::-1] and [one for one in order if one in old] == old[::-1]
    assert order.index(new[0]) < 3 + 4 + 6, "new calls wait for a few old ones at most"


def test_killed_poller_publishes_no_task_twice(
    lab: Lab, copies: RecordingCopies, vhost: VirtualHost, tmp_path: Path
) -> None:
    ids = copies.add_copies(4)
    options = {"processing__ffmpeg": str(write_waiting(tmp_path, "ffmpeg", "*excerpts*")), "advanced__worker_threads": "1"}
    with FleetProcesses(
        lab, vhost.url, "again", {**SHORT_DELAYS, "muxer.fleet.outstanding_orders.SETTLE_SECONDS": 3.0}, **options
    ) as crew:
        poller = crew.start_poller()
        wait_until(lambda: vhost.ready_count(QUEUE) == 4, TIMEOUT_SECONDS, "the tasks", crew.log)
        crew.start_worker()
        wait_until((tmp_path / "waits").exists, TIMEOUT_SECONDS, "the work", crew.log)
        wait_until(
            lambda: crew.run_json("status")["targets"] == {"running": 1, "queued": 3},
            TIMEOUT_SECONDS,
            "the status",
            crew.log,
        )
        poller.kill()
        (tmp_path / "go").touch()
        wait_for_all(copies, crew, ids[-2:])
        (tmp_path / "go").unlink()
        (tmp_path / "waits").rmdir()
        polls = len(crew.poller_lines("poll done"))
        poller = crew.start_poller()
        wait_until(lambda: len(crew.poller_lines("poll done")) > polls + 2, TIMEOUT_SECONDS, "polls", crew.log)
        assert sum(line["submitted"] for line in crew.poller_lines("poll done")[polls:]) == 0
        (tmp_path / "go").touch()
        wait_until(lambda: crew.run_json("status")["targets"] == {"done": 4}, TIMEOUT_SECONDS, "the status", crew.log)
        assert crew.muxed_counts == dict.fromkeys(ids, 1)


@pytest.mark.long
def test_tasks_deleted_by_administrator_are_published_again(lab: Lab, copies: RecordingCopies, vhost: VirtualHost) -> None:
    with FleetProcesses(
        lab, vhost.url, "deleted", {**SHORT_DELAYS, "muxer.fleet.outstanding_orders.SETTLE_SECONDS": 2.0}
    ) as crew:
        poller = crew.start_poller()
        for delete in (vhost.purge_queue, vhost.delete_queue):
            ids = copies.add_copies(2)
            wait_until(lambda: vhost.ready_count(QUEUE) == 2, TIMEOUT_SECONDS, "the tasks", crew.log)
            delete(QUEUE)
            wait_until(lambda: vhost.ready_count(QUEUE) == 2, TIMEOUT_SECONDS, "the same tasks", crew.log)
            worker = crew.start_worker()
            wait_for_all(copies, crew, ids)
            assert stop_processes(worker) == [0]
        assert len(crew.poller_lines("the task of a file is lost in RabbitMQ")) == 4
        assert stop_processes(poller) == [0]


def dead_letters(vhost: VirtualHost) -> list[bytes]:
    """Return the dead letters, in some order."""
    return sorted(vhost.message_bodies(f"{QUEUE}.XQ"))


def count_queued(vhost: VirtualHost) -> int:
    """Return the number of tasks in all queues."""
    return sum(vhost.ready_count(queue) for queue in queue_names(QUEUE))


def publish_messages(vhost: VirtualHost, queue: str, *bodies: bytes, exchange: str = "") -> None:
    """Put messages into a queue, or an exchange."""
    with vhost.open_channel() as channel:
        channel.confirm_delivery()
        for body in bodies:
            channel.basic_publish(exchange, queue, body)


def write_killing_ffmpeg(folder: Path) -> Path:
    """Write a program like ffmpeg that kills the worker at the check of a file, until ``mercy`` exists."""
    return write_wrapper(folder / "ffmpeg", "ffmpeg", "*excerpts*", f'[ -e "{folder}/mercy" ] || kill -9 $PPID')
