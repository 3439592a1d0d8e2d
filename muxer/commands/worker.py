"""Command `worker`: run a worker of the fleet until a signal stops it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from muxer import __version__
from muxer.app.assembly import build_services
from muxer.app.cli import exit_process, open_log, report_config_error, set_umask
from muxer.app.program_checks import ProgramChecks
from muxer.config import LoadedConfig, load_config
from muxer.errors import ConfigError, Problem
from muxer.pipeline.shared_temp import claim_worker_folder
from muxer.system.exit_codes import EXIT_FAILED, EXIT_OK, handle_signals
from muxer.system.process import Runner

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Run the worker and return the exit code: 0 stopped, 1 unexpected error, 2 the configuration cannot be used."""
    description = (
        "Process tasks from RabbitMQ ([fleet] mode = broker) until a signal stops it. Any number of workers may run."
    )
    parser = argparse.ArgumentParser(prog="python -m muxer worker", description=description, allow_abbrev=False)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="path of muxer.cfg, the same as for the poller")
    arguments = parser.parse_args(argv)
    set_umask()
    try:
        loaded = load_config(Path(arguments.config_file), {}, os.environ)
        if not loaded.config.is_fleet:
            raise ConfigError([Problem("[fleet] mode = 'local'", "must be broker: workers take their tasks from RabbitMQ")])
    except ConfigError as error:
        return report_config_error(error)
    return _run_worker(loaded)


def _run_worker(loaded: LoadedConfig) -> int:
    config, stop = loaded.config, threading.Event()
    logging_works = False
    try:
        name, workspace = claim_worker_folder(config)
        log_path = open_log(config, name)
        logging_works = True
        runner = Runner(config.processing.openssl)
        handle_signals(stop)
        log.info("Recording Muxer %s starts as worker %s, process %d", __version__, name, os.getpid())
        for warning in loaded.warnings:
            log.warning("%s", warning)
        tools = ProgramChecks(config.processing, runner).wait_for_tools()
    except ConfigError as error:
        return report_config_error(error, logging_works)
    log.info("temporary files are in %s", workspace.path)
    sys.stderr.write(f"Recording Muxer {__version__} runs as {name}; log file: {log_path}\n")
    sys.stderr.flush()

    from muxer.fleet.worker import FleetWorker

    try:
        FleetWorker(config, name, build_services(config, tools, runner, workspace, stop), runner).run()
    except Exception:
        log.critical("the worker ended with an unexpected error", exc_info=True)
        return exit_process(EXIT_FAILED)
    return exit_process(EXIT_OK)
