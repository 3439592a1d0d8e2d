"""Command `worker`: run a worker of the fleet until a signal stops it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from muxer.app.service import ServiceParts, run_service
from muxer.config import LoadedConfig, load_config
from muxer.config.schema import Config
from muxer.errors import ConfigError, Problem
from muxer.system.exit_codes import EXIT_OK
from muxer.system.program_name import typed_name

if TYPE_CHECKING:
    from muxer.pipeline.workspace import Workspace


def main(argv: Sequence[str]) -> int:
    """Run the worker and return the exit code: 0 stopped, 1 unexpected error, 2 the configuration cannot be used."""
    description = (
        "Process tasks from RabbitMQ ([fleet] mode = broker) until a signal stops it. Any number of workers may run."
    )
    parser = argparse.ArgumentParser(prog=f"{typed_name()} worker", description=description, allow_abbrev=False)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="path of muxer.cfg, the same as for the poller")
    arguments = parser.parse_args(argv)
    return run_service(lambda: _load_config(Path(arguments.config_file)), _claim_folder, _run_worker)


def _load_config(path: Path) -> LoadedConfig:
    loaded = load_config(path, {}, os.environ)
    if not loaded.config.is_fleet:
        problem = Problem("[fleet] mode = 'local'", "must be broker: workers take their tasks from RabbitMQ")
        raise ConfigError([problem], vars(loaded.config.logfile))
    return loaded


def _claim_folder(config: Config) -> tuple[str, Callable[[], Workspace]]:
    """Claim a folder on this machine, by which the worker and its log file are named."""
    from muxer.pipeline.shared_temp import claim_worker_folder

    name, workspace = claim_worker_folder(config)
    return name, lambda: workspace


def _run_worker(name: str, parts: ServiceParts) -> int:
    from muxer.fleet.worker import FleetWorker

    FleetWorker(parts.config, name, parts.services, parts.runner).run()
    return EXIT_OK
