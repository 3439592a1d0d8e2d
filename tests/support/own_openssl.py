"""An openssl that runs only with its own libraries, like a build unpacked from an archive."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path


def build_openssl(folder: Path, program: str = "openssl", libraries: str = ".") -> Path:
    """Copy the system's openssl and its two libraries below `folder` under unique names; return its path.

    The names in the files are replaced by others of the same length, so that the loader cannot use the system's libraries.
    """
    system = shutil.which("openssl")
    assert system
    needed = subprocess.run(["ldd", system], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"(lib(?:crypto|ssl)\.so\.\d\S*) => (\S+)", needed)
    assert len(found) == 2, f"the system's openssl is not linked with two shared libraries: {needed}"
    own = [(name, name[:-1] + "9") for name, _ in found]
    target = folder / program
    copies = {Path(system): target}
    copies |= {Path(path): folder / libraries / name for (_, path), (_, name) in zip(found, own, strict=True)}
    for source, copy in copies.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        content = source.read_bytes()
        for old, new in own:
            content = content.replace(old.encode(), new.encode())
        copy.write_bytes(content)
    target.chmod(0o755)
    return target
