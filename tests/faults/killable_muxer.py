"""A muxer that can be told where to die, and is started again after it has."""

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
    """One instance on a lab, with folders of its own."""

    def __init__(self, lab: Lab, name: str, *, hurried: bool = False, **options: str) -> None:
        """Given a lab, a name, whether its time limits are short, and further options of muxer.cfg, start it."""
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
        """Start it, to die at a point, or to live for now."""
        self.arm_point(armed)
        self.muxer = MuxerProcess(self.config, env=self._env, package=LAUNCHER.parent, script=LAUNCHER.name)

    def arm_point(self, point: str) -> None:
        """Let it die when it next comes to a point."""
        fresh = self._armed.with_suffix(".new")
        fresh.write_text(point)
        fresh.replace(self._armed)

    def kill(self) -> None:
        """Kill it now."""
        self.muxer.process.kill()
        self.wait_until_dead()

    def wait_for_kill(self, at_the_latest: Callable[[], object]) -> None:
        """Wait until it has come to its point and died; kill it when the latest moment comes first."""
        process = self.muxer.process
        wait_until(lambda: process.poll() is not None or at_the_latest(), TIMEOUT_SECONDS, "the death", self.log)
        self.kill()

    def wait_until_dead(self) -> None:
        """Wait until it has died by SIGKILL, and left no program running."""
        wait_until(lambda: self.muxer.process.poll() is not None, TIMEOUT_SECONDS, "the death", self.log)
        self.muxer.process.communicate()
        assert self.muxer.process.returncode == -signal.SIGKILL, self.log.read_text()[-2000:]
        wait_until(lambda: not find_orphans(self.temp), 5, "the end of its programs")
        run_counters.KILLS.increase()

    def stop(self) -> None:
        """Stop it well."""
        with self.muxer:
            assert self.muxer.stop() == 0
