"""Temporary folders of commands that work beside a running muxer, and of the workers of a fleet: each its own below the
muxer's, locked while it works.

Whoever finds one without its owner takes over what was left half done (notes, crash files) and removes the rest: the muxer
at each poll, a worker now and then, and each command at its start.
"""

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
# Workers of a fleet have numbered folders, which the next one with this number uses again.
WORKER, WORKERS = "worker-", 1000
# A folder that was made just now may not have been locked yet.
MIN_AGE_SECONDS = 10.0
_RECORD_FOLDERS = ("publishing", "uploading", "deleting")


@contextmanager
def command_workspace(config: Config) -> Iterator[Workspace]:
    """Given the configuration of an instance, which may run, yield a workspace beside it. At the end only what was left half
    done stays, for the next who looks. Raise :class:`ConfigError` when the temporary folder cannot be used."""
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
    """Given the configuration, return the name and the workspace of a worker of the fleet: the first that no other worker on
    this machine has. Raise :class:`ConfigError` when the temporary folder cannot be used."""
    with _shared_folder(config) as base:
        for number in range(WORKERS):
            path = private_folder(base / f"{WORKER}{number}")
            try:
                workspace = Workspace(path, config.instance_name, config.processing.min_free_megabytes)
            except LockHeld:
                continue
            return (f"{config.instance_name}-" if config.is_sharded else "") + path.name, workspace
    raise ConfigError([Problem("[processing] temp_dir", f"{WORKERS} workers of this machine have their folders in {base}")])


@contextmanager
def _shared_folder(config: Config) -> Iterator[Path]:
    """Yield the folder in which guests have theirs; within this block ``OSError`` becomes :class:`ConfigError`."""
    base = temp_folder_for(config.processing.temp_dir, config.instance_name)
    try:
        if config.processing.temp_dir is None:
            private_folder(base)
        yield base
    except OSError as error:
        what = f"{base} cannot be used: {error.strerror or error}"
        raise ConfigError([Problem("[processing] temp_dir", what)]) from error


def recover_abandoned(workspace: Workspace, base: Path) -> None:
    """Given a workspace and the folder in which guests have theirs, take over what guests that died have left."""
    for path in (*base.glob(f"{COMMAND_PREFIX}*"), *base.glob(f"{WORKER}*")):
        with contextlib.suppress(OSError, ConfigError):
            if not is_our_folder(path) or time.time() - path.lstat().st_mtime < MIN_AGE_SECONDS:
                continue
            with acquire_lock(path / LOCK_FILE, path, ""):
                _adopt_records(path, workspace.path)
            if path.name.startswith(COMMAND_PREFIX) and not _pending_records(path):
                remove_folder(path)
                log.info("what a command that died has left is taken over: %s", path.name)


def _adopt_records(path: Path, to: Path) -> None:
    """Remove media, and move the notes; one for which there is another already waits until that is done."""
    for folder in (*path.glob(f"{JOB_PREFIX}*"), path / KEPT_FOLDER):
        remove_folder(folder)
    for note in _pending_records(path):
        place = to / note.parent.name / note.name
        if not place.exists():
            files.replace_file(note, place)


def _pending_records(path: Path) -> list[Path]:
    """Return the notes of work that is half done."""
    return [note for name in _RECORD_FOLDERS for note in (path / name).glob("*") if note.suffix != ".new"]
