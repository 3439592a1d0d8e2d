"""kill -9 at every step and seam of a job, and at random: nothing is lost, doubled or left lying about."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from support.daemon import wait_until

from faults import figures, outcome
from faults.killing import Victim
from faults.points import POINTS, REPLACING, STEPS
from faults.recordings import Mill, Recording
from muxer.lab.lab import Lab
from muxer.lab.site import MediaRoot

SHORT = 6
KILLS = int(os.environ.get("FAULTS_KILLS", SHORT))
# With two instances, in the short form.
TOGETHER = (
    *(f"after {step}" for step in STEPS),
    "the file to upload is renamed",
    "after the first post",
    "between the superseded entry and its file",
)
SECONDS = 90


@dataclass
class Scene:
    """A lab with a mill of recordings."""

    lab: Lab
    mill: Mill

    def check(self, recordings: list[Recording], *victims: Victim) -> None:
        """Wait until all is done, and see that all is as it must be."""
        log = victims[0].log
        wait_until(lambda: all(outcome.is_done(self.lab, one) for one in recordings), SECONDS, "the end of the work", log)
        assert outcome.nothing_stays(lambda: self.left_over(*victims)) == []
        # On a server that replaces lists, a full list of another instance may bring a deleted entry back for one poll.
        wrong = outcome.nothing_stays(lambda: self.problems(recordings))
        figures.RECORDINGS.add(len(recordings))
        figures.LOST.add(outcome.lost(self.lab, recordings))
        figures.DOUBLED.add(outcome.doubled(self.lab, recordings))
        assert wrong == []

    def problems(self, recordings: list[Recording]) -> list[str]:
        """Return what is wrong with recordings."""
        return [problem for one in recordings for problem in outcome.problems(self.lab, one)]

    def left_over(self, *victims: Victim) -> list[str]:
        """Return what lies about in the storage and in the temporary folders."""
        in_temp = [left for victim in victims for left in outcome.left_in_temp(victim.temp)]
        return in_temp + outcome.left_in_storage(self.lab, self.mill)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MediaRoot, "delete", lambda *_: None)  # an RWS that leaves files to their owner
        with Lab(tmp_path_factory.mktemp("kills") / "lab") as lab:
            yield Scene(lab, Mill(lab))


@pytest.fixture(scope="module")
def victim(scene: Scene) -> Iterator[Victim]:
    victim = Victim(scene.lab, "victim")
    try:
        yield victim
    finally:
        victim.stop()


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


@pytest.fixture(scope="module")
def other(scene: Scene) -> Iterator[Victim]:
    """A second instance on the same window, which lives on; begun by the first test that wants it."""
    other = Victim(scene.lab, "other")
    try:
        yield other
    finally:
        other.stop()


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


def test_in_the_end_nothing_is_doubled_or_left_over(scene: Scene, victim: Victim) -> None:
    assert [one for one in scene.mill.made if not outcome.is_done(scene.lab, one)] == []
    assert scene.left_over(victim) == []
