"""``python -m lab``: runs the lab in the foreground until SIGINT or SIGTERM."""

import argparse
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lab.errors import LabError, missing_module_error
from lab.switches import ALLOWED_VALUES, DEFAULT_SWITCHES, Switches

if TYPE_CHECKING:
    from lab.lab import Lab

FAILED = 1
RECENT_CALL_AGE = timedelta(seconds=30)
EXPLANATION = """\
A small GIR installation is running on this computer. All recordings are generated, and nothing is kept.

  RWS     {rws}   (user {rws_user})
  RCS     {rcs}   (user {rcs_user})
  WebDAV  {dav}   (user {dav_user})
  folder  {folder}

Calls:
{calls}

Save the following as muxer.cfg and start the muxer with it. End the lab with Ctrl-C.
"""


def main(argv: Sequence[str]) -> int:
    """Run the lab with the given command line until SIGINT or SIGTERM. Returns 0, or 1 if the lab cannot run."""
    options = _create_parser().parse_args(argv)
    try:
        switches = Switches(**{field.name: getattr(options, field.name) for field in fields(Switches)})
        _serve_lab(options, switches)
    except ModuleNotFoundError as error:
        return _report_error(missing_module_error(error.name))
    except (LabError, OSError, ValueError) as error:
        return _report_error(error)
    return 0


def _report_error(error: Exception) -> int:
    print(f"lab: {error}", file=sys.stderr)
    return FAILED


def _create_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab",
        description="Run a small GIR installation with generated recordings. `python -m lab demo` runs the muxer on it.",
    )
    parser.add_argument("--folder", type=Path, help="folder for media and keys (default: temporary, removed at the end)")
    for service in ("rws", "rcs", "dav"):
        parser.add_argument(f"--port-{service}", type=int, default=0, help="TCP port on 127.0.0.1 (default: any)")
    parser.add_argument("--config", type=Path, help="also write the muxer.cfg to this file")
    parser.add_argument("--late-after", type=float, default=20, metavar="SECONDS", help="when the late screen appears")
    parser.add_argument(
        "--new-call-every", type=float, default=0, metavar="SECONDS", help="add a call at this interval (default 0: never)"
    )
    group = parser.add_argument_group("deviations that an RWS may have")
    for field in fields(Switches):
        group.add_argument(
            f"--{field.name.replace('_', '-')}", **_switch_arguments(field.name, getattr(DEFAULT_SWITCHES, field.name))
        )
    return parser


def _switch_arguments(name: str, default: bool | int | str) -> dict[str, Any]:
    """Return the argparse arguments for one switch; its help is its line in the docstring of Switches."""
    line = re.search(rf"^ *{name}: (.+)$", Switches.__doc__ or "", re.MULTILINE)
    common = {"default": default, "help": f"{line[1] if line else ''} (default: %(default)s)"}
    if isinstance(default, bool):
        return {"action": argparse.BooleanOptionalAction, **common}
    return {"type": type(default), "choices": ALLOWED_VALUES.get(name), **common}


def _serve_lab(options: argparse.Namespace, switches: Switches) -> None:
    with ExitStack() as stack:
        stop = stack.enter_context(_stop_signal())
        folder = options.folder or Path(stack.enter_context(TemporaryDirectory(prefix="muxer-lab-")))
        try:
            _run_lab(options, switches, folder, stop)
        except LabError:
            if not stop.is_set():  # else ffmpeg ended because Ctrl-C reached it as well
                raise


def _run_lab(options: argparse.Namespace, switches: Switches, folder: Path, stop: threading.Event) -> None:
    from lab.lab import Lab, LabPorts

    with Lab(folder, switches, ports=LabPorts(options.port_rws, options.port_rcs, options.port_dav)) as lab:
        calls = lab.add_cases()
        _print_introduction(lab, "\n".join(f"  {call.id}  {call.plan.name}" for call in calls), options.config)
        _add_live_calls(lab, stop, options.late_after, options.new_call_every)


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set; the previous handlers are restored afterwards."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_introduction(lab: "Lab", calls: str, config: Path | None) -> None:
    site = lab.site
    print(
        EXPLANATION.format(
            rws=lab.rws_url,
            rws_user=site.rws_account.username,
            rcs=lab.rcs_url,
            rcs_user=site.rcs_account.username,
            dav=lab.dav_url,
            dav_user=site.dav_account.username,
            folder=lab.folder,
            calls=calls,
        )
    )
    print(lab.config_text(), flush=True)
    if config:
        config.write_text(lab.config_text(), encoding="utf-8")


def _add_live_calls(lab: "Lab", stop: threading.Event, late_after: float, new_call_every: float) -> None:
    """Until the stop: publish the late screen at its time, and add plain calls with new ids."""
    from lab.cases import Case

    late_at = time.monotonic() + late_after
    call_at = time.monotonic() + new_call_every if new_call_every > 0 else float("inf")
    serial = 0
    while not stop.wait(0.2):
        now = time.monotonic()
        if now >= late_at:
            late_at = float("inf")
            lab.deliver_late()
        if now >= call_at:
            call_at, serial = now + new_call_every, serial + 1
            lab.add_case(Case.PLAIN, datetime.now(UTC) - RECENT_CALL_AGE, serial)
