"""A lab with a mill of recordings, and what must be true of it after kills."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.daemon import wait_until

from tests.faults import figures, outcome
from tests.faults.killing import Victim
from tests.faults.recordings import Mill, Recording
from muxer.lab.lab import Lab
from muxer.lab.site import MediaRoot

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


@contextmanager
def begun(folder: Path) -> Iterator[Scene]:
    """Given a folder for it, begin a scene; its RWS leaves files to their owner."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MediaRoot, "delete", lambda *_: None)
        with Lab(folder) as lab:
            yield Scene(lab, Mill(lab))


@contextmanager
def living(scene: Scene, name: str) -> Iterator[Victim]:
    """Begin an instance on the lab of a scene, and stop it at the end."""
    victim = Victim(scene.lab, name)
    try:
        yield victim
    finally:
        victim.stop()
