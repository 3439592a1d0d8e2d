"""What commands that work on recordings have in common: the parts of the muxer, beside a running one, and their clean end.

The body of the command runs in a thread of its own, so that a signal ends it at any moment; this thread shows how far it is.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

from muxer.app.assembly import build_services
from muxer.app.program_checks import ProgramChecks
from muxer.commands._shared.common import load_configuration
from muxer.commands._shared.progress_display import ProgressDisplay, open_display
from muxer.config.schema import Config
from muxer.errors import Code, MuxerError, Stopped, format_error
from muxer.log.setup import escape_control
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.pipeline.job import Job, JobOptions
from muxer.pipeline.services import Services
from muxer.pipeline.shared_temp import command_workspace
from muxer.status.error_help import help_for
from muxer.system.exit_codes import EXIT_FAILED
from muxer.system.masking import Mask
from muxer.system.process import Runner

DISPLAY_INTERVAL = 0.1
# So long what runs has time to end when the command is stopped: what hangs in a request is left behind.
END_TIMEOUT_SECONDS = 10.0
# What it means for a command when a service is out: nobody comes back to what it could not do.
OUTAGE_EFFECT = "what needs it cannot be done now"


# What a command found out or did: called when nothing else is shown any more, it prints that and returns the exit code.
Outcome = Callable[[], int]


@dataclass(frozen=True)
class EmbeddedMuxer:
    """The parts of the muxer for a command."""

    config: Config
    services: Services
    job: Job


class _CommandThread:
    """The body of a command in its thread, and how it ended."""

    def __init__(self, body: Callable[[EmbeddedMuxer], Outcome], parts: EmbeddedMuxer) -> None:
        self.outcome: Outcome = lambda: EXIT_FAILED
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run_body, args=(body, parts), name="command", daemon=True)
        self._thread.start()

    def _run_body(self, body: Callable[[EmbeddedMuxer], Outcome], parts: EmbeddedMuxer) -> None:
        try:
            self.outcome = body(parts)
        except BaseException as error:
            self.error = error

    def wait_for_end(self, seconds: float) -> bool:
        """Wait that long for its end; return whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()


def run_command(arguments: argparse.Namespace, body: Callable[[EmbeddedMuxer], Outcome], *, steps: bool) -> int:
    """Given the options and the body of a command, run it and return the exit code: that of its outcome, 1 after an error of
    ours, which is said on stderr, 128 and the number of the signal that ended it. ``steps``: each step is told.

    Raise :class:`~muxer.errors.ConfigError`.
    """
    os.umask(0o077)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    config = load_configuration(arguments).config
    mask, stop = Mask(config.secret_values), threading.Event()
    signals = _handle_signals(stop)
    runner = Runner(config.processing.openssl)
    tools = ProgramChecks(config.processing, runner).wait_for_tools()
    with command_workspace(config) as workspace, open_display(mask, steps=steps) as shown:
        services = build_services(config, tools, runner, workspace, stop, CircuitBreaker(OUTAGE_EFFECT))
        job = Job(services, JobOptions.from_config(config.advanced))
        running = _CommandThread(body, EmbeddedMuxer(config, services, job))
        _show_progress(running, services, shown)
        hangs = not _end_running(running, runner, services)
        shown.close()
    if stop.is_set():
        sys.stderr.write("stopped; what did not end in time is left behind\n" if hangs else "stopped\n")
    if hangs:
        logging.shutdown()
        os._exit(128 + signals[0])
    return 128 + signals[0] if signals else _report_error(running, mask)


def _show_progress(running: _CommandThread, services: Services, shown: ProgressDisplay) -> None:
    """Show how far it is, until it ends or is stopped."""
    while not running.wait_for_end(DISPLAY_INTERVAL) and not services.stop.is_set():
        shown.update_progress(services.activity.take_snapshot())
    if running.error is None:
        shown.update_progress(services.activity.take_snapshot())


def _end_running(running: _CommandThread, runner: Runner, services: Services) -> bool:
    """End what still runs; return whether all has ended."""
    if services.stop.is_set():
        runner.cancel_all()
    ended = running.wait_for_end(END_TIMEOUT_SECONDS)
    services.helpers.close()
    return ended


def _report_error(running: _CommandThread, mask: Mask) -> int:
    """Say which error ended the body, if any; return the exit code."""
    error = running.error
    if error is None:
        return running.outcome()
    if not isinstance(error, MuxerError) or isinstance(error, Stopped):
        raise error
    sys.stderr.write(f"{format_masked_error(error, mask)}\n")
    if error.code is not Code.CONFIGURATION:
        sys.stderr.write(f"what to do: {help_for(error.code)}\n")
    return EXIT_FAILED


def format_masked_error(error: Exception, mask: Mask) -> str:
    """Given an error of ours, return what the administrator is told: its code, its type and what it says, without secrets.
    What is wrong with the command line explains itself."""
    text = format_error(error)
    return mask(escape_control(text.removeprefix(f"{Code.CONFIGURATION} ")))


def _handle_signals(stop: threading.Event) -> list[int]:
    """Let a signal set ``stop``, and a second one end the process at once; return the list in which they are noted."""
    noted: list[int] = []

    def note_signal(number: int, _frame: object) -> None:
        noted.append(number)
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), note_signal)
    return noted
