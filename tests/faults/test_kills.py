"""kill -9 at and within every step of a job, and at random: nothing is lost or duplicated, and no files are left."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.faults import outcome
from tests.faults.fault_lab import FaultLab, find_wrong, run_instance, start_lab
from tests.faults.kill_points import POINTS, REPLACING_POINTS
from tests.faults.killable_muxer import KILL_COUNT, KillableMuxer
from tests.support.tiers import spread_variants


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultLab]:
    with start_lab(tmp_path_factory.mktemp("kills") / "lab") as scene:
        yield scene


@pytest.fixture(scope="module")
def victim(scene: FaultLab) -> Iterator[KillableMuxer]:
    with run_instance(scene, "victim") as victim:
        yield victim


@pytest.mark.parametrize("point", spread_variants(POINTS, 6))
def test_next_start_recovers_from_kill_at_every_point(scene: FaultLab, victim: KillableMuxer, point: str) -> None:
    scene.lab.switches = replace(scene.lab.switches, replacing_post=point in REPLACING_POINTS)
    victim.arm_point(point)
    recording = scene.factory.add_recording(superseded=True)
    victim.wait_until_dead()
    victim.start()
    scene.check_recordings([recording], victim)


def test_kill_during_recovery_from_earlier_kill(scene: FaultLab, victim: KillableMuxer) -> None:
    """On a server that replaces lists, the first kill loses the sources' entries; the second comes at their post."""
    scene.lab.switches = replace(scene.lab.switches, replacing_post=True)
    victim.arm_point("after the first post")
    recording = scene.factory.add_recording(superseded=True)
    victim.wait_until_dead()
    entries = (scene.lab.store.get_screen(recording.id) or {})["mediaFiles"]
    assert len(entries) == 1
    victim.start(armed="before the first post")
    victim.wait_until_dead()
    victim.start()
    scene.check_recordings([recording], victim)


@pytest.mark.parametrize("point", spread_variants(["before the first post", "before publish"], 2))
def test_unpublished_stored_file_is_deleted_when_fuller_file_is_published(
    scene: FaultLab, victim: KillableMuxer, point: str
) -> None:
    scene.lab.switches = replace(scene.lab.switches, replacing_post=False)
    victim.arm_point(point)
    recording = scene.factory.add_recording(complete=False)
    victim.wait_until_dead()
    assert outcome.storage_leftovers(scene.lab, scene.factory) != []
    scene.factory.complete_recording(recording)
    victim.start()
    scene.check_recordings([recording], victim)


@pytest.mark.long
def test_random_kills(scene: FaultLab, victim: KillableMuxer) -> None:
    recordings = []
    for number in range(KILL_COUNT):
        scene.lab.switches = replace(scene.lab.switches, replacing_post=number % 2 == 1)
        recordings += [scene.factory.add_recording(superseded=True, closed=number % 3 > 0) for _ in range(number % 2 + 1)]
        time.sleep(random.uniform(0.2, 2.5))
        victim.kill()
        victim.start()
    scene.check_recordings(recordings, victim)
    assert find_wrong(victim.config) == []


def test_no_duplicates_or_leftovers_at_the_end(scene: FaultLab, victim: KillableMuxer) -> None:
    assert [one for one in scene.factory.created if not outcome.is_done(scene.lab, one)] == []
    assert scene.find_leftovers(victim) == []


@pytest.mark.long
def test_an_audit_finds_nothing_afterwards(victim: KillableMuxer) -> None:
    assert find_wrong(victim.config) == []
