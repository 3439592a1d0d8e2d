"""Runs the body of a command in a separate thread, so that a signal can end it at any time, and shows progress."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from muxer.app.program_checks import ProgramChecks
from muxer.app.service import ServiceParts, assemble_parts
from muxer.commands._shared.common import load_configuration
from muxer.commands._shared.progress_display import ProgressDisplay, open_display
from muxer.errors import MuxerError, Stopped, format_error
from muxer.log.setup import escape_control
from muxer.pipeline.services import Services
from muxer.pipeline.shared_temp import command_workspace
from muxer.status.error_help import help_for
from muxer.system.exit_codes import EXIT_FAILED
from muxer.system.masking import Mask
from muxer.system.process import Runner

DISPLAY_INTERVAL = 0.1
# Time for the body to end after a signal; a hanging request is abandoned.
END_TIMEOUT_SECONDS = 10.0
# The effect of an unavailable service on a command, for the log message: a command does not resume.
OUTAGE_EFFECT = "this command cannot use it now"

# The result of a body: called after the progress display is closed, prints the result and returns the exit code.
Outcome = Callable[[], int]


class _CommandThread:
    """The thread of the body of a command, and its outcome or error."""

    def __init__(self, body: Callable[[ServiceParts], Outcome], muxer: ServiceParts) -> None:
        self.outcome: Outcome = lambda: EXIT_FAILED
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run_body, args=(body, muxer), name="command", daemon=True)
        self._thread.start()

    def _run_body(self, body: Callable[[ServiceParts], Outcome], muxer: ServiceParts) -> None:
        try:
            self.outcome = body(muxer)
        except BaseException as error:
            self.error = error

    def wait_for_end(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()


def run_command(
    arguments: argparse.Namespace, body: Callable[[ServiceParts], Outcome], *, steps: bool, needs_programs: bool = True
) -> int:
    """Run the body of a command and return its exit code; 128 plus the number of a signal. Raises ConfigError.

    ffmpeg, ffprobe and openssl are tried before when the body `needs_programs`.
    """
    os.umask(0o077)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    config = load_configuration(arguments).config
    mask, stop = Mask(config.secret_values), threading.Event()
    runner = Runner(config.processing.openssl)
    checks = ProgramChecks(config.processing, runner) if needs_programs else None
    with (
        _handled_signals(stop) as signals,
        command_workspace(config) as workspace,
        open_display(mask, steps=steps) as display,
    ):
        parts = assemble_parts(config, runner, checks, lambda: workspace, stop, OUTAGE_EFFECT)
        running = _CommandThread(body, parts)
        _show_progress(running, parts.services, display)
        hangs = not _end_running(running, runner, parts.services)
        display.close()
    if stop.is_set():
        sys.stderr.write("stopped; a request that did not end in time was abandoned\n" if hangs else "stopped\n")
    if hangs:
        logging.shutdown()
        os._exit(128 + signals[0])
    return 128 + signals[0] if signals else _report_error(running, mask)


def _show_progress(running: _CommandThread, services: Services, display: ProgressDisplay) -> None:
    while not running.wait_for_end(DISPLAY_INTERVAL) and not services.stop.is_set():
        display.update_progress(services.activity.take_snapshot())
    if running.error is None:
        display.update_progress(services.activity.take_snapshot())


def _end_running(running: _CommandThread, runner: Runner, services: Services) -> bool:
    """Stop the programs after a signal; return whether the body has ended."""
    if services.stop.is_set():
        runner.cancel_all()
    ended = running.wait_for_end(END_TIMEOUT_SECONDS)
    services.helpers.close()
    return ended


def _report_error(running: _CommandThread, mask: Mask) -> int:
    """Print the error that ended the body, or its outcome; return the exit code."""
    error = running.error
    if error is None:
        return running.outcome()
    if not isinstance(error, MuxerError) or isinstance(error, Stopped):
        raise error
    sys.stderr.write(f"{format_masked_error(error, mask)}\nwhat to do: {help_for(error.code)}\n")
    return EXIT_FAILED


def format_masked_error(error: Exception, mask: Mask) -> str:
    """Return code, type and text of an error, without secrets."""
    return mask(escape_control(format_error(error)))


@contextmanager
def _handled_signals(stop: threading.Event) -> Iterator[list[int]]:
    """Let a signal set `stop` and a second one exit at once; yield the list to which received signals are added."""
    received: list[int] = []

    def receive_signal(number: int, _frame: object) -> None:
        received.append(number)
        if len(received) > 1:
            os._exit(128 + number)
        stop.set()

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGBREAK") if hasattr(signal, name)]
    earlier = {number: signal.signal(number, receive_signal) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in earlier.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
