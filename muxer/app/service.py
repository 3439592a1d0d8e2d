"""The life of a process, from its configuration to its exit code. Modules load while the programs are checked."""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from muxer import __version__
from muxer.app.program_checks import ProgramChecks
from muxer.config import LoadedConfig
from muxer.config.load import locate_problems
from muxer.config.schema import FILE_OUTPUT, Config, LogfileOptions
from muxer.errors import ConfigError, Problem
from muxer.log import setup
from muxer.log.outputs import REFUSED_NAME, describe_output, is_on_stderr, is_stderr_seen
from muxer.log.reopen import watch_log
from muxer.log.terminal import escape_unencodable_output, write_text
from muxer.system.exit_codes import EXIT_CONFIG, EXIT_FAILED, handle_signals, ignore_hangup
from muxer.system.file_lock import LockHeld
from muxer.system.packages import find_package_problems, package_advice
from muxer.system.process import Runner

if TYPE_CHECKING:
    from muxer.pipeline.job import Job
    from muxer.pipeline.services import Services
    from muxer.pipeline.workspace import Workspace

log = logging.getLogger("muxer")

# The name in the log file of a start that is refused because of its configuration.
DEFAULT_NAME = "single"


@dataclass(frozen=True)
class ServiceParts:
    """What works on recordings, ready to run. `warnings` are what is odd about the configuration."""

    config: Config
    runner: Runner
    services: Services
    job: Job
    warnings: tuple[str, ...] = ()


def run_service(
    load: Callable[[], LoadedConfig],
    claim: Callable[[Config], tuple[str, Callable[[], Workspace]]],
    body: Callable[[str, ServiceParts], int],
    *,
    needs_programs: Callable[[Config], bool] = lambda _: True,
    stop: threading.Event | None = None,
) -> int:
    """Run a service from its configuration to its end. Returns its exit code.

    Signals stop it, and it ends the process when a thread still hangs. With `stop`, both are the task of the caller.

    `load` reads the configuration. `claim` returns the name of this process, also that of its log file, and a function that
    opens its temporary folder. `body` does the work.
    """
    set_umask()
    escape_unencodable_output()
    ignore_hangup()
    logging_works = False
    origins: Mapping[tuple[str, str], str] = {}
    try:
        loaded = load()
        origins = loaded.config.origins
        name, open_workspace = _claim_folder(loaded.config, claim)
        open_log(loaded.config, name)
        logging_works = True
        with watch_log():
            with _paused_collections():
                parts = _start_parts(loaded, name, open_workspace, needs_programs, stop)
            code = body(name, parts)
    except ConfigError as error:
        return report_config_error(error, logging_works, origins)
    except Exception:
        log.critical("the process ends because of an unexpected error", exc_info=True)
        code = EXIT_FAILED
    if stop is not None:
        logging.shutdown()
        return code
    return exit_process(code)


def _claim_folder(
    config: Config, claim: Callable[[Config], tuple[str, Callable[[], Workspace]]]
) -> tuple[str, Callable[[], Workspace]]:
    """Return what `claim` returns. Its ConfigError gets the options of the log, which is not open yet."""
    try:
        return claim(config)
    except ConfigError as error:
        error.logfile = error.logfile or vars(config.logfile)
        raise


