"""The command lines and their exit codes; nothing else.

What the muxer works with is imported while the programs are checked, so that the first request goes out early.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from muxer import __version__
from muxer.app.program_checks import ProgramChecks
from muxer.config import LoadedConfig, load_config
from muxer.config.file import did_you_mean
from muxer.config.schema import Config, LogfileOptions
from muxer.errors import ConfigError, Problem
from muxer.log import setup
from muxer.log.setup import escape_control
from muxer.system.exit_codes import EXIT_CONFIG, EXIT_OK, handle_signals
from muxer.system.process import Runner

if TYPE_CHECKING:
    from muxer.app.daemon import Daemon

log = logging.getLogger("muxer")


def run_muxer(argv: Sequence[str]) -> int:
    """Given the arguments of ``muxer_process.py``, run the muxer and return its exit code."""
    set_umask()
    try:
        arguments = _create_parser().parse_args(_fix_split_option(argv))
        given = {name: getattr(arguments, name) or "" for name in ("muxer_type", "muxer_id", "total_muxers")}
        loaded = load_config(Path(arguments.config_file), given, os.environ)
        log_path = open_log(loaded.config, loaded.config.instance_name)
    except ConfigError as error:
        return report_config_error(error)
    try:
        return _run_daemon(loaded, log_path)
    except ConfigError as error:
        return report_config_error(error, logging_works=True)


def set_umask() -> None:
    """What every service does first: its files are for this account alone, and it needs no console."""
    os.umask(0o077)
    if sys.stderr is None or sys.stdout is None:
        sys.stderr = sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


def open_log(config: Config, name: str) -> Path:
    """Given the configuration and the name of this instance or worker, begin to log; return the path of the log file. Raise
    :class:`ConfigError`."""
    try:
        return setup.set_up_logging(config.logfile, name, config.secret_values)
    except OSError as error:
        what = f"the log file cannot be written: {error.filename or ''}: {error.strerror or error}"
        raise ConfigError([Problem("[logfile] logfile_path", what)]) from error


def _run_daemon(loaded: LoadedConfig, log_path: Path) -> int:
    config = loaded.config
    log.info("Recording Muxer %s starts as %s, process %d", __version__, config.instance_name, os.getpid())
    for warning in loaded.warnings:
        log.warning("%s", warning)
        sys.stderr.write(f"warning: {warning}\n")
    runner, stop = Runner(config.processing.openssl), threading.Event()
    handle_signals(stop)
    # The poller of a fleet runs no job, and needs no program.
    checks = None if config.is_fleet else ProgramChecks(config.processing, runner)

    from muxer.app.assembly import build_services
    from muxer.app.daemon import Daemon
    from muxer.media.ffmpeg import MediaTools
    from muxer.pipeline.job import Job, JobOptions
    from muxer.pipeline.workspace import Workspace

    tools = (
        checks.wait_for_tools() if checks is not None else MediaTools(config.processing.ffmpeg, config.processing.ffprobe)
    )
    processing = config.processing
    workspace = Workspace(processing.temp_dir, config.instance_name, processing.min_free_megabytes)
    log.info("temporary files are in %s", workspace.path)
    sys.stderr.write(f"Recording Muxer {__version__} runs as {config.instance_name}; log file: {log_path}\n")
    sys.stderr.flush()
    services = build_services(config, tools, runner, workspace, stop)
    daemon = Daemon(config, services, Job(services, JobOptions.from_config(config.advanced)), runner)
    with _monitoring_port(daemon, loaded):
        code = daemon.run()
    return exit_process(code)


def exit_process(code: int) -> int:
    """Given the exit code of a process whose work is over, return it; a thread that hangs in a request does not delay the
    end."""
    logging.shutdown()
    if threading.active_count() > 1:
        os._exit(code)
    return code


@contextmanager
def _monitoring_port(daemon: Daemon, loaded: LoadedConfig) -> Iterator[None]:
    """Within this block the monitoring port is open, if there is to be one; its libraries are loaded only then."""
    if not loaded.config.monitoring.http_port:
        yield
        return
    from muxer.monitoring.server import MonitoringServer

    server = MonitoringServer(daemon.create_view_sources(loaded.warnings))
    server.start()
    try:
        yield
    finally:
        server.stop()


def report_config_error(error: ConfigError, logging_works: bool = False) -> int:
    """Given what is wrong with the configuration, say it on stderr and in the log; return the exit code."""
    if not logging_works:
        try:
            setup.set_up_logging(_default_logfile(error.log_folder), "single", ())
        except (OSError, ConfigError):
            logging.getLogger().addHandler(logging.NullHandler())
    sys.stderr.write(f"The Recording Muxer cannot start ({error.code}):\n")
    for problem in error.problems:
        sys.stderr.write(f"  {problem}\n")
        log.critical("cannot start: %s %s", error.code, problem)
    for note in error.notes:
        sys.stderr.write(f"  (note) {note}\n")
        log.warning("%s", note)
    logging.shutdown()
    return EXIT_CONFIG


def _default_logfile(folder: Path | None) -> LogfileOptions:
    return LogfileOptions(logfile_path=folder, level="info", format="text", max_bytes=10485760, backup_count=10)


def _fix_split_option(argv: Sequence[str]) -> list[str]:
    """Return the arguments; the guide prints the first one for LCA with a blank in it, ``-- config-file=muxer.cfg``."""
    return [f"--{argv[1]}", *argv[2:]] if argv[:1] == ["--"] and len(argv) > 1 else list(argv)


class _StrictParser(argparse.ArgumentParser):
    """Refuses as a wrong configuration is refused: under LCA nobody sees stderr, so the log must say it too."""

    def error(self, message: str) -> NoReturn:
        """Raise :class:`ConfigError`."""
        raise ConfigError([Problem("command line", message)], notes=[" ".join(self.format_usage().split())])


def _create_parser() -> argparse.ArgumentParser:
    parser = _StrictParser(
        prog="muxer_process.py",
        description="Joins call and screen recordings of Genesys Interaction Recording.",
        allow_abbrev=False,
    )
    parser.add_argument("--config-file", required=True, metavar="CONFIG_FILE", help="path of muxer.cfg")
    parser.add_argument("--muxer-type", help="primary or backup; overrides the file")
    parser.add_argument("--muxer-id", help="number of this instance from 0, -1 = no sharding; overrides the file")
    parser.add_argument("--total-muxers", help="number of primary instances; overrides the file")
    parser.add_argument("--version", action="version", version=f"Recording Muxer {__version__}")
    return parser


def main(argv: Sequence[str]) -> int:
    """Given the arguments of ``python -m muxer``, run the command they name and return its exit code."""
    name, rest = (argv[0], argv[1:]) if argv else ("", [])
    if name == "run":
        return run_muxer(rest)
    if name in COMMANDS:
        module: Any = importlib.import_module(COMMANDS[name][0])
        return int(module.main(rest))
    if name in ("-h", "--help", "help"):
        sys.stdout.write(_usage_text())
        return EXIT_OK
    if name in ("-V", "--version"):
        sys.stdout.write(f"Recording Muxer {__version__}\n")
        return EXIT_OK
    sys.stderr.write(f"{_unknown_command_text(name)}\n\n{_usage_text()}" if name else _usage_text())
    return EXIT_CONFIG


def command() -> NoReturn:
    """Run ``recording-muxer``, the command that installing the package makes."""
    sys.exit(main(sys.argv[1:]))


# What ``python -m muxer`` can do beside ``run``: the module whose ``main`` does it, and what it is for.
COMMANDS = {
    "check": ("muxer.commands.check", "is everything in place? configuration, programs, folders, services, certificates"),
    "config": ("muxer.commands.config", "the effective configuration, and where each value comes from"),
    "status": ("muxer.commands.status", "how the running instance stands: what it does, its polls, its failures"),
    "failed": ("muxer.commands.failed", "what was set aside or waits for another attempt, and why"),
    "retry": ("muxer.commands.retry", "put back what has failed"),
    "plan": ("muxer.commands.plan", "what would be made of a call recording, drawn, and by which commands; writes nothing"),
    "mux": ("muxer.commands.mux", "make the muxed files of a call recording now, with progress"),
    "worker": ("muxer.commands.worker", "a worker of the fleet: takes work from RabbitMQ, on any number of machines"),
    "lab": ("lab.serve", "a small GIR on this machine, to try options without touching production"),
    "demo": ("lab.demo", "the muxer on the lab, from recordings to muxed files, with a table at the end"),
}


def _usage_text() -> str:
    lines = [f"  {name:<8}{what}" for name, (_, what) in COMMANDS.items()]
    run_line = f"  {'run':<8}the muxer itself, as muxer_process.py starts it"
    head = "usage: python -m muxer COMMAND …, also recording-muxer COMMAND …; COMMAND --help tells more"
    foot = "  --version, --help"
    return "\n".join([head, "", run_line, *lines, "", foot, ""])


def _unknown_command_text(name: str) -> str:
    """Say that there is no such command, and which one may be meant."""
    return f"there is no command {escape_control(name)!r}{did_you_mean(name, ('run', *COMMANDS))}"
