"""The media engine and the encryption on a full disk: it is never reported as a fault of the media."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.keys import load_recipients
from lab.media import make_audio, make_screen
from muxer.crypto.envelope import Encryptor
from muxer.errors import LocalResourceError
from muxer.gir.rws import Certificate
from muxer.media.analyze.arrival import MediaInput
from muxer.media.engine import MediaEngine, MuxedFile
from muxer.system.files import translate_disk_errors
from muxer.system.process import Runner
from tests.support.disk import KILOBYTE, fill_disk, small_disk
from tests.support.tools import tested_tools

T0 = datetime(2026, 3, 1, 9, 0, 0, tzinfo=UTC)
NO_SPACE = "(?i)no space left"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an audio file and a screen file with gaps around it, which need padding."""
    folder = tmp_path_factory.mktemp("sources")
    make_audio(folder / "audio.mp3", T0, 10)
    make_screen(folder / "screen.mp4", T0 + timedelta(seconds=3), 5)
    return folder


@pytest.fixture
def disk(tmp_path: Path, sources: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "4m") as folder:
        for source in sources.iterdir():
            shutil.copy(source, folder)
        yield folder


def mux_files(folder: Path) -> MuxedFile:
    engine = MediaEngine(tested_tools(), Runner(), tolerance=2.0, slice_ms=5000, audio_codec="copy")
    screen = MediaInput(folder / "screen.mp4", "screen", T0 + timedelta(seconds=3))
    with translate_disk_errors(folder):
        return engine.mux(MediaInput(folder / "audio.mp3", "audio", T0), [screen], folder)


def test_disk_that_becomes_full_during_mux_is_reported(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """ffmpeg exits with 0 when only the end of its output does not fit; this must not be reported as a bad result."""
    before = set(disk.iterdir())
    length = mux_files(disk).path.stat().st_size // KILOBYTE
    for left in (0, length // 2, length):
        for path in set(disk.iterdir()) - before:
            path.unlink()
        fill_disk(disk, leave=left * KILOBYTE)
        with pytest.raises(LocalResourceError, match=NO_SPACE):
            mux_files(disk)
    assert "muxing again" not in caplog.text
    (disk / "filler").unlink()
    assert mux_files(disk).path.stat().st_size // KILOBYTE == length


def test_disk_that_becomes_full_during_encryption_is_reported(disk: Path, tmp_path: Path) -> None:
    (recipient, *_) = load_recipients(tmp_path / "keys")
    clear = disk / "clear"
    clear.write_bytes(bytes(1024 * KILOBYTE))
    fill_disk(disk, leave=200 * KILOBYTE)
    with pytest.raises(LocalResourceError, match=NO_SPACE):
        Encryptor("openssl", Runner()).encrypt_file(
            clear, [Certificate(recipient.alias, recipient.pem)], disk / "ciphertext"
        )
