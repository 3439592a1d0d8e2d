"""A fleet whose workers, broker or network fail: everything is muxed once, and there are no leftover files."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import outcome, run_counters
from tests.faults.fault_lab import FaultLab, find_wrong, start_lab
from tests.faults.recording_factory import FaultRecording
from tests.support.daemon import wait_until
from tests.support.fake_program import write_wrapper
from tests.support.fleet_processes import QUEUE, TIMEOUT_SECONDS, FleetProcesses, stop_processes
from tests.support.queues import VirtualHost
from tests.support.tcp_proxy import TcpProxy

KILL_COUNT = 8
# The wait after a kill, and the time after which a silent peer counts as dead.
SHORT_DELAYS = {
    "muxer.pipeline.store_and_publish.PUBLISH_WAIT_SECONDS": 1.0,
    "muxer.journal.retry_policy.FIRST_DELAY_SECONDS": 0.5,
    "muxer.fleet.worker.RECOVERY_INTERVAL": 1.0,
    "muxer.pipeline.shared_temp.MIN_AGE_SECONDS": 0.5,
    "muxer.fleet.connection.HEARTBEAT_SECONDS": 2,
    "muxer.fleet.connection.CONNECT_SECONDS": 2.0,
    "muxer.fleet.connection.OPEN_SECONDS": 2.0,
    "muxer.fleet.worker.LOCK_WAIT_SECONDS": 5.0,
    "muxer.fleet.outstanding_orders.SILENT_SECONDS": 3.0,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultLab]:
    with start_lab(tmp_path_factory.mktemp("fleet") / "lab") as scene:
        yield scene


@pytest.fixture
def scene(shared: FaultLab) -> Iterator[FaultLab]:
    yield shared
    shared.factory.remove_recordings()


def check_recordings(scene: FaultLab, recordings: list[FaultRecording], *crews: FleetProcesses) -> None:
    """Wait until all recordings are done, and check the results, for some of them the content too."""
    log = crews[0].log
    wait_until(
        lambda: all(outcome.is_done(scene.lab, recording) for recording in recordings),
        TIMEOUT_SECONDS,
        "the end of the work",
        log,
    )
    wait_until(lambda: not find_leftovers(scene, *crews), TIMEOUT_SECONDS, "the end of the recovery", log)
    run_counters.RECORDINGS.increase(len(recordings))
    run_counters.LOST.increase(outcome.count_lost(scene.lab, recordings))
    run_counters.DOUBLED.increase(outcome.count_doubled(scene.lab, recordings))
    assert [problem for recording in recordings for problem in outcome.media_entry_problems(scene.lab, recording)] == []
    assert scene.find_problems(random.sample(recordings, 3)) == []
    for crew in crews:
        wait_until(
            lambda crew=crew: set(crew.run_json("status")["targets"]) == {"done"},  # type: ignore[misc]
            TIMEOUT_SECONDS,
            "the status",
            crew.log,
        )


def find_leftovers(scene: FaultLab, *crews: FleetProcesses) -> list[str]:
    folders = [folder for crew in crews for folder in (crew.temp, *crew.temp.glob("worker-*"))]
    in_temp = [left for folder in folders for left in outcome.temp_leftovers(folder)]
    return in_temp + outcome.storage_leftovers(scene.lab, scene.factory)


def write_waiting_openssl(folder: Path) -> Path:
    """Write a program like openssl whose first encryption creates the file ``waits`` and continues when ``go`` exists."""
    wait = f'mkdir "{folder}/waits" 2>/dev/null && while [ ! -e "{folder}/go" ]; do sleep 0.05; done'
    return write_wrapper(folder / "openssl", "openssl", "*-encrypt*", wait)


def write_slow_openssl(folder: Path) -> Path:
    """Write a program like openssl with slow encryption, so that work is in progress while something fails."""
    return write_wrapper(folder / "openssl", "openssl", "*-encrypt*", "sleep 0.4")


@pytest.mark.long
def test_fleet_without_faults_muxes_everything(scene: FaultLab, vhost: VirtualHost) -> None:
    recordings = [scene.factory.add_recording(closed=number % 2 == 0) for number in range(6)]
    with FleetProcesses(scene.lab, vhost.url, "plain") as crew:
        poller = crew.start_poller()
        wait_until(lambda: len(crew.poller_lines("poll done")) >= 3, TIMEOUT_SECONDS, "three polls", crew.log)
        bodies = vhost.message_bodies(QUEUE)
        assert sum(line["submitted"] for line in crew.poller_lines("poll done")) == len(bodies) == len(recordings)
        check_bodies(scene, bodies, recordings)
        assert crew.run_json("status")["targets"] == {"queued": 6}
        workers = crew.start_workers(2)
        check_recordings(scene, recordings, crew)
        assert stop_processes(poller, *workers) == [0, 0, 0]
        # No task is published twice, not even for a target that is done during a poll that has already read it.
        assert sum(line["submitted"] for line in crew.poller_lines("poll done")) == len(recordings)
        assert crew.muxed_counts == dict.fromkeys((recording.id for recording in recordings), 1)


def check_bodies(scene: FaultLab, bodies: list[bytes], recordings: list[FaultRecording]) -> None:
    """Check that messages contain only ids and names: no secrets and no URLs."""
    tasks = [json.loads(body)["kwargs"] for body in bodies]
    assert {task["recording"] for task in tasks} == {recording.id for recording in recordings}
    assert all(task.keys() == {"version", "recording", "file", "attempts"} for task in tasks)
    accounts = (scene.lab.site.rws_account, scene.lab.site.rcs_account, scene.lab.site.dav_account)
    secrets = [text.encode() for one in accounts for text in (one.username, one.password)]
    assert not any(text in body for body in bodies for text in (b"://", b"@", *secrets))


@pytest.mark.long
def test_workers_are_killed_stopped_and_started_at_any_time(scene: FaultLab, vhost: VirtualHost, tmp_path: Path) -> None:
    recordings = [scene.factory.add_recording(closed=False) for _ in range(2)]
    options = {"processing__openssl": str(write_waiting_openssl(tmp_path)), "advanced__worker_threads": "1"}
    with FleetProcesses(scene.lab, vhost.url, "kills", SHORT_DELAYS, **options) as crew:
        crew.start_poller()
        # The first worker that encrypts is killed during encryption; another does the work.
        first = crew.start_worker()
        wait_until((tmp_path / "waits").exists, TIMEOUT_SECONDS, "the first encryption", crew.log)
        first.kill()
        (tmp_path / "waits").rmdir()
        # The next is stopped during encryption, and its task is requeued.
        second = crew.start_worker()
        wait_until((tmp_path / "waits").exists, TIMEOUT_SECONDS, "the second encryption", crew.log)
        assert vhost.ready_count(QUEUE) == 1
        assert stop_processes(second) == [0]
        assert vhost.ready_count(QUEUE) == 2
        wait_until(
            lambda: crew.run_json("status")["state"]["fleet"]["queued"] == 2, TIMEOUT_SECONDS, "both to wait again", crew.log
        )
        (tmp_path / "go").touch()
        check_recordings(scene, recordings, *kill_at_random(scene, crew, recordings))
        assert find_wrong(crew.config) == []


def kill_at_random(scene: FaultLab, crew: FleetProcesses, recordings: list[FaultRecording]) -> tuple[FleetProcesses]:
    """Let two workers process more recordings, and kill one of them repeatedly."""
    workers = crew.start_workers(2)
    crew.wait_for_workers(4)
    for number in range(KILL_COUNT):
        recordings.extend([scene.factory.add_recording(superseded=True, closed=number % 2 == 0) for _ in range(2)])
        time.sleep(random.uniform(0.3, 1.2))
        workers.pop(0).kill()
        run_counters.KILLS.increase()
        workers.append(crew.start_worker())
    return (crew,)


def has_muxed(scene: FaultLab, recordings: list[FaultRecording], number: int) -> bool:
    return sum(outcome.is_done(scene.lab, recording) for recording in recordings) >= number


@pytest.mark.long
def test_broker_restart_and_kill_during_work(scene: FaultLab, vhost: VirtualHost, tmp_path: Path) -> None:
    recordings = [scene.factory.add_recording(closed=False) for _ in range(20)]
    options = {"processing__openssl": str(write_slow_openssl(tmp_path)), "advanced__worker_threads": "1"}
    with FleetProcesses(scene.lab, vhost.url, "broker", SHORT_DELAYS, **options) as crew:
        members = [crew.start_poller(), *crew.start_workers(2)]
        for number, end in ((4, vhost.node.stop), (10, vhost.node.kill)):
            wait_until(lambda number=number: has_muxed(scene, recordings, number), TIMEOUT_SECONDS, "some work", crew.log)  # type: ignore[misc]
            assert vhost.ready_count(QUEUE) > 0
            end()
            # Polls continue meanwhile, and find more.
            recordings.extend([scene.factory.add_recording(closed=False) for _ in range(2)])
            vhost.node.start()
        check_recordings(scene, recordings, crew)
        assert {member.process.poll() for member in members} == {None}
    messages = [line["message"] for line in crew.poller_lines("RabbitMQ is")]
    assert [message[:21] for message in messages] == ["RabbitMQ is unavailab", "RabbitMQ is available"] * 2


@pytest.mark.long
def test_network_between_worker_and_broker_fails(scene: FaultLab, vhost: VirtualHost, tmp_path: Path) -> None:
    """The task of a disconnected worker goes to another, and the first one finds its work done; a worker that reconnects at
    once finishes the task itself, and the other leaves it."""
    lost, kept, later = (scene.factory.add_recording(closed=False) for _ in range(3))
    scene.factory.remove_recordings()
    waiting = {"processing__openssl": str(write_waiting_openssl(tmp_path)), "advanced__worker_threads": "1"}
    with (
        TcpProxy(vhost.node.port) as line,
        FleetProcesses(scene.lab, vhost.url, "near", SHORT_DELAYS) as near,
        FleetProcesses(scene.lab, vhost.url_through(line.port), "far", SHORT_DELAYS, **waiting) as far,
    ):
        near.start_poller()
        far.start_worker()
        scene.factory.restore_recording(lost)
        wait_until((tmp_path / "waits").exists, TIMEOUT_SECONDS, "an encryption", near.log)
        line.drop_silently()
        worker = near.start_worker()
        wait_until(lambda: outcome.is_done(scene.lab, lost), TIMEOUT_SECONDS, "the work of another worker", near.log)
        wait_until(lambda: near.muxed_counts[lost.id], TIMEOUT_SECONDS, "its line in the log", near.log)
        worker.kill()
        (tmp_path / "go").touch()
        line.restore_connections()
        wait_until(
            lambda: far.worker_lines("another muxer has published"), TIMEOUT_SECONDS, "the end of the first one", near.log
        )
        (tmp_path / "go").unlink()
        (tmp_path / "waits").rmdir()
        scene.factory.restore_recording(kept)
        wait_until((tmp_path / "waits").exists, TIMEOUT_SECONDS, "another encryption", near.log)
        line.reset_connections()
        wait_until(lambda: line.connection_count == 2, TIMEOUT_SECONDS, "the end of the outage", near.log)
        near.start_worker()
        wait_until(
            lambda: near.worker_lines("another worker is processing the same file"),
            TIMEOUT_SECONDS,
            "a look at the lock",
            near.log,
        )
        (tmp_path / "go").touch()
        scene.factory.restore_recording(later)
        check_recordings(scene, [lost, kept, later], near)
        assert near.muxed_counts[lost.id] == far.muxed_counts[kept.id] == 1
        assert near.muxed_counts[kept.id] == far.muxed_counts[lost.id] == 0


@pytest.mark.long
def test_network_between_poller_and_broker_fails(scene: FaultLab, vhost: VirtualHost) -> None:
    recordings = [scene.factory.add_recording(closed=False) for _ in range(3)]
    with TcpProxy(vhost.node.port) as line:
        far, url = vhost.url_through(line.port), vhost.url
        with (
            FleetProcesses(scene.lab, far, "behind", SHORT_DELAYS) as crew,
            FleetProcesses(scene.lab, url, "before", SHORT_DELAYS) as near,
        ):
            crew.start_poller()
            for breaks in (line.drop_silently, line.refuse_connections, line.reset_connections):
                wait_until(lambda: vhost.ready_count(QUEUE), TIMEOUT_SECONDS, "a task", crew.log)
                breaks()
                # Outcome events are published while the poller is disconnected.
                worker = near.start_worker()
                wait_until(
                    lambda: not vhost.ready_count(QUEUE) and has_muxed(scene, recordings, 3), TIMEOUT_SECONDS, "the work"
                )
                recordings.extend([scene.factory.add_recording(closed=False) for _ in range(3)])
                worker.stop()
                line.restore_connections()
            near.start_worker()
            check_recordings(scene, recordings, crew)


@pytest.mark.long
def test_two_pollers_on_one_queue(scene: FaultLab, vhost: VirtualHost) -> None:
    recordings = [scene.factory.add_recording(closed=False) for _ in range(4)]
    with FleetProcesses(scene.lab, vhost.url, "one") as one, FleetProcesses(scene.lab, vhost.url, "two") as two:
        one.start_poller(), two.start_poller()
        wait_until(
            lambda: len(one.poller_lines("poll done")) > 2 and len(two.poller_lines("poll done")) > 2,
            TIMEOUT_SECONDS,
            "polls",
            one.log,
        )
        one.start_workers(2)
        while len(recordings) < 16:
            time.sleep(0.2)
            recordings.append(scene.factory.add_recording(closed=False))
        check_recordings(scene, recordings, one, two)
        assert one.muxed_counts == dict.fromkeys((recording.id for recording in recordings), 1)
