"""kill -9 at every step and seam of a job, and at random: nothing is lost, doubled or left lying about."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.faults import outcome
from tests.faults.killing import KILLS, Victim
from tests.faults.points import POINTS, REPLACING
from tests.faults.scene import Scene, begun, living


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with begun(tmp_path_factory.mktemp("kills") / "lab") as scene:
        yield scene


@pytest.fixture(scope="module")
def victim(scene: Scene) -> Iterator[Victim]:
    with living(scene, "victim") as victim:
        yield victim


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_every_point_is_mended_by_the_next_start(scene: Scene, victim: Victim, point: str) -> None:
    scene.lab.switches = replace(scene.lab.switches, replacing_post=point in REPLACING)
    victim.arm(point)
    recording = scene.mill.add(superseded=True)
    victim.await_death()
    victim.start()
    scene.check([recording], victim)


def test_a_kill_while_an_earlier_kill_is_mended(scene: Scene, victim: Victim) -> None:
    """On a server that replaces lists the sources' entries are gone when it dies first; it dies again when it posts them."""
    scene.lab.switches = replace(scene.lab.switches, replacing_post=True)
    victim.arm("after the first post")
    recording = scene.mill.add(superseded=True)
    victim.await_death()
    entries = (scene.lab.store.screen(recording.id) or {})["mediaFiles"]
    assert len(entries) == 1
    victim.start(armed="before the first post")
    victim.await_death()
    victim.start()
    scene.check([recording], victim)


@pytest.mark.parametrize("point", ["before publish", "before the first post"])
def test_a_stored_file_that_was_never_published_goes_when_a_fuller_one_is(
    scene: Scene, victim: Victim, point: str
) -> None:
    scene.lab.switches = replace(scene.lab.switches, replacing_post=False)
    victim.arm(point)
    recording = scene.mill.add(complete=False)
    victim.await_death()
    assert outcome.left_in_storage(scene.lab, scene.mill) != []
    scene.mill.complete(recording)
    victim.start()
    scene.check([recording], victim)


def test_random_kills(scene: Scene, victim: Victim) -> None:
    recordings = []
    for number in range(KILLS):
        scene.lab.switches = replace(scene.lab.switches, replacing_post=number % 2 == 1)
        recordings += [scene.mill.add(superseded=True, closed=number % 3 > 0) for _ in range(number % 2 + 1)]
        time.sleep(random.uniform(0.2, 2.5))
        victim.kill()
        victim.start()
    scene.check(recordings, victim)


def test_in_the_end_nothing_is_doubled_or_left_over(scene: Scene, victim: Victim) -> None:
    assert [one for one in scene.mill.made if not outcome.is_done(scene.lab, one)] == []
    assert scene.left_over(victim) == []
