"""Compares a stored muxed file with one that is made now from the same sources."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from muxer.audit.file_look import is_of_one_file
from muxer.audit.findings import Finding, FindingKind
from muxer.audit.pace import Pace
from muxer.errors import EncryptionError, MediaNotFound, MuxerError, Stopped
from muxer.gir.models import CallRecording, MediaFile, to_microseconds
from muxer.gir.targets import MuxTarget
from muxer.net.circuit_breaker import RCS
from muxer.pipeline.job import Job
from muxer.pipeline.services import Services
from muxer.storage.base import parse_descriptor

# A damaged file is described by its first differences.
MAX_DIFFERENCES = 5
_SAMPLE = re.compile(r"(\d{1,9})/(\d{1,9})")


@dataclass(frozen=True)
class Sample:
    """The share of the calls that is compared: the same calls in each audit."""

    part: int = 1
    whole: int = 1

    @classmethod
    def parse(cls, text: str) -> Sample:
        """Parse a share such as ``1/100``. Raises ValueError."""
        found = _SAMPLE.fullmatch(text.strip())
        if found is None or not 0 < int(found[1]) <= int(found[2]):
            raise ValueError(f"{text!r} is no share such as 1/100")
        return cls(int(found[1]), int(found[2]))

    def includes(self, recording_id: str) -> bool:
        """Whether a call is in the sample."""
        digest = hashlib.sha256(recording_id.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.whole < self.part


class DeepCheck:
    """Compares muxed files with their sources."""

    def __init__(self, services: Services, job: Job, pace: Pace) -> None:
        self._services, self._job, self._pace = services, job, pace

    def compare_results(self, call: CallRecording, target: MuxTarget, results: Sequence[MediaFile]) -> Iterator[Finding]:
        """Yield the findings about `results`, muxed files that have exactly the sources of `target`.

        Raises Stopped, and the error of a service that is unavailable.
        """
        for media in results:
            started = None if call.start is None else to_microseconds(call.start) / 1e6
            finding = partial(Finding, recording=call.id, file=media.media_id, target=target.file_name, started=started)
            try:
                differences = self._compare_file(target, media)
            except Stopped:
                raise
            except MediaNotFound:
                continue  # That a file is missing is found without fetching it.
            except MuxerError as error:
                if any(not is_of_one_file(error, service) for service in self._services.circuit_breaker.open_circuits()):
                    raise
                yield finding(FindingKind.UNCHECKED, detail=f"it cannot be compared with its sources: {error}")
                continue
            if differences:
                yield finding(FindingKind.DAMAGED, detail="; ".join(differences[:MAX_DIFFERENCES]))

    def _compare_file(self, target: MuxTarget, media: MediaFile) -> list[str]:
        """Return where a stored muxed file differs from one that is made now."""
        differences: list[str] = []
        with self._services.workspace.job_folder() as folder:
            stored = folder / "stored.mp4"
            self._fetch_result(target, media, stored)

            def compare(reference: Path) -> None:
                differences.extend(self._services.engine.compare_files(stored, reference, folder))

            self._job.make_clear(target, compare)
        return differences

    def _fetch_result(self, target: MuxTarget, media: MediaFile, path: Path) -> None:
        self._pace.await_turn()
        if media.is_encrypted:
            if self._services.rcs is None:
                raise EncryptionError("it is encrypted, and [rcs] base_uri is empty")
            fetch = partial(self._services.rcs.play_screen, target.recording_id, media.media_id, path, media.relative_paths)
            self._services.repeat(f"fetch through {RCS}", fetch)
            return
        if media.media_descriptor is None:
            raise MediaNotFound(f"{media.media_id} has no location")
        location = parse_descriptor(media.media_descriptor)
        store = self._services.stores.for_location(location)
        self._services.repeat("fetch", partial(store.download_file, location, path))
