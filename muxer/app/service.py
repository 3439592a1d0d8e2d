"""The life of a process, from its configuration to its exit code. Modules load while the programs are checked."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from muxer import __version__
from muxer.app.program_checks import ProgramChecks
from muxer.config import LoadedConfig
from muxer.config.load import locate_problems
from muxer.config.schema import Config, LogfileOptions
from muxer.errors import ConfigError, Problem
from muxer.log import setup
from muxer.system.exit_codes import EXIT_CONFIG, EXIT_FAILED, handle_signals
from muxer.system.process import Runner

if TYPE_CHECKING:
    from muxer.pipeline.job import Job
    from muxer.pipeline.services import Services
    from muxer.pipeline.workspace import Workspace

log = logging.getLogger("muxer")


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
) -> int:
    """Run a service from its configuration to its end. Returns its exit code.

    `load` reads the configuration. `claim` returns the name of this process, also that of its log file, and a function that
    opens its temporary folder. `body` does the work.
    """
    set_umask()
    logging_works = False
    origins: Mapping[tuple[str, str], str] = {}
    try:
        loaded = load()
        origins = loaded.config.origins
        name, open_workspace = claim(loaded.config)
        log_path = open_log(loaded.config, name)
        logging_works = True
        code = body(name, _start_parts(loaded, name, open_workspace, log_path, needs_programs))
    except ConfigError as error:
        return report_config_error(error, logging_works, origins)
    except Exception:
        log.critical("the process ends because of an unexpected error", exc_info=True)
        code = EXIT_FAILED
    return exit_process(code)


def _start_parts(
    loaded: LoadedConfig,
    name: str,
    open_workspace: Callable[[], Workspace],
    log_path: Path,
    needs_programs: Callable[[Config], bool],
) -> ServiceParts:
    config = loaded.config
    log.info("Recording Muxer %s starts as %s, process %d", __version__, name, os.getpid())
    for warning in loaded.warnings:
        log.warning("%s", warning)
        sys.stderr.write(f"warning: {warning}\n")
    runner, stop = Runner(config.processing.openssl), threading.Event()
    handle_signals(stop)
    checks = ProgramChecks(config.processing, runner) if needs_programs(config) else None
    parts = assemble_parts(config, runner, checks, open_workspace, stop, warnings=loaded.warnings)
    log.info("temporary files are in %s", parts.services.workspace.path)
    sys.stderr.write(f"Recording Muxer {__version__} runs as {name}; log file: {log_path}\n")
    sys.stderr.flush()
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
    """Wait for the `checks` (None: no program will run) and return the parts. Raises ConfigError.

    `effect` is what an outage means for the recordings, empty for that of the muxer.
    """
    from muxer.app.assembly import build_services, create_circuit_breaker
    from muxer.media.ffmpeg import MediaTools
    from muxer.pipeline.job import Job, JobOptions

    processing = config.processing
    tools = checks.wait_for_tools() if checks is not None else MediaTools(processing.ffmpeg, processing.ffprobe)
    circuit_breaker = create_circuit_breaker(config, effect) if effect else None
    services = build_services(config, tools, runner, open_workspace(), stop, circuit_breaker)
    return ServiceParts(config, runner, services, Job(services, JobOptions.from_config(config.advanced)), warnings)


def set_umask() -> None:
    """Keep the files of a service from other accounts, and let it run without a console."""
    os.umask(0o077)
    if sys.stderr is None or sys.stdout is None:
        sys.stderr = sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


def open_log(config: Config, name: str) -> Path:
    """Start to log as the instance or worker `name`. Returns the path of the log file. Raises ConfigError."""
    try:
        return setup.set_up_logging(config.logfile, name, config.secret_values)
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
        try:
            setup.set_up_logging(_default_logfile(error.log_folder), "single", ())
        except (OSError, ConfigError):
            logging.getLogger().addHandler(logging.NullHandler())
    sys.stderr.write(f"The Recording Muxer cannot start ({error.code}):\n")
    for problem in locate_problems(error.problems, origins) if origins else error.problems:
        sys.stderr.write(f"  {problem.full_text}\n")
        log.critical("cannot start: %s %s", error.code, problem.full_text)
    for note in error.notes:
        sys.stderr.write(f"  (note) {note}\n")
        log.warning("%s", note)
    logging.shutdown()
    return EXIT_CONFIG


def exit_process(code: int) -> int:
    """Close the log and return `code`. Ends the process at once when a thread still hangs in a request."""
    logging.shutdown()
    if threading.active_count() > 1:
        os._exit(code)
    return code


def _default_logfile(folder: Path | None) -> LogfileOptions:
    return LogfileOptions(logfile_path=folder, level="info", format="text", max_bytes=10485760, backup_count=10)
