"""Sets the library path: openssl runs with its own libraries, every other program without them.

The guide puts openssl's folder into ``LD_LIBRARY_PATH``, where ffmpeg would load libraries of another version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

LIBRARY_PATH_VARIABLE = "LD_LIBRARY_PATH"
# The value of the variable when the command of the guide was started without a shell.
_UNEXPANDED = (f"${LIBRARY_PATH_VARIABLE}", f"${{{LIBRARY_PATH_VARIABLE}}}")


def library_folders(openssl: str) -> tuple[str, ...]:
    """Return the folders near the program `openssl` that contain its libraries."""
    return tuple(folder for folder in _build_folders(openssl) if any(Path(folder).glob("libcrypto.so*")))


def add_own_folders(environ: Mapping[str, str], own: Sequence[str]) -> dict[str, str]:
    """Return the environment for openssl; `own` are the folders of its libraries."""
    return _replace_folders(environ, [*own, *(entry for entry in _listed_folders(environ) if entry not in own)])


def remove_foreign_folders(environ: Mapping[str, str], foreign: Sequence[str], program: str) -> dict[str, str]:
    """Return the environment of a program without `foreign` folders, except those near the program."""
    hidden = set(foreign) - set(_build_folders(program))
    kept = [entry for entry in _listed_folders(environ) if str(Path(entry).resolve()) not in hidden]
    return _replace_folders(environ, kept)


def _build_folders(program: str) -> list[str]:
    """Return the folders in which a build has its libraries: that of the program, ../lib and ../lib64."""
    home = Path(program).resolve().parent
    return list(dict.fromkeys(str(folder.resolve()) for folder in (home, home.parent / "lib", home.parent / "lib64")))


def _listed_folders(environ: Mapping[str, str]) -> list[str]:
    """Return the folders of the variable. An empty one means the working directory and is left out."""
    return [entry for entry in environ.get(LIBRARY_PATH_VARIABLE, "").split(":") if entry and entry not in _UNEXPANDED]


def _replace_folders(environ: Mapping[str, str], folders: Sequence[str]) -> dict[str, str]:
    rest = {name: value for name, value in environ.items() if name != LIBRARY_PATH_VARIABLE}
    return {**rest, LIBRARY_PATH_VARIABLE: ":".join(folders)} if folders else rest
