"""A fleet as an administrator runs it: a poller and any number of workers, as processes that share one muxer.cfg."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lab.lab import Lab
from tests.support.commands import clean_environment, run_in_process
from tests.support.daemon import PACKAGE, log_lines, wait_until

QUEUE = "muxing"
TIMEOUT_SECONDS = 60
LAUNCHER = Path(__file__).with_name("fleet_launcher.py")
# Shorter delays, which an administrator cannot configure, so that tests need not wait for them.
SHORT_INTERVALS: dict[str, Any] = {
    "muxer.fleet.executor.QUEUE_POLL_INTERVAL": 0.5,
    "muxer.fleet.control_connection.RECONNECT_SECONDS": 0.3,
    "muxer.app.daemon.MIN_MANUAL_GAP": 0.3,
    "muxer.fleet.worker.WORKER_HEARTBEAT_INTERVAL": 1.0,
}


class FleetProcess:
    """A process of a fleet. Its output goes into separate files next to its configuration."""

    def __init__(self, line: list[str], environment: Mapping[str, str], printed: Path) -> None:
        self._printed = printed
        with printed.open("w") as out:
            self.process = subprocess.Popen(
                line, cwd=PACKAGE.parent, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, text=True
            )

    def __enter__(self) -> FleetProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def printed_text(self) -> str:
        """The output of the process."""
        return self._printed.read_text()

    def stop(self, number: int = signal.SIGTERM, seconds: float = 20) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self.stop(signal.SIGKILL)


class FleetProcesses:
    """The processes of a fleet: ``with FleetProcesses(lab, url) as crew``. They end with the block.

    It writes muxer.cfg with further options to a folder `name`; `url` is the address of the broker. `constants` change
    constants of the product in addition to the delays of :data:`SHORT_INTERVALS`. `inside` is a prefix of the commands.
    """

    def __init__(
        self,
        lab: Lab,
        url: str,
        name: str = "fleet",
        constants: Mapping[str, Any] | None = None,
        inside: Sequence[str] = (),
        **options: str,
    ) -> None:
        self.folder = lab.folder / name
        self.temp, self._logs = self.folder / "temp", self.folder / "log"
        self._constants, self._inside = SHORT_INTERVALS | dict(constants or {}), inside
        self._stack, self._count = ExitStack(), iter(range(1000))
        settings = {
            "processing.temp_dir": str(self.temp),
            "processing.min_poll_interval": "0.01",
            "logfile.logfile_path": str(self._logs),
            "logfile.format": "json",
            "fleet.mode": "broker",
            "fleet.broker_url": url,
            "fleet.queue": QUEUE,
        }
        self.config = self.folder / "muxer.cfg"
        self.config.parent.mkdir(exist_ok=True)
        self.config.write_text(lab.config_text(**settings | {key.replace("__", "."): one for key, one in options.items()}))
        self.log = self._logs / "recording-muxer-single.log"

    def __enter__(self) -> FleetProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_poller(self, **environment: str) -> FleetProcess:
        """Start the poller."""
        return self._start_process("run", environment)

    def start_worker(self, **environment: str) -> FleetProcess:
        """Start one more worker."""
        return self._start_process("worker", environment)

    def start_workers(self, number: int) -> list[FleetProcess]:
        """Start some workers."""
        return [self.start_worker() for _ in range(number)]

    @property
    def worker_logs(self) -> list[Path]:
        """The logs of the workers."""
        return sorted(self._logs.glob("recording-muxer-worker-*.log"))

    @property
    def muxed_counts(self) -> Counter[str]:
        """The recordings that the workers have logged as muxed, with the number of times."""
        return Counter(line["recording"] for line in self.worker_lines("recording muxed"))

    def worker_lines(self, message: str) -> list[dict[str, Any]]:
        """Return the lines of the workers' logs with a message."""
        return [line for log in self.worker_logs for line in log_lines(log) if line["message"].startswith(message)]

    def poller_lines(self, message: str) -> list[dict[str, Any]]:
        """Return the lines of the poller's log with a message."""
        return [line for line in log_lines(self.log) if line["message"].startswith(message)]

    def wait_for_workers(self, number: int) -> None:
        """Wait until `number` workers have started in total."""
        wait_until(
            lambda: len(self.worker_lines("temporary files are in")) >= number,
            TIMEOUT_SECONDS,
            f"the start of {number} workers",
        )

    def run_json(self, command: str, *arguments: str) -> Any:
        """Run a command next to the poller in this process; return its JSON."""
        return json.loads(run_in_process(self.config, command, "--json", *arguments)[1])

    def _start_process(self, command: str, environment: Mapping[str, str]) -> FleetProcess:
        line = [*self._inside, sys.executable, str(LAUNCHER), command, f"--config-file={self.config}"]
        more = {"FLEET_CONSTANTS": json.dumps(self._constants), **environment}
        printed = self.folder / f"{command}-{next(self._count)}.txt"
        return self._stack.enter_context(FleetProcess(line, clean_environment(**more), printed))


def stop_processes(*members: FleetProcess, seconds: float = TIMEOUT_SECONDS) -> list[int]:
    """Stop processes of a fleet at the same time; return their exit codes."""
    for member in members:
        os.kill(member.process.pid, signal.SIGTERM)
    return [member.process.wait(seconds) for member in members]
