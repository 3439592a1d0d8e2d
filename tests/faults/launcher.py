"""Runs the muxer as muxer_process.py does, but kills itself with SIGKILL at a named point (see kill_points.py).

The file named by MUXER_KILL_AT contains the name of the point; while it is empty, nothing is killed. The product
does not contain these points: its functions are wrapped here.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from muxer.app import cli  # noqa: E402
from muxer.journal import journal, retry_policy  # noqa: E402
from muxer.net import transfer  # noqa: E402
from muxer.pipeline import job, store_and_publish  # noqa: E402
from muxer.storage import webdav  # noqa: E402
from muxer.system import files, intent_log  # noqa: E402
from muxer.system.process import Runner  # noqa: E402
from tests.faults.kill_points import CALL_POINTS, KillPoint, resolve_owner  # noqa: E402

ARMED = Path(os.environ["MUXER_KILL_AT"])
# The muxer waits for a file of another instance; here that instance is always dead.
store_and_publish.PUBLISH_WAIT_SECONDS = retry_policy.FIRST_DELAY_SECONDS = 1.0
transfer.CHUNK_BYTES = files.BUFFER_BYTES = 4096


def is_armed(point: str) -> bool:
    """Return whether the process is to be killed at this point."""
    return ARMED.read_text() == point


def die_if_armed(point: str) -> None:
    """Kill the process when it is to be killed at this point."""
    if is_armed(point):
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)


def wrap_call(point: str, call: KillPoint) -> None:
    """Wrap a function so that the process is killed before or after its n-th call since the point was armed."""
    owner, name = resolve_owner(call.where)
    original, count = getattr(owner, name), iter(range(1, 1_000_000))

    def call_or_die(*args: Any, **kwargs: Any) -> Any:
        here = is_armed(point) and next(count) == call.number
        if here and not call.after:
            die_if_armed(point)
        result = original(*args, **kwargs)
        if here and call.after:
            die_if_armed(point)
        return result

    setattr(owner, name, call_or_die)


def wrap_steps() -> None:
    original = job.JobReport.time_step

    @contextmanager
    def run_step(self: job.JobReport, name: str) -> Iterator[None]:
        die_if_armed(f"before {name}")
        with original(self, name):
            yield
        die_if_armed(f"after {name}")

    job.JobReport.time_step = run_step


def wrap_programs() -> None:
    original = Runner._start_program

    def start_program(self: Runner, arguments: list[str], *rest: Any) -> Any:
        of_a_job = any("muxer-job-" in str(one) for one in (*arguments, *rest))
        point = f"{Path(arguments[0]).name} runs"
        if of_a_job and is_armed(point):
            # A program that does not end by itself.
            arguments = [sys.executable, "-c", "import time; time.sleep(600)", *arguments]
        process = original(self, arguments, *rest)
        if of_a_job:
            die_if_armed(point)
        return process

    Runner._start_program = start_program  # type: ignore[assignment]


def wrap_streams() -> None:
    """Kill the process when a part of a body has been received or sent."""
    receive, body = transfer.receive_file, webdav._UploadBody.__iter__

    def broken_chunks(chunks: Iterator[bytes], point: str) -> Iterator[bytes]:
        for number, chunk in enumerate(chunks):
            if number == 2:
                die_if_armed(point)
            yield chunk

    def half_fetched(chunks: Iterable[bytes], *rest: Any, **named: Any) -> int:
        return receive(broken_chunks(iter(chunks), "a source is half fetched"), *rest, **named)

    transfer.receive_file = half_fetched  # type: ignore[assignment]
    webdav._UploadBody.__iter__ = lambda self: broken_chunks(body(self), "the upload is half done")


class HalfWrittenFile:
    """A file whose write is interrupted by a kill."""

    def __init__(self, file: Any, point: str) -> None:
        self._file, self._point = file, point

    def write(self, data: bytes) -> None:
        self._file.write(data[: len(data) // 2])
        self._file.flush()
        die_if_armed(self._point)
        self._file.write(data[len(data) // 2 :])


def half_written_point(path: Path) -> str:
    name = path.parent.name
    return "the crash file is half written" if name == "publishing" else f"the record in {name} is half written"


def wrap_files(module: Any, point: Callable[[Path], str]) -> None:
    original = module.open_private

    @contextmanager
    def private_file(path: Path) -> Iterator[Any]:
        with original(path) as file:
            yield HalfWrittenFile(file, point(path))

    module.open_private = private_file


def wrap_journal() -> None:
    """Kill the process within a statement that writes a state, not between two statements."""
    original = journal._connect_database

    def connect_traced(path: Path, patience: float, left: str) -> Any:
        database = original(path, patience, left)
        operations: list[int] = []

        def trace_statement(statement: str) -> None:
            if statement.lstrip().startswith("INSERT INTO targets"):
                operations[:] = [0]

        def count_operation() -> int:
            if operations:
                operations[0] += 1
                if operations[0] == 20:
                    die_if_armed("a state is half written to the journal")
            return 0

        database.set_trace_callback(trace_statement)
        database.set_progress_handler(count_operation, 1)
        return database

    journal._connect_database = connect_traced  # type: ignore[assignment]


def main() -> int:
    if "MUXER_HURRY" in os.environ:
        from tests.faults.shorten_timeouts import shorten_timeouts

        shorten_timeouts(setattr)
    for point, call in CALL_POINTS.items():
        wrap_call(point, call)
    wrap_steps()
    wrap_programs()
    wrap_streams()
    wrap_files(intent_log, half_written_point)
    wrap_journal()
    return cli.run_muxer(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
