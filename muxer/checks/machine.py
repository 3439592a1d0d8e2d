"""Checks of this machine: programs, folders, locks and free disk space."""

from __future__ import annotations

import functools
import getpass
import os
import platform
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from muxer.app.program_checks import find_keep_times, program_problem, program_version, try_ffprobe
from muxer.checks.checklist import Check, Finding, failed_finding, passed_finding, warning_finding
from muxer.config.schema import FILE_OUTPUT, Config
from muxer.errors import Code, MuxerError
from muxer.log.log_file import lock_path
from muxer.log.outputs import describe_output, find_loss, find_output_problem, log_path_for
from muxer.pipeline.disk_space import MEGABYTE, TempDisk, is_short, reserved_bytes
from muxer.pipeline.workspace import LOCK_FILE, temp_folder_for
from muxer.status import state_file
from muxer.system import files
from muxer.system.file_lock import lock_holder
from muxer.system.folder_owner import check_folder
from muxer.system.packages import find_package_problems, package_advice
from muxer.system.process import Runner

_VERSION_FLAGS = {"ffmpeg": "-version", "ffprobe": "-version", "openssl": "version"}
_PROGRAM_CHECK_SECONDS = 60.0
PACKAGES = "Python packages"


class MachineChecks:
    """The checks of this machine."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._runner = Runner(config.processing.openssl or "")
        self._temp = temp_folder_for(config.processing.temp_dir, config.instance_name)

    def create_checks(self) -> Iterator[Check]:
        """Yield the checks in the order of a start of the muxer."""
        yield Check(PACKAGES, self._check_packages, ("[fleet] mode",))
        for name in _VERSION_FLAGS:
            needs = (f"[processing] {name}",)
            yield Check(name, functools.partial(self._check_program, name), needs, "processing", _PROGRAM_CHECK_SECONDS)
        temp = ("[processing] temp_dir",)
        yield Check("temp_dir", self._check_temp_dir, temp)
        yield Check("lock", self._check_lock, (*temp, "temp_dir"))
        yield Check("free space", self._check_room, (*temp, "temp_dir", "[processing] min_free_megabytes"))
        yield Check("logfile_path", self._check_log, ("[logfile] logfile_path",))

    def _check_packages(self) -> Iterator[Finding]:
        problems = find_package_problems(self._config.is_fleet)
        for problem in problems:
            yield failed_finding(problem.where, problem.what, package_advice(self._config.is_fleet))
        if not problems:
            yield passed_finding(PACKAGES, f"all there, for Python {platform.python_version()}")

    def _check_program(self, name: str) -> Iterator[Finding]:
        path = getattr(self._config.processing, name)
        try:
            version = program_version(self._runner, path, _VERSION_FLAGS[name], name).partition(" Copyright")[0]
            if name == "ffmpeg":
                find_keep_times(self._runner, path)
            if name == "ffprobe":
                try_ffprobe(self._runner, path)
        except MuxerError as error:
            if error.code is Code.DISK_FULL:
                raise  # It is not the program that is wrong.
            advice = f"install a build that runs here, or set [processing] {name} to another one"
            yield failed_finding(name, f"{path} {program_problem(name, error).what}", advice)
        else:
            yield passed_finding(name, f"{path}: {version}{', with libx264' if name == 'ffmpeg' else ''}")

    def _check_temp_dir(self) -> Iterator[Finding]:
        if files.exists(self._temp):
            try:
                check_folder(self._temp)
            except PermissionError as error:
                yield failed_finding("temp_dir", f"{self._temp}: the muxer does not start with it", str(error.strerror))
                return
            yield _folder_finding("temp_dir", self._temp, "[processing] temp_dir", others=stat.S_IRWXG | stat.S_IRWXO)
        elif _is_writable(self._temp.parent):
            yield passed_finding("temp_dir", f"{self._temp}; the muxer creates it at the start")
        else:
            advice = "create a folder that only the account of the muxer can use, and set [processing] temp_dir to it"
            yield failed_finding("temp_dir", f"cannot create {self._temp}", advice)

    def _check_log(self) -> Iterator[Finding]:
        logfile = self._config.logfile
        if logfile.output == FILE_OUTPUT:
            yield from self._check_log_folder()
        elif problem := find_output_problem(logfile):
            yield failed_finding("log output", str(problem), "set [logfile] output to one that this machine has")
        elif loss := find_loss(logfile):
            yield failed_finding("log output", f"the log would be lost: {loss[0]}", loss[1])
        else:
            yield passed_finding("log output", describe_output(logfile, self._config.instance_name))

    def _check_log_folder(self) -> Iterator[Finding]:
        path = log_path_for(self._config.logfile, self._config.instance_name)
        yield _folder_finding("logfile_path", path.parent, "[logfile] logfile_path", others=stat.S_IWGRP | stat.S_IWOTH)
        held = lock_holder(lock_path(path))
        if held not in (None, lock_holder(self._temp / LOCK_FILE)):  # Not the muxer that runs with this temp_dir.
            advice = "set a separate folder for each instance in [logfile] logfile_path"
            yield failed_finding(
                "log file", f"{path} is written by another instance ({held}); the muxer would not start", advice
            )

    def _check_lock(self) -> Iterator[Finding]:
        held = lock_holder(self._temp / LOCK_FILE)
        if held is None:
            yield passed_finding("lock", "free: no muxer runs with this folder")
            return
        running = state_file.read_state(self._temp) or {}
        version = f", version {running['version']} as {running.get('instance')}" if "version" in running else ""
        name = self._config.instance_name
        if running.get("instance", name) != name:
            advice = "give each instance a separate [processing] temp_dir, or check that instance, with its sharding options"
            yield warning_finding("lock", f"held by another instance ({held}{version}); {name} would not start", advice)
            return
        yield passed_finding("lock", f"held by a running muxer ({held}{version}); a second one would not start")

    def _check_room(self) -> Iterator[Finding]:
        folder = self._temp if files.exists(self._temp) else self._temp.parent
        TempDisk(folder, self._config.processing.min_free_megabytes)  # Raises when the disk is too small for the option.
        usage = shutil.disk_usage(folder)
        reserved = reserved_bytes(usage.total, self._config.processing.min_free_megabytes)
        text = f"{usage.free // MEGABYTE} MB free, {reserved // MEGABYTE} MB must stay free (min_free_megabytes)"
        if usage.total and is_short(usage.free, reserved, was_short=False):
            advice = f"free space on the disk of {self._temp}, or set [processing] temp_dir to a folder on another disk"
            yield failed_finding("free space", f"{text}: no recording would be started", advice)
        else:
            yield passed_finding("free space", text)


def _folder_finding(check: str, folder: Path, option: str, others: int) -> Finding:
    """Check that a folder is writable by this account and that other accounts lack the permissions `others`."""
    if not _is_writable(folder):
        advice = f"chown it to the account of the muxer, or change {option}"
        return failed_finding(check, f"{folder} cannot be written by {_account_name()}", advice)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if os.name == "posix" and mode & others:
        advice = f"restrict it: chmod {mode & ~others:o} {folder}"
        return warning_finding(check, f"{folder} is accessible to other accounts (mode {mode:04o})", advice)
    return passed_finding(check, f"{folder}, writable by {_account_name()}")


def _is_writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _account_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "this account"
