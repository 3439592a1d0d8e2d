#!/usr/bin/env python3
"""Fills thirdparty/wheels/ with the Python packages of a lock file, on a machine that has a network.

Bring the folder to the site, beside this file; install.sh --offline and pip take it from there.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOCKS = {
    "run": "requirements.txt",
    "fleet": "requirements-fleet.txt",
    "windows": "requirements-windows.txt",
    "lab": "requirements-lab.txt",
    "test": "requirements-test.txt",
}
FILLED_FOR = "filled-for.txt"  # install.d/offline.sh shows it when the wheels do not serve
_LOCKED = re.compile(r"^(?P<pin>[\w.\-]+==\S+) ; (?P<marker>.+?)(?P<more> \\)?$", re.MULTILINE)

_FAILED = "pip could not bring all wheels for {}; nothing was added to thirdparty/wheels/. The last lines it printed:"
_ADVICE = (
    "Check that this machine reaches the Python package registry (proxy, certificate bundle or a registry of your own:",
    "pip config), and that all packages have wheels for this platform and Python version.",
)


class FetchError(Exception):
    """The wheels cannot be brought; the message says why, and what to do."""


@dataclass(frozen=True)
class Platform:
    """A system that wheels are fetched for: pip's names for it, the preferred one first, and what markers ask of it."""

    tags: tuple[str, ...] = ()
    markers: Mapping[str, str] = field(default_factory=dict)


THIS = "this machine"
PLATFORMS = {
    THIS: Platform(),
    "linux_x86_64": Platform(
        ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64"),
        {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
    ),
    "win_amd64": Platform(
        ("win_amd64",),
        {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"},
    ),
}


def for_target(lock: str, target: Mapping[str, str]) -> str:
    """Given the text of a lock file and what markers may ask of the target, return the lines that hold for it.

    pip would ask this machine: it leaves out what only Windows needs when it fetches for Windows on Linux.
    """
    from pip._vendor.packaging.markers import Marker

    lines, kept = [], True
    for line in lock.splitlines():
        if line[:1].strip(" #"):  # the first line of a package; its hashes follow, indented
            match = _LOCKED.match(line)
            kept = match is None or Marker(match["marker"]).evaluate(dict(target))
            line = f"{match['pin']}{match['more'] or ''}" if match else line
        if kept:
            lines.append(line)
    return "\n".join([*lines, ""])


def target_of(name: str, version: str | None) -> dict[str, str]:
    """Given a platform and a Python version, or None for that of this machine, return what markers may ask of it."""
    target = dict(PLATFORMS[name].markers)
    if version:
        minor = ".".join(version.split(".")[:2])
        target |= {"python_version": minor, "python_full_version": version if version.count(".") > 1 else f"{version}.0"}
    return target


def download(lock: str, name: str, version: str | None, folder: Path) -> None:
    """Given the lines of a lock file, the platform and the Python version, bring all wheels into a folder, with pip.

    Raise :class:`FetchError` with the end of what pip says.
    """
    listed = folder / "requirements.txt"
    listed.write_text(lock, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--quiet"]
    command += ["--require-hashes", "--only-binary", ":all:", "--no-deps"]
    command += [word for tag in PLATFORMS[name].tags for word in ("--platform", tag)]
    command += ["--python-version", version] if version else []
    command += ["--requirement", str(listed), "--dest", str(folder)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    listed.unlink()
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if not line.startswith("WARNING: Location")][-15:]
        raise FetchError("\n  ".join([_FAILED.format(name), *said, *_ADVICE]))


def fetch(purpose: str, name: str, version: str | None, wheels: Path) -> str:
    """Fetch the wheels of a lock file and add them to a folder, all or none; return what they are for, in words."""
    if importlib.util.find_spec("pip") is None:
        raise FetchError(f"{sys.executable} has no pip: install it, or start this with a Python that has it")
    lock = (HERE / LOCKS[purpose]).read_text(encoding="utf-8")
    wheels.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=wheels) as partial:
        download(for_target(lock, target_of(name, version)), name, version, Path(partial))
        for path in sorted(Path(partial).iterdir()):
            path.replace(wheels / path.name)
    where = f"{sys.platform} {platform.machine()}" if name == THIS else name
    words = f"{LOCKS[purpose]}, {where}, Python {version or platform.python_version()}"
    known = wheels / FILLED_FOR
    lines = known.read_text(encoding="utf-8").splitlines() if known.exists() else []
    known.write_text("\n".join([*(line for line in lines if line != words), words, ""]), encoding="utf-8")
    return words


def _version(text: str) -> str:
    if not re.fullmatch(r"3\.\d+(\.\d+)?", text):
        raise argparse.ArgumentTypeError("must be a version such as 3.11")
    return text


def main(arguments: Sequence[str]) -> int:
    """Given the arguments of the command line, return its exit code: 0 done, 1 the wheels could not be brought."""
    parser = argparse.ArgumentParser(prog="fetch.py", description=__doc__, allow_abbrev=False)
    option, others = parser.add_argument, [name for name in PLATFORMS if name != THIS]
    option("--for", dest="purpose", choices=LOCKS, default="run", help="what the packages are for (default: run)")
    option("--platform", choices=others, default=THIS, help="system of the site (default: that of this machine)")
    option("--python-version", metavar="3.N", type=_version, help="of the site, such as 3.11 (default: that of this Python)")
    given = parser.parse_args(arguments)
    wheels = HERE / "wheels"
    try:
        words = fetch(given.purpose, given.platform, given.python_version, wheels)
    except (FetchError, OSError) as error:
        sys.stderr.write(f"fetch.py: {error}\n")
        return 1
    print(f"{wheels} holds all wheels for {words}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