@contextmanager
def _paused_collections() -> Iterator[None]:
    """Load modules without garbage collections, which find nothing and cost a twentieth of the start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _start_parts(
    loaded: LoadedConfig,
    name: str,
    open_workspace: Callable[[], Workspace],
    needs_programs: Callable[[Config], bool],
    stop: threading.Event | None,
) -> ServiceParts:
    config = loaded.config
    log.info("Recording Muxer %s starts as %s, process %d", __version__, name, os.getpid())
    for warning in loaded.warnings:
        log.warning("%s", warning)
        _write_line(f"warning: {warning}")
    runner = Runner(config.processing.openssl)
    if stop is None:
        stop = threading.Event()
        handle_signals(stop)
    checks = ProgramChecks(config.processing, runner) if needs_programs(config) else None
    parts = assemble_parts(config, runner, checks, open_workspace, stop, warnings=loaded.warnings)
    log.info("temporary files are in %s", parts.services.workspace.path)
    _write_line(f"Recording Muxer {__version__} runs as {name}; {describe_output(config.logfile, name)}")
    return parts


def assemble_parts(
    config: Config,
    runner: Runner,
    checks: ProgramChecks | None,
    open_workspace: Callable[[], Workspace],
    stop: threading.Event,
    effect: str = "",
    warnings: tuple[str, ...] = (),
) -> ServiceParts:
    """Wait for the `checks` (None: no program will run) and return the parts. Raises ConfigError, also for wrong packages.

    `effect` is what an outage means for the recordings, empty for that of the muxer.
    """
    if problems := find_package_problems(config.is_fleet):
        raise ConfigError(problems, notes=[f"install the packages: {package_advice(config.is_fleet)}"])
    from muxer.app.assembly import build_services, create_circuit_breaker
    from muxer.gir.targets import TargetOptions
    from muxer.media.ffmpeg import MediaTools
    from muxer.pipeline.job import Job

    processing = config.processing
    tools = checks.wait_for_tools() if checks is not None else MediaTools(processing.ffmpeg, processing.ffprobe)
    circuit_breaker = create_circuit_breaker(config, effect) if effect else None
    services = build_services(config, tools, runner, open_workspace(), stop, circuit_breaker)
    return ServiceParts(config, runner, services, Job(services, TargetOptions.from_config(config.advanced)), warnings)


def set_umask() -> None:
    """Keep the files of a service from other accounts, and let it run without a console."""
    os.umask(0o077)
    if sys.stderr is None or sys.stdout is None:
        sys.stderr = sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


def _write_line(line: str) -> None:
    """Write a line to stderr, unless the log is there and has it already."""
    if not is_on_stderr():
        write_text(sys.stderr, f"{line}\n")


def open_log(config: Config, name: str) -> None:
    """Start to log as the instance or worker `name`. Raises ConfigError."""
    try:
        setup.set_up_logging(config.logfile, name, config.secret_values)
    except LockHeld as error:
        error.logfile = {"logfile_path": config.logfile.logfile_path}
        raise
    except OSError as error:
        what = f"the log file cannot be written: {error.filename or ''}: {error.strerror or error}"
        raise ConfigError([Problem("[logfile] logfile_path", what)]) from error


def report_config_error(
    error: ConfigError, logging_works: bool = False, origins: Mapping[tuple[str, str], str] = MappingProxyType({})
) -> int:
    """Write what is wrong with the configuration to stderr and to the log, by the `origins` of its values.

    Returns the exit code.
    """
    if not logging_works:
        _open_log_for_errors(error)
    _write_line(f"The Recording Muxer cannot start ({error.code}):")
    for problem in locate_problems(error.problems, origins) if origins else error.problems:
        _write_line(f"  {problem.full_text}")
        log.critical("cannot start: %s %s", error.code, problem.full_text)
    for note in error.notes:
        _write_line(f"  (note) {note}")
        log.warning("%s", note)
    logging.shutdown()
    return EXIT_FAILED if error.temporary else EXIT_CONFIG


def exit_process(code: int) -> int:
    """Close the log and return `code`. Ends the process at once when a thread still hangs in a request."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        write_text(stream, "")  # Python ends with another code when what is left for a closed terminal fails.
    if threading.active_count() > 1:
        os._exit(code)
    return code


def _open_log_for_errors(error: ConfigError) -> None:
    """Log to the output that a wrong configuration names. Where that cannot be used, log to a file or not at all.

    When another instance writes the log, this one is next to it. No file is created for a reason that is seen on stderr.
    """
    name = REFUSED_NAME if isinstance(error, LockHeld) else DEFAULT_NAME
    default = LogfileOptions(logfile_path=None, level="info", format="text", max_bytes=10485760, backup_count=10)
    used = {name: error.logfile[name] for name in ("logfile_path", "output", "syslog_address") if name in error.logfile}
    chosen = replace(default, **used)
    candidates = (chosen,) if chosen.output == FILE_OUTPUT else (chosen, default)
    for options in candidates:
        is_extra = options.logfile_path is None or name == REFUSED_NAME
        if options.output == FILE_OUTPUT and is_extra and is_stderr_seen():
            continue
        try:
            setup.set_up_logging(options, name, ())
        except (OSError, ConfigError):
            continue
        return
    logging.getLogger().addHandler(logging.NullHandler())
