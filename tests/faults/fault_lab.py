"""A lab with a recording factory, and the conditions that must hold after kills."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.lab import Lab
from lab.site import MediaRoot
from tests.faults import outcome, run_counters
from tests.faults.killable_muxer import KillableMuxer
from tests.faults.recording_factory import FaultRecording, RecordingFactory
from tests.support.commands import run_subprocess
from tests.support.daemon import wait_until

TIMEOUT_SECONDS = 90


def find_wrong(own: Path) -> list[dict[str, Any]]:
    """Return the findings of an audit of everything, by the configuration `own` of a muxer, with its newest calls due.

    An audit needs no broker.
    """
    config = own.with_name("audit.cfg")
    text = re.sub(r"(?m)^(window_past|mode) *=.*\n", "", own.read_text())
    config.write_text(text.replace("[processing]", "[processing]\nwindow_past = 1", 1))
    options = ("--query", "startTime=0", "--orphans", "--deep", "--rate", "1000", "--json")
    code, out, err = run_subprocess(config, "audit", *options)
    assert out, err
    report = json.loads(out)
    assert report["counts"]["files"] and code == (4 if report["list"] else 0), (out, err)
    return list(report["list"])


@dataclass
class FaultLab:
    """A lab with a recording factory."""

    lab: Lab
    factory: RecordingFactory

    def check_recordings(self, recordings: list[FaultRecording], *victims: KillableMuxer) -> None:
        """Wait until all recordings are done, and check the results."""
        log = victims[0].log
        wait_until(
            lambda: all(outcome.is_done(self.lab, recording) for recording in recordings),
            TIMEOUT_SECONDS,
            "the end of the work",
            log,
        )
        assert outcome.wait_for_none(lambda: self.find_leftovers(*victims)) == []
        # On a server that replaces lists, the full list of another instance may restore a deleted entry for one poll.
        wrong = outcome.wait_for_none(lambda: self.find_problems(recordings))
        run_counters.RECORDINGS.increase(len(recordings))
        run_counters.LOST.increase(outcome.count_lost(self.lab, recordings))
        run_counters.DOUBLED.increase(outcome.count_doubled(self.lab, recordings))
        assert wrong == []

    def find_problems(self, recordings: list[FaultRecording]) -> list[str]:
        """Return the problems of `recordings`."""
        return [problem for recording in recordings for problem in outcome.recording_problems(self.lab, recording)]

    def find_leftovers(self, *victims: KillableMuxer) -> list[str]:
        """Return the leftover files in the storage and in the temporary folders."""
        in_temp = [left for victim in victims for left in outcome.temp_leftovers(victim.temp)]
        return in_temp + outcome.storage_leftovers(self.lab, self.factory)


@contextmanager
def start_lab(folder: Path) -> Iterator[FaultLab]:
    """Start a lab in `folder`. Its RWS does not delete files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MediaRoot, "delete_file", lambda *_: None)
        with Lab(folder) as lab:
            yield FaultLab(lab, RecordingFactory(lab))


@contextmanager
def run_instance(scene: FaultLab, name: str) -> Iterator[KillableMuxer]:
    """Start an instance on the lab of `scene`, and stop it at the end."""
    victim = KillableMuxer(scene.lab, name)
    try:
        yield victim
    finally:
        victim.stop()
