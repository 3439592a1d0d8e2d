"""Command `service`: install, start, stop or remove the muxer as a service of Windows."""

from __future__ import annotations

import argparse
import importlib.util
import site
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import muxer
from muxer.app.windows_service import STOP_SECONDS
from muxer.commands._shared.common import exit_code_of, load_configuration
from muxer.errors import ConfigError, Problem
from muxer.log.outputs import EVENT_SOURCE
from muxer.system.exit_codes import EXIT_FAILED, EXIT_OK
from muxer.system.program_name import typed_name

DEFAULT_NAME, DEFAULT_ACCOUNT = "RecordingMuxer", r"NT AUTHORITY\LocalService"
DESCRIPTION = "Combines call and screen recordings of Genesys Interaction Recording into one playable file"
RESTART_SECONDS = 30
START_SECONDS = 30
# What to do, by the error codes of Windows.
_ADVICE = {
    5: "an administrator can do this",
    1053: "the log of the muxer and the event log of Windows say why",
    1056: "to start it again, stop it first",
    1058: "it is disabled: enable it in Services",
    1060: "install it first, or correct --name",
    1062: "nothing needs to be stopped",
    1069: "the account of the service cannot log on: check its rights, or install it for another --account",
    1072: "it is being removed: close the programs that show it, such as Services, or restart Windows",
    1073: "remove it first, or select another --name",
}
_INSTANCE_OPTIONS = ("muxer_type", "muxer_id", "total_muxers")
_SOMETHING_STOPPED, _DELETE = 1, 0x10000


def main(argv: Sequence[str]) -> int:
    """Run the command. Returns 0, 1 when the service manager refuses, 2 when the machine or muxer.cfg is unsuitable."""
    parser = _create_parser()
    arguments = parser.parse_args(argv)
    if arguments.action == "install" and arguments.config_file is None:
        parser.error("install needs --config-file")
    return exit_code_of(lambda: _run_action(arguments))


def _create_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{typed_name()} service", description="Run the muxer as a service of Windows.", allow_abbrev=False
    )
    option = parser.add_argument
    option("action", choices=_ACTIONS, help="what to do; install: the service then starts with Windows")
    option("--name", default=DEFAULT_NAME, help="name of the service (default: %(default)s)")
    option("--config-file", metavar="FILE", help="install: path of muxer.cfg")
    account = "install: account without a password that runs it (default: %(default)s)"
    option("--account", default=DEFAULT_ACCOUNT, help=account)
    for name in _INSTANCE_OPTIONS:
        option(f"--{name.replace('_', '-')}", help="install: selects the instance, as with run; overrides the file")
    return parser


def _run_action(arguments: argparse.Namespace) -> int:
    if sys.platform != "win32":
        raise ConfigError([Problem("service", "is for Windows; on Linux use the unit of systemd (docs/services.md)")])
    if importlib.util.find_spec("win32service") is None:
        raise ConfigError([Problem("service", "needs the package pywin32: thirdparty/requirements-windows.txt")])
    import pywintypes

    try:
        sys.stdout.write(f"{_ACTIONS[arguments.action](arguments)}\n")
    except pywintypes.error as error:
        advice = _ADVICE.get(error.winerror)
        sys.stderr.write(f"{arguments.name}: {error.strerror} ({error.funcname}){f'; {advice}' if advice else ''}\n")
        return EXIT_FAILED
    return EXIT_OK


def service_command(arguments: argparse.Namespace) -> str:
    """Return the command line that the service manager runs: absolute paths, because it starts in a folder of Windows."""
    python = Path(sys.base_exec_prefix) / "python.exe"
    packages = site.getsitepackages()[-1] if sys.prefix != sys.base_prefix else ""
    options = [f"--config-file={Path(arguments.config_file).absolute()}"]
    given = {name: getattr(arguments, name) for name in _INSTANCE_OPTIONS}
    options += [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]
    script = Path(muxer.__file__).with_name("muxer_service.py")
    return subprocess.list2cmdline([str(python), str(script), arguments.name, packages, *options])


def _install(arguments: argparse.Namespace) -> str:
    import win32evtlogutil
    import win32service as manager

    load_configuration(arguments)
    win32evtlogutil.AddSourceToRegistry(EVENT_SOURCE, manager.__file__)
    with _Opened(manager.OpenSCManager(None, None, manager.SC_MANAGER_CREATE_SERVICE), manager) as services:
        created = manager.CreateService(
            services,
            arguments.name,
            f"Recording Muxer ({arguments.name})",
            manager.SERVICE_ALL_ACCESS,
            manager.SERVICE_WIN32_OWN_PROCESS,
            manager.SERVICE_AUTO_START,
            manager.SERVICE_ERROR_NORMAL,
            service_command(arguments),
            *(None, 0, None, arguments.account, None),
        )
        with _Opened(created, manager) as service:
            _configure_service(manager, service)
    return f"{arguments.name} is installed for {arguments.account}, which needs access to muxer.cfg, temp_dir and the log"


def _configure_service(manager: Any, service: Any) -> None:
    """Describe the service, let it be restarted after a crash, and leave it time at a shutdown."""
    restart = {
        "ResetPeriod": 86_400,
        "RebootMsg": "",
        "Command": "",
        "Actions": [(manager.SC_ACTION_RESTART, 1000 * RESTART_SECONDS)] * 3,
    }
    manager.ChangeServiceConfig2(service, manager.SERVICE_CONFIG_DESCRIPTION, DESCRIPTION)
    manager.ChangeServiceConfig2(service, manager.SERVICE_CONFIG_FAILURE_ACTIONS, restart)
    manager.ChangeServiceConfig2(service, manager.SERVICE_CONFIG_PRESHUTDOWN_INFO, 1000 * STOP_SECONDS)


def _start(arguments: argparse.Namespace) -> str:
    import win32service as manager
    import win32serviceutil as tools

    tools.StartService(arguments.name)
    tools.WaitForServiceStatus(arguments.name, manager.SERVICE_RUNNING, START_SECONDS)
    return f"{arguments.name} runs"


def _stop(arguments: argparse.Namespace) -> str:
    import win32service as manager
    import win32serviceutil as tools

    tools.StopService(arguments.name)
    tools.WaitForServiceStatus(arguments.name, manager.SERVICE_STOPPED, 2 * STOP_SECONDS)
    return f"{arguments.name} has stopped"


def _remove(arguments: argparse.Namespace) -> str:
    import win32service as manager

    with _Opened(manager.OpenSCManager(None, None, manager.SC_MANAGER_CONNECT), manager) as services:
        access = manager.SERVICE_QUERY_STATUS | _DELETE
        with _Opened(manager.OpenService(services, arguments.name, access), manager) as service:
            if manager.QueryServiceStatus(service)[1] != manager.SERVICE_STOPPED:
                raise ConfigError([Problem(arguments.name, f"runs; stop it first: {typed_name()} service stop")])
            manager.DeleteService(service)
    return f"{arguments.name} is removed; muxer.cfg, the log and temp_dir stay"


class _Opened:
    """Closes a handle of the service manager at the end of a block."""

    def __init__(self, handle: Any, manager: Any) -> None:
        self._handle, self._manager = handle, manager

    def __enter__(self) -> Any:
        return self._handle

    def __exit__(self, *_: object) -> None:
        self._manager.CloseServiceHandle(self._handle)


_ACTIONS: dict[str, Callable[[argparse.Namespace], str]] = {
    "install": _install,
    "start": _start,
    "stop": _stop,
    "remove": _remove,
}
