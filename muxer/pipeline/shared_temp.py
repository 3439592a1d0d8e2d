"""Temporary folders of commands and workers, in the muxer's folder, each with its own lock; orphans are adopted."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from muxer.config.schema import Config
from muxer.errors import ConfigError, Problem
from muxer.pipeline.workspace import (
    JOB_PREFIX,
    KEPT_FOLDER,
    LOCK_FILE,
    Workspace,
    is_our_folder,
    private_folder,
    remove_folder,
    temp_folder_for,
)
from muxer.system import files
from muxer.system.file_lock import LockHeld, acquire_lock

log = logging.getLogger(__name__)

COMMAND_PREFIX = "command-"
# A worker with the same number reuses the folder.
WORKER_PREFIX, MAX_WORKERS = "worker-", 1000
# A newer folder may not have been locked yet.
MIN_AGE_SECONDS = 10.0
_RECORD_FOLDERS = ("publishing", "uploading", "deleting")


@contextmanager
def command_workspace(config: Config) -> Iterator[Workspace]:
    """Yield a workspace for a command. At the end only unfinished work stays, to be adopted. Raises ConfigError."""
    with _shared_folder(config) as base:
        path = Path(tempfile.mkdtemp(prefix=COMMAND_PREFIX, dir=base))
    try:
        workspace = Workspace(path, config.instance_name, config.processing.min_free_megabytes)
    except ConfigError:
        remove_folder(path)
        raise
    try:
        recover_abandoned(workspace, base)
        yield workspace
    finally:
        workspace.remove_job_folders()
        workspace.release_lock()
        remove_folder(workspace.kept)
        if not _pending_records(path):
            remove_folder(path)


def claim_worker_folder(config: Config) -> tuple[str, Workspace]:
    """Return name and workspace of a worker: the first one that is free on this machine. Raises ConfigError."""
    with _shared_folder(config) as base:
        for number in range(MAX_WORKERS):
            path = private_folder(base / f"{WORKER_PREFIX}{number}")
            try:
                workspace = Workspace(path, config.instance_name, config.processing.min_free_megabytes)
            except LockHeld:
                continue
            return (f"{config.instance_name}-" if config.is_sharded else "") + path.name, workspace
    raise ConfigError(
        [Problem("[processing] temp_dir", f"{MAX_WORKERS} workers on this machine already use folders in {base}")]
    )


@contextmanager
def _shared_folder(config: Config) -> Iterator[Path]:
    """Yield the folder that contains the shared ones. In this block, OSError becomes ConfigError."""
    base = temp_folder_for(config.processing.temp_dir, config.instance_name)
    try:
        if config.processing.temp_dir is None:
            private_folder(base)
        yield base
    except OSError as error:
        what = f"{base} cannot be used: {error.strerror or error}"
        raise ConfigError([Problem("[processing] temp_dir", what)]) from error


def recover_abandoned(workspace: Workspace, base: Path) -> None:
    """Adopt what terminated commands and workers have left in `base` into `workspace`."""
    for path in (*base.glob(f"{COMMAND_PREFIX}*"), *base.glob(f"{WORKER_PREFIX}*")):
        with contextlib.suppress(OSError, ConfigError):
            if not is_our_folder(path) or time.time() - path.lstat().st_mtime < MIN_AGE_SECONDS:
                continue
            with acquire_lock(path / LOCK_FILE, path, ""):
                _adopt_records(path, workspace.path)
            if path.name.startswith(COMMAND_PREFIX) and not _pending_records(path):
                remove_folder(path)
                log.info("adopted the unfinished work of a terminated command: %s", path.name)


def _adopt_records(path: Path, destination: Path) -> None:
    """Remove media, and move intent records; one whose name is in use waits until that record is done."""
    for folder in (*path.glob(f"{JOB_PREFIX}*"), path / KEPT_FOLDER):
        remove_folder(folder)
    for record in _pending_records(path):
        target = destination / record.parent.name / record.name
        if not files.exists(target):
            files.replace_file(record, target)


def _pending_records(path: Path) -> list[Path]:
    return [record for name in _RECORD_FOLDERS for record in (path / name).glob("*") if record.suffix != ".new"]
