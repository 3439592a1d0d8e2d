"""Where ffmpeg, ffprobe and openssl are searched: thirdparty/ of the installation, PATH, or the configured path."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from muxer.config import programs
from muxer.config.programs import ProgramPath

SYSTEM_SH = Path(__file__).resolve().parents[2] / "install.d" / "system.sh"
FFPROBE, OPENSSL = ProgramPath("ffprobe", "ffmpeg"), ProgramPath("openssl", "openssl")

LAYOUTS = [
    (FFPROBE, "ffmpeg/ffprobe"),
    (FFPROBE, "ffmpeg/bin/ffprobe"),
    (FFPROBE, "ffmpeg/ffmpeg-7.0.2 static/ffprobe"),
    (FFPROBE, "ffmpeg/ffmpeg-n7.1/bin/ffprobe"),
    (FFPROBE, "ffmpeg/ffprobe/ffprobe"),
    (OPENSSL, "openssl/openssl"),
    (OPENSSL, "openssl/bin/openssl"),
    (OPENSSL, "openssl/openssl-3.0.13/bin/openssl"),
]


@pytest.fixture
def thirdparty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "with blanks" / "thirdparty"
    monkeypatch.setattr(programs, "THIRDPARTY", folder)
    return folder


def write_program(path: Path, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


@pytest.mark.posix
@pytest.mark.parametrize(("program", "subpath"), LAYOUTS)
def test_a_build_in_thirdparty_takes_precedence_over_the_path(thirdparty: Path, program: ProgramPath, subpath: str) -> None:
    on_path = program(program.name)
    build = write_program(thirdparty / subpath)
    (thirdparty / program.build / "README.txt").touch()
    assert program(program.name) == str(build) != on_path


@pytest.mark.posix
@pytest.mark.parametrize(("program", "subpath"), LAYOUTS)
def test_the_installer_searches_the_same_folders(thirdparty: Path, program: ProgramPath, subpath: str) -> None:
    build = write_program(thirdparty / subpath)
    script = f'set -euo pipefail; say() {{ echo "$*"; }}; . "{SYSTEM_SH}"; unpacked "$1" "$2"'
    command = ["bash", "-c", script, "bash", str(thirdparty / program.build), program.name]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{build}\n"


@pytest.mark.posix
def test_a_configured_path_takes_precedence(thirdparty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(thirdparty / "openssl/openssl")
    mine, other = write_program(tmp_path / "mine/openssl"), write_program(tmp_path / "bin/openssl3")
    monkeypatch.setenv("PATH", str(other.parent))
    assert OPENSSL(str(mine)) == str(mine)
    assert OPENSSL("openssl3") == str(other)


@pytest.mark.posix
def test_a_build_that_is_not_executable_is_named(thirdparty: Path) -> None:
    build = write_program(thirdparty / "openssl/openssl-3.0.13/bin/openssl", mode=0o644)
    with pytest.raises(ValueError, match="chmod") as caught:
        OPENSSL("openssl")
    assert str(build) in str(caught.value)


@pytest.mark.posix
def test_two_builds_are_ambiguous(thirdparty: Path) -> None:
    both = [write_program(thirdparty / f"ffmpeg/ffmpeg-{version}/bin/ffprobe") for version in ("6", "7")]
    with pytest.raises(ValueError, match="more than one") as caught:
        FFPROBE("ffprobe")
    assert all(str(item) in str(caught.value) for item in both)
    directly = write_program(thirdparty / "ffmpeg/ffprobe")
    assert FFPROBE("ffprobe") == str(directly)


def test_a_folder_that_cannot_be_read_is_named(thirdparty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (thirdparty / "openssl").mkdir(parents=True)

    def refuse_folder(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))  # root, who runs these tests, may read everything

    monkeypatch.setattr(Path, "iterdir", refuse_folder)
    with pytest.raises(ValueError, match="cannot be read by this account") as caught:
        OPENSSL("openssl")
    assert str(thirdparty / "openssl") in str(caught.value)


def test_a_program_that_does_not_exist(thirdparty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (thirdparty / "ffmpeg" / "still packed").mkdir(parents=True)
    monkeypatch.setenv("PATH", "/no/such/folder")
    with pytest.raises(ValueError, match="not on the PATH and not in") as caught:
        FFPROBE("ffprobe")
    assert str(thirdparty / "ffmpeg") in str(caught.value)
