"""The commands of an administrator, one module each, and the command line that runs them: ``python -m muxer COMMAND``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from muxer import __version__
from muxer.app.cli import run_muxer
from muxer.config.file import did_you_mean
from muxer.log.setup import escape_control
from muxer.log.terminal import escape_unencodable_output
from muxer.system.exit_codes import EXIT_CONFIG, EXIT_OK, ignore_hangup
from muxer.system.packages import find_package_problems, package_advice
from muxer.system.program_name import typed_name

# The module whose `main` runs the command, and what the command does.
COMMANDS = {
    "check": ("muxer.commands.check", "test everything: configuration, programs, folders, services, certificates"),
    "config": ("muxer.commands.config", "show the effective configuration and where each value comes from"),
    "status": ("muxer.commands.status", "show what the running instance does, its polls and its failures"),
    "failed": ("muxer.commands.failed", "list the recordings that are set aside or wait for another attempt, and why"),
    "retry": ("muxer.commands.retry", "requeue failed recordings"),
    "plan": ("muxer.commands.plan", "show how a call recording would be muxed, and the commands; writes nothing"),
    "mux": ("muxer.commands.mux", "mux a call recording now and show the progress"),
    "audit": ("muxer.commands.audit", "prove that every call recording is muxed, whole and where its metadata say; repair"),
    "support-bundle": ("muxer.commands.support_bundle", "write one archive for support, without secrets and names"),
    "worker": ("muxer.commands.worker", "run a worker of the fleet, which takes its tasks from RabbitMQ"),
    "service": ("muxer.commands.service", "install, start, stop or remove the service of Windows"),
    "lab": ("lab.serve", "run a small GIR on this machine, to try options without touching production"),
    "demo": ("lab.demo", "run the muxer on the lab, from recordings to muxed files, and print a table"),
}


def main(argv: Sequence[str]) -> int:
    """Run the command that the arguments of ``python -m muxer`` name. Returns its exit code."""
    escape_unencodable_output()
    name, rest = (argv[0], argv[1:]) if argv else ("", [])
    if name == "run":
        return run_muxer(rest, f"{typed_name()} run")
    if name in COMMANDS:
        return _run_command(COMMANDS[name][0], rest)
    if name in ("-h", "--help", "help"):
        sys.stdout.write(_usage_text())
        return EXIT_OK
    if name in ("-V", "--version"):
        sys.stdout.write(f"Recording Muxer {__version__}\n")
        return EXIT_OK
    unknown = f"there is no command {escape_control(name)!r}{did_you_mean(name, ('run', *COMMANDS))}\n\n" if name else ""
    sys.stderr.write(f"{unknown}{_usage_text()}")
    return EXIT_CONFIG


def run_console_script() -> NoReturn:
    """Run ``recording-muxer``, the command that an installed package provides."""
    sys.exit(main(sys.argv[1:]))


def _run_command(module_name: str, argv: Sequence[str]) -> int:
    try:
        module: Any = importlib.import_module(module_name)
    except ImportError as error:
        if error.name == "lab":
            sys.stderr.write("The lab is not part of this installation. Run it from the source folder: python -m lab\n")
        elif problems := find_package_problems(is_fleet := module_name == COMMANDS["worker"][0]):
            sys.stderr.writelines(f"{line}\n" for line in (*problems, f"install them: {package_advice(is_fleet)}"))
        else:
            raise
        return EXIT_CONFIG
    if not module_name.startswith("lab."):
        ignore_hangup()
    return int(module.main(argv))


def _usage_text() -> str:
    has_lab = importlib.util.find_spec("lab") is not None
    return "\n".join(
        [
            f"usage: {typed_name()} COMMAND …; COMMAND --help shows its options",
            "",
            f"  {'run':<15}run the muxer itself, as muxer_process.py does",
            *(f"  {name:<15}{summary}" for name, (module, summary) in COMMANDS.items() if has_lab or module[:4] != "lab."),
            "",
            "  --version, --help",
            "",
        ]
    )
