"""The command line of ``muxer_process.py``, which runs the muxer itself."""

from __future__ import annotations

import argparse
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from muxer import __version__
from muxer.app.service import ServiceParts, run_service
from muxer.config import LoadedConfig, load_config
from muxer.config.schema import Config
from muxer.errors import ConfigError, Problem
from muxer.system.exit_codes import EXIT_SOME_FAILED

if TYPE_CHECKING:
    from muxer.app.daemon import Daemon
    from muxer.pipeline.workspace import Workspace


# A word in place of an option.
_COMMAND_LIKE = re.compile(r"^unrecognized arguments: [a-z]")


def run_muxer(argv: Sequence[str], program: str = "muxer_process.py", stop: threading.Event | None = None) -> int:
    """Run the muxer with the arguments of ``muxer_process.py``, until `stop` is set (None: until a signal).

    Returns its exit code. `program` is for the usage text.
    """
    return run_service(
        lambda: _load_config(argv, program),
        lambda config: (config.instance_name, lambda: _open_workspace(config)),
        _run_daemon,
        # The poller of a fleet runs no job.
        needs_programs=lambda config: not config.is_fleet,
        stop=stop,
    )


def _load_config(argv: Sequence[str], program: str) -> LoadedConfig:
    arguments = _create_parser(program).parse_args(_fix_split_option(argv))
    overrides = {name: getattr(arguments, name) or "" for name in ("muxer_type", "muxer_id", "total_muxers")}
    return load_config(Path(arguments.config_file), overrides, os.environ)


def _open_workspace(config: Config) -> Workspace:
    from muxer.pipeline.workspace import Workspace

    return Workspace(config.processing.temp_dir, config.instance_name, config.processing.min_free_megabytes)


def _run_daemon(_name: str, parts: ServiceParts) -> int:
    from muxer.app.daemon import Daemon

    daemon = Daemon(parts.config, parts.services, parts.job, parts.runner)
    _start_audits(parts)
    with _monitoring_port(daemon, parts), _alert_hook(daemon, parts) as report_migration:
        code = daemon.run()
        if code == EXIT_SOME_FAILED:
            report_migration(daemon.outcomes.failures.values())
        return code


def _start_audits(parts: ServiceParts) -> None:
    """Start the regular audits, if they are configured; their thread ends when the process stops."""
    if parts.config.audit.every and not parts.config.advanced.call_recording_query_string:
        from muxer.audit.scheduled import ScheduledAudit

        ScheduledAudit(parts.config, parts.services).start()


@contextmanager
def _monitoring_port(daemon: Daemon, parts: ServiceParts) -> Iterator[None]:
    """Keep the monitoring port open within this block, if one is configured. Its libraries are loaded only then."""
    if not parts.config.monitoring.http_port:
        yield
        return
    from muxer.monitoring.server import MonitoringServer

    server = MonitoringServer(daemon.create_view_sources(parts.warnings))
    server.start()
    try:
        yield
    finally:
        server.stop()


@contextmanager
def _alert_hook(daemon: Daemon, parts: ServiceParts) -> Iterator[Callable[[Iterable[tuple[str, str]]], None]]:
    """Call `[alerts] command` for the events in this block, if one is configured; yield how to report a migration."""
    if parts.config.alerts.command is None:
        yield lambda failures: None
        return
    from muxer.app.alert_hook import AlertHook

    hook = AlertHook(daemon.create_view_sources(parts.warnings))
    daemon.outcomes.on_set_aside = hook.report_set_aside
    hook.start()
    try:
        yield hook.report_migration
    finally:
        hook.close(has_ended=daemon.has_ended)


def _fix_split_option(argv: Sequence[str]) -> list[str]:
    """Join ``-- config-file=muxer.cfg``, which the guide prints with a blank for LCA."""
    return [f"--{argv[1]}", *argv[2:]] if argv[:1] == ["--"] and len(argv) > 1 else list(argv)


class _StrictParser(argparse.ArgumentParser):
    """Reports a wrong command line like a wrong configuration: under LCA only the log is visible."""

    def error(self, message: str) -> NoReturn:
        """Raise :class:`ConfigError`."""
        notes = [" ".join(self.format_usage().split())]
        if _COMMAND_LIKE.search(message):
            notes.append("commands such as check and status are those of recording-muxer, or of python -m muxer")
        raise ConfigError([Problem("command line", message)], notes=notes)


def _create_parser(program: str) -> argparse.ArgumentParser:
    parser = _StrictParser(
        prog=program,
        description="Joins call and screen recordings of Genesys Interaction Recording.",
        allow_abbrev=False,
    )
    parser.add_argument("--config-file", required=True, metavar="CONFIG_FILE", help="path of muxer.cfg")
    parser.add_argument("--muxer-type", help="primary or backup; overrides the file")
    parser.add_argument("--muxer-id", help="number of this instance from 0, -1 = no sharding; overrides the file")
    parser.add_argument("--total-muxers", help="number of primary instances; overrides the file")
    parser.add_argument("--version", action="version", version=f"Recording Muxer {__version__}")
    return parser
