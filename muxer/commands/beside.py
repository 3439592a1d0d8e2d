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

from muxer.commands.common import loaded
from muxer.commands.display import Display, display
from muxer.config.schema import Config
from muxer.errors import Code, MuxerError, Stopped, told
from muxer.exits import EXIT_FAILED
from muxer.guests import guest
from muxer.job import Job, JobOptions, Services
from muxer.masking import Mask
from muxer.observe.logs import plain
from muxer.outages import Outages
from muxer.process import Runner
from muxer.remedies import remedy
from muxer.services import build
from muxer.startup import ProgramChecks

LOOK_SECONDS = 0.1
# So long what runs has time to end when the command is stopped: what hangs in a request is left behind.
END_SECONDS = 10.0
# What it means for a command when a service is out: nobody comes back to what it could not do.
OUTAGE = "what needs it cannot be done now"


# What a command found out or did: called when nothing else is shown any more, it prints that and returns the exit code.
Outcome = Callable[[], int]


@dataclass(frozen=True)
class Beside:
    """The parts of the muxer for a command."""

    config: Config
    services: Services
    job: Job


class _Body:
    """The body of a command in its thread, and how it ended."""

    def __init__(self, body: Callable[[Beside], Outcome], parts: Beside) -> None:
        self.outcome: Outcome = lambda: EXIT_FAILED
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(body, parts), name="command", daemon=True)
        self._thread.start()

    def _run(self, body: Callable[[Beside], Outcome], parts: Beside) -> None:
        try:
            self.outcome = body(parts)
        except BaseException as error:
            self.error = error

    def ended(self, seconds: float) -> bool:
        """Wait that long for its end; return whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()


def run_beside(arguments: argparse.Namespace, body: Callable[[Beside], Outcome], *, steps: bool) -> int:
    """Given the options and the body of a command, run it and return the exit code: that of its outcome, 1 after an error of
    ours, which is said on stderr, 128 and the number of the signal that ended it. ``steps``: each step is told.

    Raise :class:`~muxer.errors.ConfigError`.
    """
    os.umask(0o077)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    config = loaded(arguments).config
    mask, stop = Mask(config.secrets), threading.Event()
    signals = _signals(stop)
    runner = Runner(config.processing.openssl)
    tools = ProgramChecks(config.processing, runner).tools()
    with guest(config) as workspace, display(mask, steps=steps) as shown:
        services = build(config, tools, runner, workspace, stop, Outages(OUTAGE))
        job = Job(services, JobOptions.of(config.advanced))
        running = _Body(body, Beside(config, services, job))
        _attend(running, services, shown)
        hangs = not _end(running, runner, services)
        shown.close()
    if stop.is_set():
        sys.stderr.write("stopped; what did not end in time is left behind\n" if hangs else "stopped\n")
    if hangs:
        logging.shutdown()
        os._exit(128 + signals[0])
    return 128 + signals[0] if signals else _told(running, mask)


def _attend(running: _Body, services: Services, shown: Display) -> None:
    """Show how far it is, until it ends or is stopped."""
    while not running.ended(LOOK_SECONDS) and not services.stop.is_set():
        shown.tick(services.activity.snapshot())
    if running.error is None:
        shown.tick(services.activity.snapshot())


def _end(running: _Body, runner: Runner, services: Services) -> bool:
    """End what still runs; return whether all has ended."""
    if services.stop.is_set():
        runner.cancel()
    ended = running.ended(END_SECONDS)
    services.helpers.close()
    return ended


def _told(running: _Body, mask: Mask) -> int:
    """Say which error ended the body, if any; return the exit code."""
    error = running.error
    if error is None:
        return running.outcome()
    if not isinstance(error, MuxerError) or isinstance(error, Stopped):
        raise error
    sys.stderr.write(f"{say(error, mask)}\n")
    if error.code is not Code.CONFIGURATION:
        sys.stderr.write(f"what to do: {remedy(error.code)}\n")
    return EXIT_FAILED


def say(error: Exception, mask: Mask) -> str:
    """Given an error of ours, return what the administrator is told: its code, its type and what it says, without secrets.
    What is wrong with the command line explains itself."""
    text = told(error)
    return mask(plain(text.removeprefix(f"{Code.CONFIGURATION} ")))


def _signals(stop: threading.Event) -> list[int]:
    """Let a signal set ``stop``, and a second one end the process at once; return the list in which they are noted."""
    noted: list[int] = []

    def handle(number: int, _frame: object) -> None:
        noted.append(number)
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handle)
    return noted
