"""Decide what happens with an incomplete source: wait for the rest, or use the part that is there (gir-api, section 4)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from muxer.errors import Code, MediaError, MediaIncomplete
from muxer.gir.models import to_microseconds
from muxer.media.analyze.completeness import Structure, examine_structure

log = logging.getLogger(__name__)

# Metadata are in whole seconds; a file that is shorter by more than this is incomplete.
MAX_SHORTFALL_US = 2_000_000
_INCOMPLETE_CODES = (Code.EMPTY_FILE, Code.TRUNCATED)


class Arrival(StrEnum):
    """What is known about the arrival of a source.

    `GROWING`: it may be incomplete, then MediaIncomplete is raised. `COMPLETE`: the same, but its size is that in the
    metadata. `SETTLED`: it has not grown for a long time; the part that is there is used.
    """

    UNKNOWN = "unknown"
    GROWING = "growing"
    COMPLETE = "complete"
    SETTLED = "settled"


@dataclass(frozen=True)
class MediaInput:
    """A fetched media file. `start` and `stop` are those of its metadata.

    `shortfall` is what is missing by its size. `paused` are blank spans of the audio, in microseconds; an end of None is its
    end.
    """

    path: Path
    name: str
    start: datetime
    stop: datetime | None = None
    arrival: Arrival = Arrival.UNKNOWN
    shortfall: str = ""
    paused: tuple[tuple[int, int | None], ...] = ()


class ArrivalCheck:
    """The check of one source. `path` is the file to read: the source, or a copy of its readable part."""

    def __init__(self, source: MediaInput, structure: Structure, missing: list[str]) -> None:
        self.path = source.path
        self._source = source
        self._structure = structure
        self._missing = missing

    def check_length(self, length: int) -> None:
        """Compare `length` (microseconds) with the metadata, and log what is missing. Raises MediaIncomplete."""
        source, short = self._source, self._describe_shortness(length)
        proven = self._structure is Structure.WHOLE or source.arrival is Arrival.COMPLETE
        lacks = self._describe_missing(short if source.shortfall or not proven else "")
        if source.arrival is Arrival.SETTLED and lacks:
            self._missing.append(f"{source.name}: {lacks}")
            log.warning("%s is incomplete and no longer grows; the available part is muxed: %s", source.name, lacks)
        elif short and source.arrival is Arrival.GROWING and not proven:
            raise MediaIncomplete(f"{source.name}: the file is not complete yet: {short}", source.name)
        elif short:
            log.warning("%s %s; %s", source.name, short, "the file is complete" if proven else "the file may be incomplete")

    def _describe_missing(self, short: str) -> str:
        truncated = "it is truncated" if self._structure is Structure.TRUNCATED else ""
        return ", ".join(filter(None, (truncated, self._source.shortfall, short)))

    def _describe_shortness(self, length: int) -> str:
        source = self._source
        stated = to_microseconds(source.stop) - to_microseconds(source.start) if source.stop else 0
        if stated - length <= MAX_SHORTFALL_US:
            return ""
        return f"lasts {length / 1e6:.1f} s, but {stated / 1e6:.1f} s by its metadata"


@contextmanager
def check_arrival(source: MediaInput, salvage: Callable[[Path], Path], missing: list[str]) -> Iterator[ArrivalCheck]:
    """Yield the check of `source`, around the reading of its file. Raises MediaIncomplete or MediaError.

    `salvage` returns a copy of the readable part of a truncated file; what it lacks is added to `missing`.
    """
    may_grow = source.arrival in (Arrival.GROWING, Arrival.COMPLETE)
    structure = Structure.UNPROVEN if source.arrival is Arrival.UNKNOWN else examine_structure(source.path)
    if may_grow and (structure is Structure.TRUNCATED or source.shortfall):
        lacks = source.shortfall or f"it is truncated after {source.path.stat().st_size} bytes"
        raise MediaIncomplete(f"{source.name}: the file is not complete yet: {lacks}", source.name)
    check = ArrivalCheck(source, structure, missing)
    if structure is Structure.TRUNCATED and source.path.stat().st_size:
        check.path = salvage(source.path)
    try:
        yield check
    except MediaError as error:
        if may_grow and error.code in _INCOMPLETE_CODES:
            raise MediaIncomplete(f"{source.name}: the file is not complete yet: {error}", source.name) from error
        raise
