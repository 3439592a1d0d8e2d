"""Finds the external programs: in ``thirdparty/`` of this installation, then on the PATH, like ``install.d/system.sh``."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

THIRDPARTY = Path(__file__).resolve().parents[2] / "thirdparty"


@dataclass(frozen=True)
class ProgramPath:
    """Parser of the path of a program; its bare name means thirdparty/`build`, if it exists, or the PATH."""

    name: str
    build: str

    def __call__(self, value: str, /) -> str:
        found = find_unpacked(THIRDPARTY / self.build, self.name) if value == self.name else None
        return str(found) if found else self._find_executable(value)

    def _find_executable(self, value: str) -> str:
        """Return the absolute path of an executable. Raises ValueError when it does not exist."""
        executable = shutil.which(value)
        if executable is None:
            kind = "is not the path of an executable file" if os.sep in value else "is not on the PATH"
            kind += f" and not in {THIRDPARTY / self.build}" if value == self.name else ""
            raise ValueError(f"{kind}; install the program or give its full path")
        return str(Path(executable).absolute())


def find_unpacked(folder: Path, name: str) -> Path | None:
    """Return the path of the program in the build unpacked in `folder`, None without one. Raises ValueError.

    It may be in the folder, in its bin/, in a top folder of the archive, or in the bin/ of that one.
    """
    file = f"{name}.exe" if os.name == "nt" else name
    try:
        tops = [one for one in sorted(folder.iterdir()) if one.is_dir() and one.name != "bin"] if folder.is_dir() else []
        found = [one for one in (folder / file, folder / "bin" / file) if one.is_file()][:1]
        found = found or [one for top in tops for one in (top / file, top / "bin" / file) if one.is_file()]
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read by this account: {error.strerror}") from error
    if len(found) > 1:
        raise ValueError(f"stands for more than one build: {', '.join(map(str, found))}; keep one, or give its full path")
    if found and not os.access(found[0], os.X_OK):
        raise ValueError(f"stands for {found[0]}, which this account may not execute; chmod a+x it, or remove it")
    return found[0] if found else None
