"""A muxer that is killed at a chosen point and started again afterwards."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from lab.lab import Lab
from tests.faults import run_counters
from tests.faults.outcome import find_orphans
from tests.support.daemon import PACKAGE, MuxerProcess, wait_until

LAUNCHER = PACKAGE.parent / "tests" / "faults" / "launcher.py"
TIMEOUT_SECONDS = 60
SHORT_RUN_KILLS = 6
KILL_COUNT = int(os.environ.get("FAULTS_KILLS", SHORT_RUN_KILLS))


class KillableMuxer:
    """One instance on a lab, with separate folders."""

    def __init__(self, lab: Lab, name: str, *, hurried: bool = False, **options: str) -> None:
        """Start an instance. `hurried`: short time limits; `options`: further options of muxer.cfg."""
        self.temp, self._log = lab.folder / name / "temp", lab.folder / name / "log"
        folders = {"processing.temp_dir": str(self.temp), "logfile.logfile_path": str(self._log)}
        quick = {"processing.min_poll_interval": "0.005", "logfile.format": "json"}
        text = lab.config_text(**folders, **quick, **options)
        self.config = lab.folder / name / "muxer.cfg"
        self.config.write_text(text)
        self._armed = lab.folder / name / "die-at"
        self.log = self._log / "recording-muxer-single.log"
        self._env = {"MUXER_KILL_AT": str(self._armed)} | ({"MUXER_HURRY": "1"} if hurried else {})
        self.start()

    def start(self, armed: str = "") -> None:
        """Start the muxer. `armed`: the point at which it is killed, empty for none."""
        self.arm_point(armed)
        self.muxer = MuxerProcess(self.config, env=self._env, package=LAUNCHER.parent, script=LAUNCHER.name)

    def arm_point(self, point: str) -> None:
        """Kill the muxer when it next reaches `point`."""
        fresh = self._armed.with_suffix(".new")
        fresh.write_text(point)
        fresh.replace(self._armed)

    def kill(self) -> None:
        """Kill the muxer now."""
        self.muxer.process.kill()
        self.wait_until_dead()

    def wait_for_kill(self, at_the_latest: Callable[[], object]) -> None:
        """Wait until the muxer is killed at its point; kill it when `at_the_latest` becomes true first."""
        process = self.muxer.process
        wait_until(lambda: process.poll() is not None or at_the_latest(), TIMEOUT_SECONDS, "the kill", self.log)
        self.kill()

    def wait_until_dead(self) -> None:
        """Wait until SIGKILL has ended the muxer and no program of it is running."""
        wait_until(lambda: self.muxer.process.poll() is not None, TIMEOUT_SECONDS, "the kill", self.log)
        self.muxer.process.communicate()
        assert self.muxer.process.returncode == -signal.SIGKILL, self.log.read_text()[-2000:]
        wait_until(lambda: not find_orphans(self.temp), 5, "the end of its programs")
        run_counters.KILLS.increase()

    def stop(self) -> None:
        """Stop the muxer with SIGTERM, once it handles signals: it locks its temporary folder later than that."""
        process, lock = self.muxer.process, self.temp / "muxer.lock"
        wait_until(
            lambda: process.poll() is not None or lock.read_text().startswith(f"process {process.pid} "),
            TIMEOUT_SECONDS,
            "the start",
            self.log,
        )
        with self.muxer:
            assert self.muxer.stop() == 0
