"""A fleet whose workers die, whose broker ends, and whose network breaks: everything is muxed, once, and nothing is left."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.crew import QUEUE, SECONDS, Crew, stopped
from tests.support.daemon import wait_until
from tests.support.line import Line
from tests.support.queues import VirtualHost
from tests.support.stand_in import stand_in

from tests.faults import figures, outcome
from tests.faults.recordings import Recording
from tests.faults.scene import Scene, begun

KILLS = 8
# What is waited for after a death, and how long a silent peer is believed to live.
IMPATIENT = {
    "muxer.job.PUBLISH_WAIT_SECONDS": 1.0,
    "muxer.failures.FIRST_DELAY_SECONDS": 0.5,
    "muxer.fleet.worker.TRIAL_SECONDS": 1.0,
    "muxer.guests.LEAST_AGE_SECONDS": 0.5,
    "muxer.fleet.connection.HEARTBEAT_SECONDS": 2,
    "muxer.fleet.connection.CONNECT_SECONDS": 2.0,
    "muxer.fleet.connection.OPEN_SECONDS": 2.0,
    "muxer.fleet.worker.LOCK_PATIENCE_SECONDS": 5.0,
    "muxer.fleet.held.SILENT_SECONDS": 3.0,
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with begun(tmp_path_factory.mktemp("fleet") / "lab") as scene:
        yield scene


@pytest.fixture
def scene(shared: Scene) -> Iterator[Scene]:
    yield shared
    shared.mill.forget()


def check(scene: Scene, recordings: list[Recording], *crews: Crew) -> None:
    """Wait until all is done, and see that all is as it must be; the content of some files is looked at, too."""
    log = crews[0].log
    wait_until(lambda: all(outcome.is_done(scene.lab, one) for one in recordings), SECONDS, "the end of the work", log)
    wait_until(lambda: not left_over(scene, *crews), SECONDS, "the end of what was left half done", log)
    figures.RECORDINGS.add(len(recordings))
    figures.LOST.add(outcome.lost(scene.lab, recordings))
    figures.DOUBLED.add(outcome.doubled(scene.lab, recordings))
    assert [problem for one in recordings for problem in outcome.problems_of_entries(scene.lab, one)] == []
    assert scene.problems(random.sample(recordings, 3)) == []
    for crew in crews:
        wait_until(lambda crew=crew: set(crew.tell("status")["targets"]) == {"done"}, SECONDS, "the books", crew.log)


def left_over(scene: Scene, *crews: Crew) -> list[str]:
    folders = [folder for crew in crews for folder in (crew.temp, *crew.temp.glob("worker-*"))]
    in_temp = [left for folder in folders for left in outcome.left_in_temp(folder)]
    return in_temp + outcome.left_in_storage(scene.lab, scene.mill)


def waits_at_first(folder: Path) -> Path:
    """Write a program like openssl: the first encryption of all leaves a file ``waits`` and goes on when there is ``go``."""
    wait = f'mkdir "{folder}/waits" 2>/dev/null && while [ ! -e "{folder}/go" ]; do sleep 0.05; done'
    return stand_in(folder / "openssl", "openssl", "*-encrypt*", wait)


def slow(folder: Path) -> Path:
    """Write a program like openssl that takes some time for an encryption, so that work lasts while something breaks."""
    return stand_in(folder / "openssl", "openssl", "*-encrypt*", "sleep 0.4")


def test_a_plain_run(scene: Scene, vhost: VirtualHost) -> None:
    recordings = [scene.mill.add(closed=number % 2 == 0) for number in range(6)]
    with Crew(scene.lab, vhost.url, "plain") as crew:
        poller = crew.poller()
        wait_until(lambda: len(crew.polled("poll done")) >= 3, SECONDS, "three polls", crew.log)
        bodies = vhost.messages(QUEUE)
        assert sum(line["submitted"] for line in crew.polled("poll done")) == len(bodies) == len(recordings)
        check_bodies(scene, bodies, recordings)
        assert crew.tell("status")["targets"] == {"queued": 6}
        workers = crew.workers(2)
        check(scene, recordings, crew)
        assert stopped(poller, *workers) == [0, 0, 0]
        # No target is ordered twice, not even one that is done while a poll goes on that has read it before.
        assert sum(line["submitted"] for line in crew.polled("poll done")) == len(recordings)
        assert crew.muxed == dict.fromkeys((one.id for one in recordings), 1)


def check_bodies(scene: Scene, bodies: list[bytes], recordings: list[Recording]) -> None:
    """See that messages hold ids and names, and nothing that is secret or leads anywhere."""
    orders = [json.loads(body)["kwargs"] for body in bodies]
    assert {order["recording"] for order in orders} == {one.id for one in recordings}
    assert all(order.keys() == {"version", "recording", "file", "attempts"} for order in orders)
    accounts = (scene.lab.site.rws_account, scene.lab.site.rcs_account, scene.lab.site.dav_account)
    secrets = [text.encode() for one in accounts for text in (one.username, one.password)]
    assert not any(text in body for body in bodies for text in (b"://", b"@", *secrets))


def test_workers_are_killed_stopped_and_started_at_any_moment(scene: Scene, vhost: VirtualHost, tmp_path: Path) -> None:
    recordings = [scene.mill.add(closed=False) for _ in range(2)]
    options = {"processing__openssl": str(waits_at_first(tmp_path)), "advanced__worker_threads": "1"}
    with Crew(scene.lab, vhost.url, "kills", IMPATIENT, **options) as crew:
        crew.poller()
        # The first to encrypt is killed within it; another does the work.
        first = crew.worker()
        wait_until((tmp_path / "waits").exists, SECONDS, "the first encryption", crew.log)
        first.kill()
        (tmp_path / "waits").rmdir()
        # The next is stopped within it, and gives its order back.
        second = crew.worker()
        wait_until((tmp_path / "waits").exists, SECONDS, "the second encryption", crew.log)
        assert vhost.ready(QUEUE) == 1
        assert stopped(second) == [0]
        assert vhost.ready(QUEUE) == 2
        wait_until(lambda: crew.tell("status")["state"]["fleet"]["queued"] == 2, SECONDS, "both to wait again", crew.log)
        (tmp_path / "go").touch()
        check(scene, recordings, *kill_at_random(scene, crew, recordings))


def kill_at_random(scene: Scene, crew: Crew, recordings: list[Recording]) -> tuple[Crew]:
    """Let two workers do more recordings, and kill one again and again."""
    workers = crew.workers(2)
    crew.wait_for_workers(4)
    for number in range(KILLS):
        recordings.extend([scene.mill.add(superseded=True, closed=number % 2 == 0) for _ in range(2)])
        time.sleep(random.uniform(0.3, 1.2))
        workers.pop(0).kill()
        figures.KILLS.add()
        workers.append(crew.worker())
    return (crew,)


def muxed_at_least(scene: Scene, recordings: list[Recording], number: int) -> bool:
    return sum(outcome.is_done(scene.lab, one) for one in recordings) >= number


def test_the_broker_is_restarted_and_killed_in_the_middle_of_the_work(
    scene: Scene, vhost: VirtualHost, tmp_path: Path
) -> None:
    recordings = [scene.mill.add(closed=False) for _ in range(20)]
    options = {"processing__openssl": str(slow(tmp_path)), "advanced__worker_threads": "1"}
    with Crew(scene.lab, vhost.url, "broker", IMPATIENT, **options) as crew:
        members = [crew.poller(), *crew.workers(2)]
        for number, end in ((4, vhost.node.stop), (10, vhost.node.kill)):
            wait_until(lambda number=number: muxed_at_least(scene, recordings, number), SECONDS, "some work", crew.log)
            assert vhost.ready(QUEUE) > 0
            end()
            # Polls go on meanwhile, and find more.
            recordings.extend([scene.mill.add(closed=False) for _ in range(2)])
            vhost.node.start()
        check(scene, recordings, crew)
        assert {one.process.poll() for one in members} == {None}
    told = [one["message"] for one in crew.polled("RabbitMQ is")]
    assert [one[:16] for one in told] == ["RabbitMQ is out;", "RabbitMQ is back"] * 2


def test_the_network_between_a_worker_and_the_broker_breaks(scene: Scene, vhost: VirtualHost, tmp_path: Path) -> None:
    """The order of a worker that cannot be heard goes to another, and the first one finds its work done; one that is back at
    once does its work itself, and the other leaves it alone."""
    lost, kept, later = (scene.mill.add(closed=False) for _ in range(3))
    scene.mill.forget()
    waiting = {"processing__openssl": str(waits_at_first(tmp_path)), "advanced__worker_threads": "1"}
    with (
        Line(vhost.node.port) as line,
        Crew(scene.lab, vhost.url, "near", IMPATIENT) as near,
        Crew(scene.lab, vhost.url_through(line.port), "far", IMPATIENT, **waiting) as far,
    ):
        near.poller()
        far.worker()
        scene.mill.bring(lost)
        wait_until((tmp_path / "waits").exists, SECONDS, "an encryption", near.log)
        line.go_dead()
        worker = near.worker()
        wait_until(lambda: outcome.is_done(scene.lab, lost), SECONDS, "the work of another", near.log)
        wait_until(lambda: near.muxed[lost.id], SECONDS, "its line in the log", near.log)
        worker.kill()
        (tmp_path / "go").touch()
        line.heal()
        wait_until(lambda: far.said("another muxer has published"), SECONDS, "the end of the first one", near.log)
        (tmp_path / "go").unlink()
        (tmp_path / "waits").rmdir()
        scene.mill.bring(kept)
        wait_until((tmp_path / "waits").exists, SECONDS, "another encryption", near.log)
        line.cut()
        wait_until(lambda: line.connections == 2, SECONDS, "that it is back", near.log)
        near.worker()
        wait_until(lambda: near.said("another order for the same file"), SECONDS, "a look at the lock", near.log)
        (tmp_path / "go").touch()
        scene.mill.bring(later)
        check(scene, [lost, kept, later], near)
        assert near.muxed[lost.id] == far.muxed[kept.id] == 1
        assert near.muxed[kept.id] == far.muxed[lost.id] == 0


def test_the_network_between_the_poller_and_the_broker_breaks(scene: Scene, vhost: VirtualHost) -> None:
    recordings = [scene.mill.add(closed=False) for _ in range(3)]
    with Line(vhost.node.port) as line:
        far, url = vhost.url_through(line.port), vhost.url
        with Crew(scene.lab, far, "behind", IMPATIENT) as crew, Crew(scene.lab, url, "before", IMPATIENT) as near:
            crew.poller()
            for breaks in (line.go_dead, line.refuse, line.cut):
                wait_until(lambda: vhost.ready(QUEUE), SECONDS, "an order", crew.log)
                breaks()
                # What comes of the orders is told while the poller does not hear it.
                worker = near.worker()
                wait_until(lambda: not vhost.ready(QUEUE) and muxed_at_least(scene, recordings, 3), SECONDS, "the work")
                recordings.extend([scene.mill.add(closed=False) for _ in range(3)])
                worker.stop()
                line.heal()
            near.worker()
            check(scene, recordings, crew)


def test_two_pollers_on_one_queue(scene: Scene, vhost: VirtualHost) -> None:
    recordings = [scene.mill.add(closed=False) for _ in range(4)]
    with Crew(scene.lab, vhost.url, "one") as one, Crew(scene.lab, vhost.url, "two") as two:
        one.poller(), two.poller()
        wait_until(lambda: len(one.polled("poll done")) > 2 and len(two.polled("poll done")) > 2, SECONDS, "polls", one.log)
        one.workers(2)
        while len(recordings) < 16:
            time.sleep(0.2)
            recordings.append(scene.mill.add(closed=False))
        check(scene, recordings, one, two)
        assert one.muxed == dict.fromkeys((recording.id for recording in recordings), 1)
