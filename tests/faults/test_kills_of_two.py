"""kill -9 of one of two instances on the same window: nothing is lost or duplicated, and no files are left."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.faults import outcome
from tests.faults.fault_lab import FaultLab, find_wrong, run_instance, start_lab
from tests.faults.kill_points import POINTS, REPLACING_POINTS, STEPS
from tests.faults.killable_muxer import KILL_COUNT, SHORT_RUN_KILLS, KillableMuxer
from tests.support.tiers import spread_variants

# In the short form.
SHARED_POINTS = (
    *(f"after {step}" for step in STEPS),
    "the file to upload is renamed",
    "after the first post",
    "between the superseded entry and its file",
)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultLab]:
    with start_lab(tmp_path_factory.mktemp("kills") / "lab") as scene:
        yield scene


@pytest.fixture(scope="module")
def victim(scene: FaultLab) -> Iterator[KillableMuxer]:
    with run_instance(scene, "victim") as victim:
        yield victim


@pytest.fixture(scope="module")
def other(scene: FaultLab) -> Iterator[KillableMuxer]:
    """A second instance on the same window, which is not killed."""
    with run_instance(scene, "other") as other:
        yield other


@pytest.mark.parametrize("point", POINTS if KILL_COUNT > SHORT_RUN_KILLS else spread_variants(SHARED_POINTS, 6))
def test_a_kill_of_one_of_two_instances_on_the_same_window(
    scene: FaultLab, victim: KillableMuxer, other: KillableMuxer, point: str
) -> None:
    """The other instance may be faster, so that the point is never reached; then the victim is killed anyway."""
    scene.lab.switches = replace(scene.lab.switches, replacing_post=point in REPLACING_POINTS)
    victim.arm_point(point)
    recording = scene.factory.add_recording(superseded=True)
    victim.wait_for_kill(lambda: outcome.is_done(scene.lab, recording))
    victim.start()
    scene.check_recordings([recording], victim, other)


@pytest.mark.long
def test_random_kills_of_one_of_two_instances_on_the_same_window(
    scene: FaultLab, victim: KillableMuxer, other: KillableMuxer
) -> None:
    recordings = []
    for number in range(max(2, KILL_COUNT // 2)):
        scene.lab.switches = replace(scene.lab.switches, replacing_post=number % 2 == 1)
        recordings += [scene.factory.add_recording(superseded=True) for _ in range(2)]
        time.sleep(random.uniform(0.5, 2.0))
        victim.kill()
        victim.start()
    scene.check_recordings(recordings, victim, other)


def test_no_duplicates_or_leftovers_at_the_end(scene: FaultLab, victim: KillableMuxer, other: KillableMuxer) -> None:
    assert [one for one in scene.factory.created if not outcome.is_done(scene.lab, one)] == []
    assert scene.find_leftovers(victim, other) == []


@pytest.mark.long
def test_an_audit_finds_nothing_afterwards(victim: KillableMuxer) -> None:
    assert find_wrong(victim.config) == []
