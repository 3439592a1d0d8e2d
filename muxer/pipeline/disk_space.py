"""Free space on the disk of the temporary folder: while there is too little, no new recording is started (our decision)."""

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
# The default of min_free_megabytes: this much stays free, or this fraction of a small file system.
MAX_RESERVED_BYTES = 1024 * MEGABYTE
RESERVED_FRACTION = 1 / 20
# Work resumes only when this much more is free: a disk at the limit must not fill the log.
REOPEN_FACTOR = 1.1
# The sources, the muxed file, and its ciphertext or re-encoded parts (one is removed before the other is written).
SPACE_PER_SOURCE_BYTE = 2.5
MEASURE_INTERVAL = 1.0
# Some network file systems report a size of 0; a job then fails when it runs out of space.
_UNKNOWN = 1 << 62


def reserved_bytes(total: int, min_free_megabytes: int | None) -> int:
    """Return how many bytes of a file system of `total` bytes must stay free. `min_free_megabytes` is the option."""
    if min_free_megabytes is not None:
        return min_free_megabytes * MEGABYTE
    return min(MAX_RESERVED_BYTES, round(total * RESERVED_FRACTION))


def is_short(free: int, reserved: int, was_short: bool) -> bool:
    """Return whether there is too little free space. `was_short` is the previous result."""
    return free < (reserved * REOPEN_FACTOR if was_short else reserved)


def needed_bytes(sizes: Iterable[int]) -> int:
    """Return roughly how many bytes a job needs. `sizes` are those of its sources by their metadata, 0 = unknown."""
    return round(sum(sizes) * SPACE_PER_SOURCE_BYTE)


class TempDisk:
    """The file system of the temporary folder. Safe to use from any thread."""

    def __init__(self, folder: Path, min_free_megabytes: int | None) -> None:
        """Measure an existing `folder`. Raises ConfigError when it is too small, OSError when that fails."""
        self._folder = folder
        self._min_free_megabytes = min_free_megabytes
        self._lock = threading.Lock()
        self._short = False
        # The free bytes and those that must stay free, as last measured; None when the file system does not report them.
        self.measured: tuple[int, int] | None = None
        self._next_measurement = float("-inf")
        # Deletes something that can be created again, and returns whether there was anything.
        self.spare: Callable[[], bool] = lambda: False
        total = shutil.disk_usage(folder).total
        if 0 < total < reserved_bytes(total, min_free_megabytes) * REOPEN_FACTOR:
            max_megabytes = int(total / REOPEN_FACTOR / MEGABYTE)
            problem = f"must be at most {max_megabytes}: the file system of {folder} has {_format_megabytes(total)} in all"
            raise ConfigError([Problem(f"[processing] min_free_megabytes = '{min_free_megabytes}'", problem)])

    def has_room(self) -> bool:
        """Return whether a new recording may start. Measures at most once a second, and logs a change."""
        with self._lock:
            if time.monotonic() >= self._next_measurement:
                self._update_room()
                self._next_measurement = time.monotonic() + MEASURE_INTERVAL
            return not self._short

    def ensure_room(self, sizes: Iterable[int]) -> None:
        """Raise LocalResourceError when a job does not fit. `sizes` are those of its sources by their metadata."""
        need = needed_bytes(sizes)
        free, reserved = self._measure_after_eviction(need)
        if free < need + reserved:
            raise LocalResourceError(
                f"it needs about {_format_megabytes(need)} in {self._folder} by the sizes in its metadata; "
                f"{_format_megabytes(free)} are free, of which {_format_megabytes(reserved)} must stay free",
                code=Code.DISK_FULL,
            )

    def could_fit(self, sizes: Iterable[int]) -> bool:
        """Return whether a job would fit if the disk were empty. `sizes` are as for :meth:`ensure_room`."""
        total = shutil.disk_usage(self._folder).total
        return not total or needed_bytes(sizes) + reserved_bytes(total, self._min_free_megabytes) <= total

    def _update_room(self) -> None:
        try:
            free, reserved = self._measure_after_eviction(0)
        except OSError:
            return  # The job that needs the folder reports the error.
        self.measured = None if free == _UNKNOWN else (free, reserved)
        was_short, self._short = self._short, is_short(free, reserved, self._short)
        if self._short and not was_short:
            log.error(
                "the disk is nearly full: %s are free in %s, and %s must stay free; no new recording is started "
                "until %s are free",
                *(
                    _format_megabytes(free),
                    self._folder,
                    _format_megabytes(reserved),
                    _format_megabytes(reserved * REOPEN_FACTOR),
                ),
            )
        elif was_short and not self._short:
            log.warning(
                "the disk has enough space again: %s in %s; processing resumes", _format_megabytes(free), self._folder
            )

    def _measure_after_eviction(self, need: int) -> tuple[int, int]:
        free, reserved = self._measure_free()
        while free < need + reserved and self.spare():
            free, reserved = self._measure_free()
        return free, reserved

    def _measure_free(self) -> tuple[int, int]:
        """Return how many bytes are free, and how many must stay free."""
        usage = shutil.disk_usage(self._folder)
        free = usage.free if usage.total else _UNKNOWN
        return free, reserved_bytes(usage.total, self._min_free_megabytes)


def _format_megabytes(count: float) -> str:
    return f"{count / MEGABYTE:.1f} MB"
