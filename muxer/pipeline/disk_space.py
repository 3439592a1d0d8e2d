"""Room on the disk of the temporary folder: when it is short, no new recording is begun (our decision)."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from muxer.errors import Code, ConfigError, LocalResourceError, Problem

log = logging.getLogger(__name__)

MEGABYTE = 1 << 20
# Unless the administrator says otherwise: so much stays free, or this part of a small file system.
MAX_RESERVED_BYTES = 1024 * MEGABYTE
RESERVED_FRACTION = 1 / 20
# Once it is short, work goes on when so much more is free: a disk at the border must not fill the log.
REOPEN_FACTOR = 1.1
# The sources, the muxed file, and its ciphertext or what was re-encoded, of which one is written when another is removed.
SPACE_PER_SOURCE_BYTE = 2.5
MEASURE_INTERVAL = 1.0
# Some network file systems tell nothing, a size of 0; there a job finds out by itself.
_UNKNOWN = 1 << 62


def reserved_bytes(total: int, min_free_megabytes: int | None) -> int:
    """Given the size of a file system in bytes and the option, return how many bytes of it must stay free."""
    if min_free_megabytes is not None:
        return min_free_megabytes * MEGABYTE
    return min(MAX_RESERVED_BYTES, round(total * RESERVED_FRACTION))


def is_short(free: int, reserved: int, was_short: bool) -> bool:
    """Given the free bytes, how many must stay free, and whether it was short before, return whether it is short now."""
    return free < (reserved * REOPEN_FACTOR if was_short else reserved)


def needed_bytes(sizes: Iterable[int]) -> int:
    """Given the sizes of a job's sources by their metadata, 0 = unknown, return how many bytes the job needs, roughly."""
    return round(sum(sizes) * SPACE_PER_SOURCE_BYTE)


class TempDisk:
    """The file system of the temporary folder. Safe to use from any thread."""

    def __init__(self, folder: Path, min_free_megabytes: int | None) -> None:
        """Given a folder that exists and the option, look at its file system. Raise :class:`ConfigError` when that is too
        small for the option, ``OSError`` when it cannot be looked at."""
        self._folder = folder
        self._min_free_megabytes = min_free_megabytes
        self._lock = threading.Lock()
        self._short = False
        # The free bytes and those that must stay free, as last measured; None when the file system tells nothing.
        self.measured: tuple[int, int] | None = None
        self._next_look = float("-inf")
        # Deletes something that can be created again, and returns whether there was anything.
        self.spare: Callable[[], bool] = lambda: False
        total = shutil.disk_usage(folder).total
        if 0 < total < reserved_bytes(total, min_free_megabytes) * REOPEN_FACTOR:
            most = int(total / REOPEN_FACTOR / MEGABYTE)
            what = f"must be at most {most}: the file system of {folder} has {_format_megabytes(total)} in all"
            raise ConfigError([Problem(f"[processing] min_free_megabytes = '{min_free_megabytes}'", what)])

    def has_room(self) -> bool:
        """Whether new work may begin. Look at most once a second, and log when that changes."""
        with self._lock:
            if time.monotonic() >= self._next_look:
                self._update_room()
                self._next_look = time.monotonic() + MEASURE_INTERVAL
            return not self._short

    def ensure_room(self, sizes: Iterable[int]) -> None:
        """Given the sizes of a job's sources by their metadata, raise :class:`LocalResourceError` when the job would not
        fit."""
        need = needed_bytes(sizes)
        free, reserved = self._measure_after_eviction(need)
        if free < need + reserved:
            raise LocalResourceError(
                f"it needs about {_format_megabytes(need)} in {self._folder} by the sizes in its metadata; "
                f"{_format_megabytes(free)} are free, of which {_format_megabytes(reserved)} must stay free",
                code=Code.DISK_FULL,
            )

    def _update_room(self) -> None:
        try:
            free, reserved = self._measure_after_eviction(0)
        except OSError:
            return  # The job that needs the folder says what is wrong with it.
        self.measured = None if free == _UNKNOWN else (free, reserved)
        was_short, self._short = self._short, is_short(free, reserved, self._short)
        if self._short and not was_short:
            log.error(
                "the disk is nearly full: %s are free in %s, and %s must stay free; no new recording is begun. Make room "
                "there: as soon as %s are free, the work goes on by itself",
                *(
                    _format_megabytes(free),
                    self._folder,
                    _format_megabytes(reserved),
                    _format_megabytes(reserved * REOPEN_FACTOR),
                ),
            )
        elif was_short and not self._short:
            log.warning("there is room on the disk again, %s in %s; the work goes on", _format_megabytes(free), self._folder)

    def _measure_after_eviction(self, need: int) -> tuple[int, int]:
        """Return what :meth:`_measure` does, after spare files gave way to a job that needs so many bytes."""
        free, reserved = self._measure_free()
        while free < need + reserved and self.spare():
            free, reserved = self._measure_free()
        return free, reserved

    def _measure_free(self) -> tuple[int, int]:
        """Return how many bytes are free and how many must stay free."""
        usage = shutil.disk_usage(self._folder)
        free = usage.free if usage.total else _UNKNOWN
        return free, reserved_bytes(usage.total, self._min_free_megabytes)


def _format_megabytes(count: float) -> str:
    return f"{count / MEGABYTE:.1f} MB"
