"""kill -9 of one of two instances on the same window: nothing is lost, doubled or left lying about."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.faults import outcome
from tests.faults.killing import KILLS, SHORT, Victim
from tests.faults.points import POINTS, REPLACING, STEPS
from tests.faults.scene import Scene, begun, living

# In the short form.
TOGETHER = (
    *(f"after {step}" for step in STEPS),
    "the file to upload is renamed",
    "after the first post",
    "between the superseded entry and its file",
)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with begun(tmp_path_factory.mktemp("kills") / "lab") as scene:
        yield scene


@pytest.fixture(scope="module")
def victim(scene: Scene) -> Iterator[Victim]:
    with living(scene, "victim") as victim:
        yield victim


@pytest.fixture(scope="module")
def other(scene: Scene) -> Iterator[Victim]:
    """A second instance on the same window, which lives on."""
    with living(scene, "other") as other:
        yield other


@pytest.mark.parametrize("point", POINTS if KILLS > SHORT else TOGETHER)
def test_a_kill_of_one_of_two_instances_on_the_same_window(
    scene: Scene, victim: Victim, other: Victim, point: str
) -> None:
    """The other one may be faster, so that the point is never reached; then the victim is killed all the same."""
    scene.lab.switches = replace(scene.lab.switches, replacing_post=point in REPLACING)
    victim.arm(point)
    recording = scene.mill.add(superseded=True)
    victim.die(lambda: outcome.is_done(scene.lab, recording))
    victim.start()
    scene.check([recording], victim, other)


def test_random_kills_of_one_of_two_instances_on_the_same_window(scene: Scene, victim: Victim, other: Victim) -> None:
    recordings = []
    for number in range(max(2, KILLS // 2)):
        scene.lab.switches = replace(scene.lab.switches, replacing_post=number % 2 == 1)
        recordings += [scene.mill.add(superseded=True) for _ in range(2)]
        time.sleep(random.uniform(0.5, 2.0))
        victim.kill()
        victim.start()
    scene.check(recordings, victim, other)


def test_in_the_end_nothing_is_doubled_or_left_over(scene: Scene, victim: Victim, other: Victim) -> None:
    assert [one for one in scene.mill.made if not outcome.is_done(scene.lab, one)] == []
    assert scene.left_over(victim, other) == []
