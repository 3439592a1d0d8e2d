"""Free space on the disk of the temporary folder: the rules, and one log line per change."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from muxer.errors import ConfigError, LocalResourceError
from muxer.pipeline.disk_space import MEASURE_INTERVAL, MEGABYTE, TempDisk, is_short, needed_bytes, reserved_bytes
from muxer.pipeline.workspace import Workspace

GIGABYTE = 1024 * MEGABYTE


@pytest.mark.parametrize(
    ("total", "option", "kept"),
    [
        (1000 * GIGABYTE, None, GIGABYTE),
        (20 * GIGABYTE, None, GIGABYTE),
        (2 * GIGABYTE, None, GIGABYTE // 10),
        (2 * GIGABYTE, 300, 300 * MEGABYTE),
        (2 * GIGABYTE, 0, 0),
    ],
)
def test_one_gigabyte_or_five_percent_of_a_small_disk_stays_free(total: int, option: int | None, kept: int) -> None:
    assert reserved_bytes(total, option) == pytest.approx(kept, abs=1)


def test_work_resumes_only_when_ten_percent_more_is_free() -> None:
    assert not is_short(100, 100, was_short=False)
    assert is_short(99, 100, was_short=False)
    assert is_short(109, 100, was_short=True)
    assert not is_short(111, 100, was_short=True)


def test_without_a_reserve_a_disk_is_never_short() -> None:
    assert not is_short(0, 0, was_short=False)


def test_a_job_needs_two_and_a_half_times_its_sources() -> None:
    assert needed_bytes([100, 300]) == 1000
    assert needed_bytes([0, 0]) == needed_bytes([]) == 0


class FakeDisk:
    """A file system whose free space is set by the test, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.total, self.free, self.now, self.checks = 1000 * MEGABYTE, 500 * MEGABYTE, 1000.0, 0
        monkeypatch.setattr("muxer.pipeline.disk_space.shutil.disk_usage", self._disk_usage)
        monkeypatch.setattr("muxer.pipeline.disk_space.time.monotonic", lambda: self.now)

    def _disk_usage(self, _: Path) -> SimpleNamespace:
        self.checks += 1
        if self.free < 0:
            raise FileNotFoundError(2, "gone")
        return SimpleNamespace(total=self.total, free=self.free)

    def change_free_later(self, free_megabytes: int) -> None:
        self.free = free_megabytes * MEGABYTE
        self.now += MEASURE_INTERVAL


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> FakeDisk:
    return FakeDisk(monkeypatch)


@pytest.mark.posix
def test_a_change_is_logged_once(system: FakeDisk, caplog: pytest.LogCaptureFixture) -> None:
    disk, seen = TempDisk(Path("/temp"), 100), []
    for free in (500, 99, 50, 105, 99, 111, 105, 100, 500):
        system.change_free_later(free)
        seen.append(disk.has_room())
    assert seen == [True, False, False, False, False, True, True, True, True]
    start_record, end_record = caplog.records
    assert (start_record.levelno, end_record.levelno) == (logging.ERROR, logging.WARNING)
    for part in ("99.0 MB are free in /temp", "100.0 MB must stay free", "110.0 MB"):
        assert part in start_record.getMessage()
    assert "111.0 MB in /temp" in end_record.getMessage()


def test_the_disk_is_checked_at_most_once_a_second(system: FakeDisk) -> None:
    disk = TempDisk(Path("/temp"), 100)
    before = system.checks
    for _ in range(50):
        assert disk.has_room()
    assert system.checks == before + 1


def test_a_missing_folder_changes_nothing(system: FakeDisk, caplog: pytest.LogCaptureFixture) -> None:
    disk = TempDisk(Path("/temp"), 100)
    seen = []
    for free in (500, -1, 50, -1, 500):
        system.change_free_later(free)
        seen.append(disk.has_room())
    assert seen == [True, True, False, False, True]
    assert len(caplog.records) == 2


@pytest.mark.posix
def test_a_job_that_would_not_fit_on_an_empty_disk(system: FakeDisk) -> None:
    disk = TempDisk(Path("/temp"), 100)
    assert disk.could_fit([360 * MEGABYTE]) and not disk.could_fit([361 * MEGABYTE])
    system.total = 0
    assert disk.could_fit([361 * MEGABYTE])


@pytest.mark.posix
def test_a_job_that_does_not_fit_is_refused_before_it_starts(system: FakeDisk) -> None:
    disk = TempDisk(Path("/temp"), 100)
    disk.ensure_room([100 * MEGABYTE, 60 * MEGABYTE])
    disk.ensure_room([0, 0])
    with pytest.raises(LocalResourceError) as caught:
        disk.ensure_room([100 * MEGABYTE, 61 * MEGABYTE])
    for part in ("402.5 MB in /temp", "500.0 MB are free", "100.0 MB must stay free"):
        assert part in str(caught.value)


def test_a_reserve_larger_than_the_file_system_is_an_error(system: FakeDisk) -> None:
    with pytest.raises(ConfigError, match=r"min_free_megabytes = '950': must be at most 909.* 1000\.0 MB in all"):
        TempDisk(Path("/temp"), 950)
    TempDisk(Path("/temp"), 909)


@pytest.mark.parametrize("option", [None, 100])
def test_a_file_system_without_a_size_blocks_nothing(system: FakeDisk, option: int | None) -> None:
    system.total = system.free = 0
    disk = TempDisk(Path("/temp"), option)
    assert disk.has_room()
    disk.ensure_room([100 * MEGABYTE])


def test_the_workspace_also_refuses_a_job_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="min_free_megabytes"):
        Workspace(tmp_path, "single", 1_000_000_000)
