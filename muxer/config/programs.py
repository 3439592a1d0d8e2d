"""Where the external programs are found: builds unpacked in ``thirdparty/`` of this installation, then the PATH.

``install.d/system.sh`` looks in the same places; a test holds both together.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

THIRDPARTY = Path(__file__).resolve().parents[2] / "thirdparty"


@dataclass(frozen=True)
class ProgramPath:
    """The path of a program. Its bare name is the default, and stands for the build in thirdparty/``build``, when there
    is one."""

    name: str
    build: str

    def __call__(self, value: str, /) -> str:
        found = find_unpacked(THIRDPARTY / self.build, self.name) if value == self.name else None
        return str(found) if found else self._find_executable(value)

    def _find_executable(self, value: str) -> str:
        """Given a path, or a name on the PATH, return the path of the executable."""
        found = shutil.which(value)
        if found is None:
            kind = "is not the path of an executable file" if os.sep in value else "is not on the PATH"
            kind += f" and not in {THIRDPARTY / self.build}" if value == self.name else ""
            raise ValueError(f"{kind}; install the program or give its full path")
        return str(Path(found).absolute())


def find_unpacked(folder: Path, name: str) -> Path | None:
    """Given a folder of thirdparty/ and the name of a program, return its path when a build was unpacked there: in the
    folder, in its bin/, or in the one folder that archives bring with them, or the bin/ of that one.

    Raise ``ValueError`` when there is more than one, when it is not executable, or when the folder cannot be read.
    """
    file = f"{name}.exe" if os.name == "nt" else name
    try:
        brought = [one for one in sorted(folder.iterdir()) if one.is_dir() and one.name != "bin"] if folder.is_dir() else []
        found = [one for one in (folder / file, folder / "bin" / file) if one.is_file()][:1]
        found = found or [one for top in brought for one in (top / file, top / "bin" / file) if one.is_file()]
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read by this account: {error.strerror}") from error
    if len(found) > 1:
        raise ValueError(f"stands for more than one build: {', '.join(map(str, found))}; keep one, or give its full path")
    if found and not os.access(found[0], os.X_OK):
        raise ValueError(f"stands for {found[0]}, which this account may not execute; chmod a+x it, or remove it")
    return found[0] if found else None
