"""Streams from the network to disk."""

from __future__ import annotations

import errno
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from muxer.errors import LocalResourceError, ServiceUnavailable, Stopped, UnreadableResponse
from muxer.net import transfer
from muxer.net.transfer import limit_body, receive_file, time_limit
from muxer.system.files import open_private
from tests.support.disk import small_disk


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.mark.parametrize("expected", [6, None])
def test_the_chunks_are_written_and_counted(tmp_path: Path, stop: threading.Event, expected: int | None) -> None:
    path = tmp_path / "file"
    assert receive_file([b"abc", b"", b"def"], path, expected=expected, source="RWS", stop=stop) == 6
    assert path.read_bytes() == b"abcdef"


def test_an_empty_body_is_a_body(tmp_path: Path, stop: threading.Event) -> None:
    assert receive_file([], tmp_path / "file", expected=0, source="RWS", stop=stop) == 0


@pytest.mark.parametrize("expected", [5, 7, 0])
def test_a_length_other_than_announced_is_a_transient_error(tmp_path: Path, stop: threading.Event, expected: int) -> None:
    with pytest.raises(ServiceUnavailable, match=rf"RWS .*6 of {expected}"):
        receive_file([b"abcdef"], tmp_path / "file", expected=expected, source="RWS", stop=stop)


@pytest.mark.posix
def test_only_this_account_can_read_a_file(tmp_path: Path) -> None:
    with open_private(tmp_path / "file") as file:
        file.write(b"x")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_an_existing_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"longer than the new one")
    with open_private(tmp_path / "file") as file:
        file.write(b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_stop_ends_a_transfer_in_the_middle(tmp_path: Path, stop: threading.Event) -> None:
    taken = []

    def stopping_chunks() -> Iterator[bytes]:
        for number in range(100):
            taken.append(number)
            if number == 3:
                stop.set()
            yield b"x"

    with pytest.raises(Stopped):
        receive_file(stopping_chunks(), tmp_path / "file", expected=None, source="RWS", stop=stop)
    assert taken == [0, 1, 2, 3]


def test_a_transfer_that_stalls_is_given_up(tmp_path: Path, stop: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(transfer.time, "monotonic", lambda: clock[0])  # type: ignore[attr-defined]

    def stalling_chunks() -> Iterator[bytes]:
        yield b"x"
        clock[0] += time_limit(10) + 1
        yield b"x"
        raise AssertionError("it went on")

    with pytest.raises(ServiceUnavailable, match="time limit"):
        receive_file(stalling_chunks(), tmp_path / "file", expected=10, source="RWS", stop=stop)


def test_the_time_limit_grows_with_the_length() -> None:
    assert time_limit(0) < time_limit(10**9) < time_limit(10**10)
    assert time_limit(None) > 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_transient_error(tmp_path: Path, number: int) -> None:
    with pytest.raises(LocalResourceError, match="no space"), open_private(tmp_path / "file"):
        raise OSError(number, "full")


def test_another_error_of_the_disk_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), open_private(tmp_path / "file"):
        raise PermissionError(errno.EACCES, "no")


@pytest.mark.posix
def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    (tmp_path / "file").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError), open_private(tmp_path / "file"):
        pass
    assert (tmp_path / "precious").read_text() == "x"


@pytest.mark.posix
def test_a_file_that_was_open_to_others_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(0o666)
    with open_private(tmp_path / "file"):
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_an_endless_body_uses_at_most_half_of_the_disk(
    tmp_path: Path, stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "CHECK_INTERVAL_BYTES", 4096)
    with small_disk(tmp_path / "disk", "1m") as folder:
        with pytest.raises(LocalResourceError, match="are free"):
            receive_file(iter(lambda: bytes(1024), b""), folder / "file", expected=None, source="RWS", stop=stop)
        assert shutil.disk_usage(folder).free > 400_000


def test_a_response_that_is_not_media_is_limited_in_size_and_time() -> None:
    def read_body(max_bytes: int, seconds: float, stop: threading.Event) -> list[bytes]:
        return list(limit_body(iter([b"ab", b"cd"]), "PROPFIND", max_bytes, time.monotonic() + seconds, stop))

    stop = threading.Event()
    assert read_body(4, 60, stop) == [b"ab", b"cd"]
    with pytest.raises(UnreadableResponse, match="PROPFIND: the response is longer than 3 bytes"):
        read_body(3, 60, stop)
    with pytest.raises(ServiceUnavailable, match="took longer"):
        read_body(4, -1, stop)
    stop.set()
    with pytest.raises(Stopped):
        read_body(4, 60, stop)
