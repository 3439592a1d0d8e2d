"""Generated media, created once for a run of the tests: the same call again returns a copy of the file."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lab import build
from lab.build import AddedCall
from lab.cases import ALL_CASES, Case
from lab.lab import Lab
from lab.media import make_audio, make_screen

Maker = Callable[..., None]
# The start of the recordings of all labs: early enough that the longest case has ended.
LAB_START = (datetime.now(UTC) - timedelta(minutes=20)).replace(second=0, microsecond=0)


class MediaCache:
    """A folder of finished media that several processes may share: each file is complete or does not exist."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder

    def cached_maker(self, make: Maker, shift: timedelta = timedelta(0)) -> Maker:
        """Return a function like `make` (``make_audio`` or ``make_screen``) that creates each file only once.

        The media show times that are earlier by `shift`."""

        def copy_or_create(path: Path, start: datetime, *arguments: object, **options: object) -> None:
            wanted = repr((make.__name__, path.suffix, start - shift, *arguments, sorted(options.items())))
            stored = self._folder / (hashlib.sha256(wanted.encode()).hexdigest() + path.suffix)
            if not stored.exists():
                with TemporaryDirectory(dir=self._folder) as folder:
                    new = Path(folder) / path.name
                    make(new, start - shift, *arguments, **options)
                    new.replace(stored)
            shutil.copyfile(stored, path)

        return copy_or_create


class CachedMediaLab(Lab):
    """A lab whose recordings start at the same time in each test; it reuses existing media and keys."""

    shelf: MediaCache
    keys: Path

    def __init__(self, folder: Path, *arguments: object, **options: object) -> None:
        shutil.copytree(self.keys, folder / "keys")
        super().__init__(folder, *arguments, **options)

    def add_case(self, case: Case, start: datetime | None = None, serial: int = 0) -> tuple[AddedCall, ...]:
        with self.use_cached_makers():
            return super().add_case(case, start or LAB_START, serial)

    def add_cases(self, cases: Sequence[Case] = ALL_CASES, start: datetime | None = None) -> tuple[AddedCall, ...]:
        with self.use_cached_makers():
            return super().add_cases(cases, start or LAB_START)

    @contextmanager
    def use_cached_makers(self, shift: timedelta = timedelta(0)) -> Iterator[None]:
        """Reuse existing media, which show times that are earlier by `shift`, while the context is entered."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, "make_audio", self.shelf.cached_maker(make_audio, shift))
            patch.setattr(build, "make_screen", self.shelf.cached_maker(make_screen, shift))
            yield


def shared_folder(basetemp: Path) -> Path:
    """Return the folder that all workers of this run share; `basetemp` is pytest's folder for temporary files."""
    return basetemp.parent if "PYTEST_XDIST_WORKER" in os.environ else basetemp
